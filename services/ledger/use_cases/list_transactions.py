"""Lists transactions."""

from __future__ import annotations

from mesh import pages
from mesh.database import Database
from services.ledger.model.postings import Transaction
from services.ledger.model.reading import TransactionFilter
from services.ledger.repository import transactions as repository
from services.ledger.repository.journals import find_journal
from services.ledger.use_cases.places import number_in


async def list_transactions(
    database: Database, *, tenant_id: str, wanted: TransactionFilter, page_size: int, page_token: str
) -> tuple[list[Transaction], str]:
    """A page of a book's transactions in the order they were booked, and the token of the next ("" on the last).

    A page may be shorter than asked for, or empty, and not be the last.

    Raises:
        Problem: PAGE_TOKEN_INVALID.
    """
    limit = pages.page_size(page_size)
    arguments = {"list": "transactions", "tenant_id": tenant_id, "wanted": repr(wanted)}
    place = pages.decode_page_token(page_token, arguments)
    after_leaf_index = -1 if place is None else number_in(place, "leaf_index")
    async with database.transaction(tenant_id) as connection:
        journal = await find_journal(connection, tenant_id)
        if journal is None:
            return [], ""
        found, end_leaf_index = await repository.list_transactions(
            connection, journal, wanted, after_leaf_index=after_leaf_index, limit=limit
        )
    if end_leaf_index is None:
        return found, ""
    return found, pages.encode_page_token({"leaf_index": end_leaf_index}, arguments)
