"""All SQL of the connections service. Row-level security limits each statement to the transaction's tenant.

Statements name the tenant as well where an index begins with it.
"""

# ruff: noqa: S608 - the only text put into a statement is this file's own list of columns

from __future__ import annotations

import json
from datetime import datetime

from mesh.database import Connection as DatabaseConnection
from mesh.database import Row, affected_rows
from mesh.provider.connection import Environment
from services.connections.model import Connection, StoredConnection

_CONNECTION = (
    "connection_id, tenant_id, provider, domain, display_name, environment, base_url, settings, credential_names,"
    " encryption_key_id, create_time, update_time"
)


async def insert_connection(
    database_connection: DatabaseConnection, connection: Connection, sealed_credentials: bytes, request_id: str
) -> bool:
    """Adds a connection; False when the tenant's request made one before."""
    status = await database_connection.execute(
        f"INSERT INTO connections ({_CONNECTION}, sealed_credentials, request_id)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
        " ON CONFLICT (tenant_id, request_id) DO NOTHING",
        connection.connection_id,
        connection.tenant_id,
        connection.provider,
        connection.domain,
        connection.display_name,
        connection.environment.value,
        connection.base_url,
        json.dumps(dict(connection.settings)),
        connection.credential_names,
        connection.encryption_key_id,
        connection.create_time,
        connection.update_time,
        sealed_credentials,
        request_id,
    )
    return affected_rows(status) == 1


async def connection_of_request(
    database_connection: DatabaseConnection, tenant_id: str, request_id: str
) -> StoredConnection:
    """The connection that a request of the tenant made, deleted or not; it must exist."""
    row = await database_connection.fetchrow(
        f"SELECT {_CONNECTION}, sealed_credentials FROM connections WHERE tenant_id = $1 AND request_id = $2",
        tenant_id,
        request_id,
    )
    if row is None:
        raise LookupError(f"request {request_id} made no connection")
    return StoredConnection(_connection(row), row["sealed_credentials"])


async def find_connection(database_connection: DatabaseConnection, connection_id: str) -> Connection | None:
    """The connection, or None."""
    row = await database_connection.fetchrow(
        f"SELECT {_CONNECTION} FROM connections WHERE connection_id = $1 AND delete_time IS NULL", connection_id
    )
    return _connection(row) if row else None


async def find_stored_connection(
    database_connection: DatabaseConnection, connection_id: str
) -> StoredConnection | None:
    """The connection with its sealed credentials, or None."""
    row = await database_connection.fetchrow(
        f"SELECT {_CONNECTION}, sealed_credentials FROM connections WHERE connection_id = $1 AND delete_time IS NULL",
        connection_id,
    )
    return StoredConnection(_connection(row), row["sealed_credentials"]) if row else None


async def list_connections(
    database_connection: DatabaseConnection, tenant_id: str, *, domain: str, after: str, limit: int
) -> list[Connection]:
    """Connections of the tenant, oldest first.

    Args:
        domain: only those of this domain; of all when empty.
        after: id of the last connection of the page before; empty for the first page.
        limit: most connections to return.
    """
    rows = await database_connection.fetch(
        f"SELECT {_CONNECTION} FROM connections"
        " WHERE tenant_id = $1 AND delete_time IS NULL AND connection_id > $2 AND ($3 = '' OR domain = $3)"
        " ORDER BY connection_id LIMIT $4",
        tenant_id,
        after,
        domain,
        limit,
    )
    return [_connection(row) for row in rows]


async def delete_connection(
    database_connection: DatabaseConnection, connection_id: str, *, request_id: str, now: datetime
) -> Connection | None:
    """Deletes a connection with its credentials and returns what it was; None when there is none of this id."""
    row = await database_connection.fetchrow(
        "UPDATE connections SET sealed_credentials = NULL, delete_time = $3, delete_request_id = $2, update_time = $3"
        f" WHERE connection_id = $1 AND delete_time IS NULL RETURNING {_CONNECTION}",
        connection_id,
        request_id,
        now,
    )
    return _connection(row) if row else None


async def was_deleted_by(database_connection: DatabaseConnection, connection_id: str, request_id: str) -> bool:
    """Whether this very request deleted the connection before."""
    found = await database_connection.fetchval(
        "SELECT true FROM connections WHERE connection_id = $1 AND delete_request_id = $2", connection_id, request_id
    )
    return bool(found)


def _connection(row: Row) -> Connection:
    return Connection(
        connection_id=row["connection_id"],
        tenant_id=row["tenant_id"],
        provider=row["provider"],
        domain=row["domain"],
        display_name=row["display_name"],
        environment=Environment(row["environment"]),
        base_url=row["base_url"],
        settings=json.loads(row["settings"]),
        credential_names=tuple(row["credential_names"]),
        encryption_key_id=row["encryption_key_id"],
        create_time=row["create_time"],
        update_time=row["update_time"],
    )
