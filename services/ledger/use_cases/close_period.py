"""Locks a book up to a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from google.protobuf.message import Message

from mesh import outbox
from mesh.database import Database
from mesh.errors import Problem, Reason, Violation
from services.ledger.model.accounts import Book
from services.ledger.model.changes import ChangeRequest
from services.ledger.repository.books import find_book, save_closed_time
from services.ledger.repository.journals import later, lock_journal
from services.ledger.repository.requests import claim_request
from services.ledger.use_cases.get_book import book_not_found


async def close_period(
    database: Database,
    clock: Callable[[], datetime],
    *,
    tenant_id: str,
    request: ChangeRequest,
    book_name: str,
    end_time: datetime,
    describe: Callable[[Book], Message],
) -> Book:
    """Lets nothing take effect before `end_time` any more, and returns the book; a repeated request changes nothing.

    `describe` gives the book as its event carries it.

    Raises:
        Problem: RESOURCE_NOT_FOUND; FIELD_INVALID, the time is not past; PERIOD_CLOSED, it is not later than the last;
            REQUEST_ID_REUSED.
    """
    async with database.transaction(tenant_id) as connection:
        journal = await lock_journal(connection, tenant_id)
        book = await find_book(connection, tenant_id, book_name)
        if book is None:
            raise book_not_found(book_name)
        if not await claim_request(connection, tenant_id, request):
            return book
        # By the time of bookings, which a clock that was set back does not set back.
        now = later(journal, clock())
        if end_time > now:
            description = f"is in the future: use a time that is not after {now.isoformat()}"
            raise Problem(Reason.FIELD_INVALID, violations=[Violation("end_time", description)])
        if book.closed_time is not None and end_time <= book.closed_time:
            closed_time = book.closed_time.isoformat()
            detail = f"book {book_name} is closed up to {closed_time} already"
            raise Problem(Reason.PERIOD_CLOSED, detail, book_name=book_name, closed_time=closed_time)
        closed = replace(book, closed_time=end_time)
        await save_closed_time(connection, tenant_id, book_name, end_time)
        await outbox.add(connection, outbox.Event("ledger.book.period_closed", tenant_id, book_name, describe(closed)))
        return closed
