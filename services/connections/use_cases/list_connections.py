"""Lists a tenant's connections."""

from __future__ import annotations

from mesh import pages
from mesh.database import Database
from services.connections import repository
from services.connections.model import Connection


async def list_connections(
    database: Database, *, tenant_id: str, domain: str, page_size: int, page_token: str
) -> tuple[list[Connection], str]:
    """A page of the tenant's connections, oldest first, and the token of the next page ("" on the last).

    Args:
        domain: only those of this domain; of all when empty.

    Raises:
        Problem: PAGE_TOKEN_INVALID.
    """
    limit = pages.page_size(page_size)
    arguments = {"list": "connections", "tenant_id": tenant_id, "domain": domain}
    position = pages.decode_page_token(page_token, arguments)
    after = str(position.get("connection_id", "")) if position else ""
    async with database.transaction(tenant_id) as database_connection:
        connections = await repository.list_connections(
            database_connection, tenant_id, domain=domain, after=after, limit=limit + 1
        )
    if len(connections) <= limit:
        return connections, ""
    connections = connections[:limit]
    return connections, pages.encode_page_token({"connection_id": connections[-1].connection_id}, arguments)
