"""Row-level security holds even for who speaks SQL with the service's own role."""

from __future__ import annotations

import asyncpg
import pytest

from mesh.ids import new_id
from tests.connections.desk import Desk
from tests.harness import TestMesh


@pytest.fixture
async def other(connections: TestMesh) -> Desk:
    """Another tenant, with a connection."""
    desk = Desk(connections, new_id("ten"))
    await desk.create()
    return desk


async def act_for(connection: asyncpg.Connection, tenant_id: str) -> None:
    await connection.execute("SELECT set_config('kente.tenant', $1, false)", tenant_id)


async def test_without_a_tenant_nothing_is_seen(desk: Desk, service_role: asyncpg.Connection) -> None:
    await desk.create()

    assert await service_role.fetchval("SELECT count(*) FROM connections") == 0


@pytest.mark.usefixtures("other")
async def test_a_tenant_sees_its_own_rows_only(desk: Desk, service_role: asyncpg.Connection) -> None:
    created = await desk.create()
    await act_for(service_role, desk.tenant_id)

    rows = await service_role.fetch("SELECT connection_id FROM connections")

    assert [row["connection_id"] for row in rows] == [created.connection_id]


async def test_a_tenant_changes_no_row_of_another(desk: Desk, other: Desk, service_role: asyncpg.Connection) -> None:
    await act_for(service_role, desk.tenant_id)

    updated = await service_role.execute("UPDATE connections SET base_url = 'x' WHERE tenant_id = $1", other.tenant_id)
    deleted = await service_role.execute("DELETE FROM connections WHERE tenant_id = $1", other.tenant_id)

    assert (updated, deleted) == ("UPDATE 0", "DELETE 0")


async def test_a_tenant_moves_no_row_to_another(desk: Desk, other: Desk, service_role: asyncpg.Connection) -> None:
    await desk.create()
    await act_for(service_role, desk.tenant_id)

    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        await service_role.execute("UPDATE connections SET tenant_id = $1", other.tenant_id)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE connections DISABLE ROW LEVEL SECURITY",
        "DROP POLICY tenant ON connections",
        "TRUNCATE connections",
        "SET row_security = off; SELECT * FROM connections",
    ],
)
async def test_the_role_cannot_take_the_rules_away(service_role: asyncpg.Connection, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await service_role.execute(statement)
