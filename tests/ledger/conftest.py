"""Fixtures of the ledger's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.harness import PASSWORD, Infrastructure, TestMesh
from tests.ledger.book import BANK, FEES, PAYER, SCOPES, Book


@pytest.fixture(scope="module")
async def ledger(test_mesh: TestMesh) -> TestMesh:
    """A running ledger whose write limit no test reaches."""
    await test_mesh.start("ledger", {"write_rate_per_second": 100_000, "read_rate_per_second": 100_000})
    return test_mesh


@pytest.fixture
def book(ledger: TestMesh, tenant_id: str) -> Book:
    """The book of this test's tenant."""
    return Book(ledger.client("ledger", tenant_id, SCOPES), tenant_id)


@pytest.fixture
async def open_book(book: Book) -> Book:
    """A book with three empty accounts in GHS."""
    await book.open(BANK, PAYER, FEES)
    return book


@pytest.fixture
async def admin(infrastructure: Infrastructure) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the owner of all tables, who sees every tenant."""
    connection = await asyncpg.connect(infrastructure.postgres.admin_url)
    await connection.execute("SET search_path = ledger")
    yield connection
    await connection.close()


@pytest.fixture
async def service_role(infrastructure: Infrastructure) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the service's own role, as an attacker inside the service would have it."""
    connection = await asyncpg.connect(infrastructure.postgres.url("kente_ledger", PASSWORD))
    yield connection
    await connection.close()
