"""Lists entries."""

from __future__ import annotations

from mesh import pages
from mesh.database import Database
from mesh.errors import Problem, Reason
from mesh.money import INT64_MAX
from services.ledger import repository
from services.ledger.model import Entry


async def list_entries(
    database: Database, *, tenant_id: str, account_name: str, source_id: str, page_size: int, page_token: str
) -> tuple[list[Entry], str]:
    """A page of entries in the order they were booked, and the token of the next page ("" on the last).

    Only those of the account and of the source, where these are not "".

    Raises:
        Problem: PAGE_TOKEN_INVALID.
    """
    limit = pages.page_size(page_size)
    arguments = {"list": "entries", "tenant_id": tenant_id, "account_name": account_name, "source_id": source_id}
    position = pages.decode_page_token(page_token, arguments)
    after_sequence = 0 if position is None else position.get("sequence")
    # A token is not signed: what it holds is input like any other.
    if not isinstance(after_sequence, int) or not 0 <= after_sequence <= INT64_MAX:
        raise Problem(Reason.PAGE_TOKEN_INVALID, "page_token was not made by this list")
    async with database.transaction(tenant_id) as connection:
        entries = await repository.list_entries(
            connection,
            tenant_id,
            account_name=account_name,
            source_id=source_id,
            after_sequence=after_sequence,
            limit=limit + 1,
        )
    if len(entries) <= limit:
        return entries, ""
    entries = entries[:limit]
    return entries, pages.encode_page_token({"sequence": entries[-1].sequence}, arguments)
