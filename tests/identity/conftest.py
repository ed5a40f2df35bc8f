"""Fixtures of identity's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.harness import PASSWORD, Infrastructure, TestMesh
from tests.identity.office import Office


@pytest.fixture(scope="module")
async def office(test_mesh: TestMesh) -> Office:
    """A running identity service whose limits no test reaches."""
    limits = {"write_rate_per_second": 100_000, "credential_rate_per_minute": 100_000}
    await test_mesh.start("identity", limits)
    return Office(test_mesh)


@pytest.fixture
async def service_role(infrastructure: Infrastructure) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the service's own role, as an attacker inside the service would have it."""
    connection = await asyncpg.connect(infrastructure.postgres.url("kente_identity", PASSWORD))
    yield connection
    await connection.close()


@pytest.fixture
async def admin(infrastructure: Infrastructure) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the owner of all tables, who sees every tenant."""
    connection = await asyncpg.connect(infrastructure.postgres.admin_url)
    await connection.execute("SET search_path = identity")
    yield connection
    await connection.close()
