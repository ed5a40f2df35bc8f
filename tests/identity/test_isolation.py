"""Row-level security holds even for who speaks SQL with the service's own role."""

from __future__ import annotations

import asyncpg
import pytest

from mesh.clock import utc_now
from mesh.ids import new_id
from tests.identity.office import Office, new_request_id

TABLES = ("tenants", "api_keys")


async def two_tenants_with_keys(office: Office) -> tuple[str, str]:
    own, other = await office.new_tenant(), await office.new_tenant()
    for tenant in (own, other):
        await office.new_key(tenant.tenant_id)
    return own.tenant_id, other.tenant_id


async def act_for(connection: asyncpg.Connection, tenant_id: str) -> None:
    await connection.execute("SELECT set_config('kente.tenant', $1, false)", tenant_id)


@pytest.mark.parametrize("table", TABLES)
async def test_without_a_tenant_nothing_is_seen(office: Office, service_role: asyncpg.Connection, table: str) -> None:
    await two_tenants_with_keys(office)

    assert await service_role.fetchval(f"SELECT count(*) FROM {table}") == 0  # noqa: S608 - our table


@pytest.mark.parametrize("table", TABLES)
async def test_a_tenant_sees_its_own_rows_only(office: Office, service_role: asyncpg.Connection, table: str) -> None:
    own, _other = await two_tenants_with_keys(office)
    await act_for(service_role, own)

    rows = await service_role.fetch(f"SELECT tenant_id FROM {table}")  # noqa: S608 - our table

    assert [row["tenant_id"] for row in rows] == [own]


async def test_a_tenant_changes_no_row_of_another(office: Office, service_role: asyncpg.Connection) -> None:
    own, other = await two_tenants_with_keys(office)
    await act_for(service_role, own)

    assert await service_role.execute("UPDATE api_keys SET scopes = '{}' WHERE tenant_id = $1", other) == "UPDATE 0"
    assert await service_role.execute("DELETE FROM api_keys WHERE tenant_id = $1", other) == "DELETE 0"


async def test_a_tenant_adds_or_moves_no_row_to_another(office: Office, service_role: asyncpg.Connection) -> None:
    own, other = await two_tenants_with_keys(office)
    await act_for(service_role, own)

    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        await service_role.execute(
            "INSERT INTO api_keys (api_key_id, tenant_id, request_id, display_name, scopes, secret_digest, create_time)"
            " VALUES ($1, $2, $3, '', '{}', $4, $5)",
            new_id("key"),
            other,
            new_request_id(),
            bytes(32),
            utc_now(),
        )
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        await service_role.execute("UPDATE api_keys SET tenant_id = $1 WHERE tenant_id = $2", other, own)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE api_keys DISABLE ROW LEVEL SECURITY",
        "DROP POLICY tenant ON api_keys",
        "TRUNCATE api_keys",
        "SET row_security = off; SELECT * FROM api_keys",
    ],
)
async def test_the_role_cannot_take_the_rules_away(service_role: asyncpg.Connection, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await service_role.execute(statement)
