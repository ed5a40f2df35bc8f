"""Opens the credentials of a connection, for a service that talks to its provider."""

from __future__ import annotations

from mesh.cache import open_cache
from mesh.database import Database
from services.connections import repository
from services.connections.model import Connection, KeyRing, StoredConnection, connection_not_found


class SealedCache:
    """Connections with their credentials, still sealed, in the memory of this process and nowhere else."""

    def __init__(self, *, remember_seconds: float) -> None:
        self._cache = open_cache("", "connections-sealed:", ttl_seconds=remember_seconds)

    async def get(self, tenant_id: str, connection_id: str) -> StoredConnection | None:
        """What is remembered of a tenant's connection."""
        stored: StoredConnection | None = await self._cache.get(f"{tenant_id}/{connection_id}")
        return stored

    async def put(self, stored: StoredConnection) -> None:
        """Remembers a connection for a while."""
        connection = stored.connection
        await self._cache.set(f"{connection.tenant_id}/{connection.connection_id}", stored)

    async def forget(self, tenant_id: str, connection_id: str) -> None:
        """Forgets a connection that was deleted."""
        await self._cache.delete(f"{tenant_id}/{connection_id}")


async def resolve_credentials(
    database: Database, keys: KeyRing, cache: SealedCache, *, tenant_id: str, connection_id: str
) -> tuple[Connection, dict[str, str]]:
    """A connection of the tenant with its credentials in the clear.

    Raises:
        Problem: RESOURCE_NOT_FOUND.
        SealError: the credentials do not open: a fault of ours, or of who changed the database.
    """
    stored = await cache.get(tenant_id, connection_id)
    if stored is None:
        async with database.transaction(tenant_id) as database_connection:
            stored = await repository.find_stored_connection(database_connection, connection_id)
        if stored is None or stored.sealed_credentials is None:
            raise connection_not_found(connection_id)
        await cache.put(stored)
    if stored.sealed_credentials is None:
        raise connection_not_found(connection_id)
    credentials = keys.open(stored.sealed_credentials, tenant_id=tenant_id, connection_id=connection_id)
    return stored.connection, credentials
