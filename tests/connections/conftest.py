"""Fixtures of the tests of connections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from tests.connections.desk import KEYS_SETTING, Desk, encryption_key
from tests.connections.listers import MTN_MOMO, SMTP, STRIPE, Lister
from tests.harness import PASSWORD, Infrastructure, TestMesh

LIMITS = {"write_rate_per_second": 100_000, "read_rate_per_second": 100_000}


@pytest.fixture(scope="module")
def encryption_keys() -> Iterator[pytest.MonkeyPatch]:
    """The setting of the encryption keys, which a test may change."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEYS_SETTING, encryption_key("k1"))
        yield patch


@pytest.fixture(scope="module")
async def payments(infrastructure: Infrastructure) -> AsyncIterator[Lister]:
    """A domain that lists two providers."""
    lister = Lister(infrastructure, "payments", [MTN_MOMO, STRIPE])
    await lister.start()
    yield lister
    await lister.stop()


@pytest.fixture(scope="module")
async def notifications(infrastructure: Infrastructure) -> AsyncIterator[Lister]:
    """A domain that lists one provider."""
    lister = Lister(infrastructure, "notifications", [SMTP])
    await lister.start()
    yield lister
    await lister.stop()


@pytest.fixture(scope="module")
async def connections(
    test_mesh: TestMesh, encryption_keys: pytest.MonkeyPatch, payments: Lister, notifications: Lister
) -> TestMesh:
    """A running connections service whose limits no test reaches."""
    _ = encryption_keys, payments, notifications
    await test_mesh.start("connections", LIMITS)
    return test_mesh


@pytest.fixture
def desk(connections: TestMesh, tenant_id: str) -> Desk:
    """The connections of this test's tenant."""
    return Desk(connections, tenant_id)


@pytest.fixture
async def admin(infrastructure: Infrastructure) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the owner of all tables, who sees every tenant."""
    connection = await asyncpg.connect(infrastructure.postgres.admin_url)
    await connection.execute("SET search_path = connections")
    yield connection
    await connection.close()


@pytest.fixture
async def service_role(infrastructure: Infrastructure) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the service's own role, as an attacker inside the service would have it."""
    connection = await asyncpg.connect(infrastructure.postgres.url("kente_connections", PASSWORD))
    yield connection
    await connection.close()
