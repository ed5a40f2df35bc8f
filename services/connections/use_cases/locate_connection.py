"""Says whose a connection is."""

from __future__ import annotations

from mesh.database import Database
from services.connections import repository
from services.connections.model import Connection, connection_not_found


async def locate_connection(database: Database, connection_id: str) -> Connection:
    """Finds a connection of any tenant: a provider's callback names only the connection.

    Raises:
        Problem: RESOURCE_NOT_FOUND.
    """
    async with database.system_transaction() as database_connection:
        connection = await repository.find_connection(database_connection, connection_id)
    if connection is None:
        raise connection_not_found(connection_id)
    return connection
