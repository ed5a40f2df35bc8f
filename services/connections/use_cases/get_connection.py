"""Reads one connection."""

from __future__ import annotations

from mesh.database import Database
from services.connections import repository
from services.connections.model import Connection, connection_not_found


async def get_connection(database: Database, *, tenant_id: str, connection_id: str) -> Connection:
    """Reads a connection of the tenant.

    Raises:
        Problem: RESOURCE_NOT_FOUND.
    """
    async with database.transaction(tenant_id) as database_connection:
        connection = await repository.find_connection(database_connection, connection_id)
    if connection is None:
        raise connection_not_found(connection_id)
    return connection
