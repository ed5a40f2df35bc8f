"""Lists a tenant's API keys."""

from __future__ import annotations

from mesh import pages
from mesh.database import Database
from services.identity import repository
from services.identity.model import ApiKey


async def list_api_keys(
    database: Database, *, tenant_id: str, page_size: int, page_token: str
) -> tuple[list[ApiKey], str]:
    """A page of the tenant's keys, newest first, and the token of the next page ("" on the last).

    Raises:
        Problem: PAGE_TOKEN_INVALID.
    """
    limit = pages.page_size(page_size)
    arguments = {"list": "api_keys", "tenant_id": tenant_id}
    position = pages.decode_page_token(page_token, arguments)
    before = str(position.get("api_key_id", "")) if position else None
    async with database.transaction(tenant_id) as connection:
        keys = await repository.list_api_keys(connection, tenant_id, before=before, limit=limit + 1)
    if len(keys) <= limit:
        return keys, ""
    keys = keys[:limit]
    return keys, pages.encode_page_token({"api_key_id": keys[-1].api_key_id}, arguments)
