"""Lists entries."""

from __future__ import annotations

from mesh import pages
from mesh.database import Database
from services.ledger.model.reading import BookedEntry, EntryFilter
from services.ledger.repository import entries as repository
from services.ledger.repository.entries import EntryPlace
from services.ledger.repository.journals import find_journal
from services.ledger.use_cases.places import micros_of, number_in, time_in


async def list_entries(
    database: Database, *, tenant_id: str, wanted: EntryFilter, page_size: int, page_token: str
) -> tuple[list[BookedEntry], str]:
    """A page of a book's entries in the order they were booked, and the token of the next page ("" on the last).

    A page may be shorter than asked for, or empty, and not be the last.

    Raises:
        Problem: PAGE_TOKEN_INVALID.
    """
    limit = pages.page_size(page_size)
    arguments = {"list": "entries", "tenant_id": tenant_id, "wanted": repr(wanted)}
    place = pages.decode_page_token(page_token, arguments)
    after = EntryPlace()
    if place is not None:
        after = EntryPlace(
            number_in(place, "sequence"), number_in(place, "leaf_index"), time_in(place, "create_time_micros")
        )
    async with database.transaction(tenant_id) as connection:
        journal = await find_journal(connection, tenant_id)
        if journal is None:
            return [], ""
        found, end = await repository.list_entries(connection, journal, wanted, after=after, limit=limit)
    if end is None:
        return found, ""
    token = {
        "sequence": end.sequence,
        "leaf_index": end.leaf_index,
        # Leads to the partition to go on in.
        "create_time_micros": micros_of(end.create_time),
    }
    return found, pages.encode_page_token(token, arguments)
