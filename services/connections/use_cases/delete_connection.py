"""Deletes a connection."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import Message

from mesh import outbox
from mesh.clock import utc_now
from mesh.database import Database
from services.connections import repository
from services.connections.model import Connection, connection_not_found
from services.connections.use_cases.resolve_credentials import SealedCache


async def delete_connection(
    database: Database,
    cache: SealedCache,
    *,
    tenant_id: str,
    request_id: str,
    connection_id: str,
    describe: Callable[[Connection], Message],
) -> None:
    """Deletes a connection of the tenant and its credentials. The request that did it may be repeated.

    Args:
        describe: gives the connection as its event carries it.

    Raises:
        Problem: RESOURCE_NOT_FOUND.
    """
    async with database.transaction(tenant_id) as database_connection:
        deleted = await repository.delete_connection(
            database_connection, connection_id, request_id=request_id, now=utc_now()
        )
        if deleted:
            event = outbox.Event("connections.connection.deleted", tenant_id, connection_id, describe(deleted))
            await outbox.add(database_connection, event)
        elif not await repository.was_deleted_by(database_connection, connection_id, request_id):
            raise connection_not_found(connection_id)
    await cache.forget(tenant_id, connection_id)
