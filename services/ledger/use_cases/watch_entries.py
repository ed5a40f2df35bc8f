"""WatchEntries: the tenant's transactions in the order they were committed, without a gap, as they are booked.

A transaction's leaf is given out under the lock of the journal, which is held until the commit. So whoever sees a leaf
sees all before it, and what is committed later has a higher one: reading on from the last leaf misses nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol

from mesh import pages
from mesh.database import UNAVAILABLE_ERRORS, Database
from mesh.errors import Problem, Reason, Violation
from services.ledger.model.postings import HoldState, Kind, Transaction
from services.ledger.repository.journals import find_journal
from services.ledger.repository.transactions import list_journal
from services.ledger.use_cases.places import number_in

_BATCH = 100
# Other processes book as well, and do not wake this one.
_LOOK_AGAIN_SECONDS = 0.5
_DATABASE_AWAY_SECONDS = 0.5


class AwaitsBookings(Protocol):
    """Tells when something was booked in this process."""

    async def wait_for_booking(self, tenant_id: str, timeout_seconds: float) -> None: ...


async def watch_entries(
    database: Database,
    bookkeeper: AwaitsBookings,
    *,
    tenant_id: str,
    resume_token: str,
    from_now: bool,
    ready: Callable[[], Awaitable[None]],
) -> AsyncGenerator[tuple[Transaction, str]]:
    """Gives each transaction as it was booked, with the token to go on after it.

    Args:
        from_now: begin with what is booked after `ready` was called.

    Raises:
        Problem: FIELD_INVALID, the resume token was not made by this stream.
    """
    leaf_index = await _first_leaf_index(database, tenant_id, resume_token, from_now=from_now)
    await ready()
    while True:
        # It waits from before the reading on: what is booked meanwhile is not slept over.
        booked = asyncio.ensure_future(bookkeeper.wait_for_booking(tenant_id, _LOOK_AGAIN_SECONDS))
        try:
            transactions = await _read(database, tenant_id, leaf_index)
            if not transactions:
                await booked
        finally:
            booked.cancel()
        # No transaction of the database is open while the caller takes its time.
        for transaction in transactions:
            leaf_index = transaction.leaf_index + 1
            yield _as_booked(transaction), _token(tenant_id, leaf_index)


async def _first_leaf_index(database: Database, tenant_id: str, resume_token: str, *, from_now: bool) -> int:
    if resume_token and from_now:
        raise _invalid("from_now", "goes without a resume token: leave one of the two out")
    if not resume_token and not from_now:
        return 0
    async with database.transaction(tenant_id) as connection:
        journal = await find_journal(connection, tenant_id)
    tree_size = journal.tree_size if journal else 0
    if from_now:
        return tree_size
    try:
        place = pages.decode_page_token(resume_token, _arguments(tenant_id))
        leaf_index = number_in(place or {}, "leaf_index", least=1)
    except Problem:
        raise _invalid("resume_token", "was not made by this stream: use one that it gave") from None
    if leaf_index > tree_size:
        raise _invalid("resume_token", "is ahead of the books: use one that this stream gave")
    return leaf_index


async def _read(database: Database, tenant_id: str, leaf_index: int) -> Sequence[Transaction]:
    """The next transactions; waits until the database is back when it is away."""
    while True:
        try:
            async with database.transaction(tenant_id) as connection:
                journal = await find_journal(connection, tenant_id)
                if journal is None or journal.tree_size <= leaf_index:
                    return []
                return await list_journal(connection, journal, from_leaf_index=leaf_index, limit=_BATCH)
        except UNAVAILABLE_ERRORS:
            await asyncio.sleep(_DATABASE_AWAY_SECONDS)


def _as_booked(transaction: Transaction) -> Transaction:
    """Without what became of it since: a stream that is read again tells the same."""
    return replace(transaction, hold_state=HoldState.HELD if transaction.kind is Kind.HOLD else None, later_ids=())


def _token(tenant_id: str, leaf_index: int) -> str:
    return pages.encode_page_token({"leaf_index": leaf_index}, _arguments(tenant_id))


def _arguments(tenant_id: str) -> dict[str, str | int]:
    return {"list": "watch", "tenant_id": tenant_id}


def _invalid(field: str, description: str) -> Problem:
    return Problem(Reason.FIELD_INVALID, violations=[Violation(field, description)])
