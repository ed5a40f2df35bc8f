"""Fixtures of the ledger's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import asyncpg
import pytest

from services.ledger.__main__ import build
from tests.harness import PASSWORD, Infrastructure, TestMesh
from tests.ledger.book import BANK, FEES, PAYER, SCOPES, Book
from tests.ledger.clock import SettableClock
from tests.ledger.past import START


@pytest.fixture(scope="module")
async def ledger(test_mesh: TestMesh) -> TestMesh:
    """A running ledger whose write limit no test reaches."""
    await test_mesh.start("ledger", {"write_rate_per_second": 100_000, "read_rate_per_second": 100_000})
    return test_mesh


@pytest.fixture(scope="module")
async def clock() -> SettableClock:
    """The clock of `timed_ledger`."""
    return SettableClock(START)


@pytest.fixture(scope="module")
async def timed_ledger(infrastructure: Infrastructure, clock: SettableClock) -> AsyncIterator[TestMesh]:
    """A ledger with a clock that stands still until a test moves it."""
    mesh = TestMesh(infrastructure)
    limits = {"write_rate_per_second": 100_000, "read_rate_per_second": 100_000}
    await mesh.start("ledger", limits, build=partial(build, clock=clock))
    yield mesh
    await mesh.close()


@pytest.fixture
def timed_book(timed_ledger: TestMesh, tenant_id: str) -> Book:
    """The book of this test's tenant, with that clock."""
    return Book(timed_ledger.client("ledger", tenant_id, SCOPES), tenant_id)


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
