"""All SQL of the identity service. Row-level security limits each statement to the transaction's tenant.

Statements name the tenant as well where an index begins with it.
"""

# ruff: noqa: S608 - the only text put into a statement is this file's own list of columns

from __future__ import annotations

from datetime import datetime

from mesh.database import Connection, Row
from services.identity.model import ApiKey, StoredKey, Tenant

_TENANT = "tenant_id, display_name, create_time"
_API_KEY = "api_key_id, tenant_id, display_name, scopes, create_time, revoke_time, expire_time"


async def insert_tenant(connection: Connection, tenant: Tenant, request_id: str) -> bool:
    """Adds a tenant; False when the request made one before."""
    status = await connection.execute(
        "INSERT INTO tenants (tenant_id, request_id, display_name, create_time) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (request_id) DO NOTHING",
        tenant.tenant_id,
        request_id,
        tenant.display_name,
        tenant.create_time,
    )
    return status == "INSERT 0 1"


async def find_tenant(connection: Connection, tenant_id: str) -> Tenant | None:
    """The tenant, or None."""
    row = await connection.fetchrow(f"SELECT {_TENANT} FROM tenants WHERE tenant_id = $1", tenant_id)
    return _tenant(row) if row else None


async def tenant_of_request(connection: Connection, request_id: str) -> Tenant:
    """The tenant that a request made; it must exist."""
    row = await connection.fetchrow(f"SELECT {_TENANT} FROM tenants WHERE request_id = $1", request_id)
    if row is None:
        raise LookupError(f"request {request_id} made no tenant")
    return _tenant(row)


async def insert_api_key(connection: Connection, stored: StoredKey, request_id: str) -> bool:
    """Adds a key; False when the tenant's request made one before."""
    key = stored.key
    status = await connection.execute(
        "INSERT INTO api_keys (api_key_id, tenant_id, request_id, display_name, scopes, secret_digest, create_time,"
        " expire_time) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (tenant_id, request_id) DO NOTHING",
        key.api_key_id,
        key.tenant_id,
        request_id,
        key.display_name,
        key.scopes,
        stored.secret_digest,
        key.create_time,
        key.expire_time,
    )
    return status == "INSERT 0 1"


async def api_key_of_request(connection: Connection, tenant_id: str, request_id: str) -> ApiKey:
    """The key that a request of the tenant made; it must exist."""
    row = await connection.fetchrow(
        f"SELECT {_API_KEY} FROM api_keys WHERE tenant_id = $1 AND request_id = $2", tenant_id, request_id
    )
    if row is None:
        raise LookupError(f"request {request_id} made no API key")
    return _api_key(row)


async def find_api_key(connection: Connection, api_key_id: str) -> ApiKey | None:
    """The key, or None."""
    row = await connection.fetchrow(f"SELECT {_API_KEY} FROM api_keys WHERE api_key_id = $1", api_key_id)
    return _api_key(row) if row else None


async def find_stored_key(connection: Connection, api_key_id: str) -> StoredKey | None:
    """The key with the digest of its secret, or None."""
    row = await connection.fetchrow(f"SELECT {_API_KEY}, secret_digest FROM api_keys WHERE api_key_id = $1", api_key_id)
    return StoredKey(_api_key(row), row["secret_digest"]) if row else None


async def revoke_api_key(connection: Connection, api_key_id: str, now: datetime) -> ApiKey | None:
    """Revokes an active key and returns it; None when there is no active key of this id."""
    row = await connection.fetchrow(
        f"UPDATE api_keys SET revoke_time = $2 WHERE api_key_id = $1 AND revoke_time IS NULL RETURNING {_API_KEY}",
        api_key_id,
        now,
    )
    return _api_key(row) if row else None


async def list_api_keys(connection: Connection, tenant_id: str, *, before: str | None, limit: int) -> list[ApiKey]:
    """Keys of the tenant, newest first.

    Args:
        before: id of the last key of the page before; None for the first page.
        limit: most keys to return.
    """
    rows = await connection.fetch(
        f"SELECT {_API_KEY} FROM api_keys WHERE tenant_id = $1 AND ($2::text IS NULL OR api_key_id < $2)"
        " ORDER BY api_key_id DESC LIMIT $3",
        tenant_id,
        before,
        limit,
    )
    return [_api_key(row) for row in rows]


def _tenant(row: Row) -> Tenant:
    return Tenant(row["tenant_id"], row["display_name"], row["create_time"])


def _api_key(row: Row) -> ApiKey:
    return ApiKey(
        api_key_id=row["api_key_id"],
        tenant_id=row["tenant_id"],
        display_name=row["display_name"],
        scopes=tuple(row["scopes"]),
        create_time=row["create_time"],
        revoke_time=row["revoke_time"],
        expire_time=row["expire_time"],
    )
