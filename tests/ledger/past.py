"""Random histories with times of effect in all directions, and what they come to when every entry is looked at.

Shares no code with the service. A reader of the past is asked the same, and must say the same.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.ids import new_id
from tests.harness import TestMesh
from tests.ledger.book import SCOPES, Book, credit, debit, new_request_id, transaction_request
from tests.ledger.chart import batch_request, draft
from tests.ledger.clock import SettableClock
from tests.ledger.teller import timestamp

EFFORT = float(os.environ.get("KENTE_TEST_EFFORT", "1"))
EXAMPLES = 25
NUMBERS = 8
ANSWER_SECONDS = 60
START = datetime(2027, 1, 31, 23, 59, tzinfo=UTC)
BOOKS = ("main", "side")
ACCOUNTS = ("assets:cash", "assets:cash:till", "assets:cash-box", "liabilities:payer", "income:fees", "expenses:rent")
DEBIT_NORMAL = ("assets", "expenses")
MICROSECOND = timedelta(microseconds=1)
# Several times of one moment, neighbours of it, and other months.
ADVANCES = (timedelta(0), timedelta(0), MICROSECOND, timedelta(seconds=1), timedelta(days=1), timedelta(days=40))
EFFECTS = (
    None,
    None,
    None,
    timedelta(0),
    -MICROSECOND,
    MICROSECOND,
    timedelta(seconds=-1),
    timedelta(days=-1),
    timedelta(days=-41),
    timedelta(seconds=299),
)


@dataclass(frozen=True)
class Step:
    """One thing that is booked, after the clock moved on.

    Attributes:
        effect: from the time of booking; None leaves it out.
        holds: whether it holds the amount instead of posting it.
        expiry: of a hold, from the time of booking.
        ends: first ends the oldest hold that is held still: "post" or "void".
    """

    advance: timedelta
    book: str
    debited: str
    credited: str
    amount: int
    effect: timedelta | None
    holds: bool
    expiry: timedelta | None
    ends: str


@dataclass(frozen=True)
class PastEntry:
    """An entry as the service told of it when it was booked."""

    book: str
    account: str
    side: str
    amount: int
    pending: bool
    sequence: int
    booked: datetime
    effect: datetime
    transaction_id: str


@dataclass
class Past:
    """All entries of a tenant, and when each hold ended."""

    entries: list[PastEntry] = field(default_factory=list)
    ends: dict[str, datetime] = field(default_factory=dict)

    def note(self, transaction: ledger_pb2.Transaction) -> None:
        """Remembers what was booked."""
        for entry in transaction.entries:
            self.entries.append(
                PastEntry(
                    transaction.book_name,
                    entry.account_name,
                    "debit" if entry.side == ledger_pb2.SIDE_DEBIT else "credit",
                    entry.amount.amount_minor,
                    entry.pending,
                    entry.sequence,
                    _time(entry.create_time),
                    _time(entry.effective_time),
                    transaction.transaction_id,
                )
            )
        if transaction.HasField("expire_time"):
            self._end(transaction.transaction_id, _time(transaction.expire_time))
        if transaction.related_transaction_id:
            self._end(transaction.related_transaction_id, _time(transaction.create_time))

    def _end(self, transaction_id: str, time: datetime) -> None:
        self.ends[transaction_id] = min(time, self.ends.get(transaction_id, time))

    def counted(self, book: str, known: datetime | None, effect: datetime | None) -> list[PastEntry]:
        """The posted entries of a book that were booked and had taken effect by then."""
        return [
            entry
            for entry in self.entries
            if entry.book == book
            and not entry.pending
            and (known is None or entry.booked <= known)
            and (effect is None or entry.effect <= effect)
        ]

    def held(self, book: str, account: str, known: datetime, effect: datetime | None) -> tuple[int, int]:
        """Sums of what was held."""
        entries = [
            entry
            for entry in self.entries
            if (entry.book, entry.account) == (book, account)
            and entry.pending
            and entry.booked <= known
            and (effect is None or entry.effect <= effect)
            and self.ends.get(entry.transaction_id, known + MICROSECOND) > known
        ]
        return sums_of(entries)

    def times(self) -> list[datetime | None]:
        """Every time at which something changes, and its neighbours; None at first."""
        changes = {time for entry in self.entries for time in (entry.booked, entry.effect)} | set(self.ends.values())
        around = {time + shift * MICROSECOND for time in changes for shift in (-1, 0, 1)}
        return [None, *sorted(around)]


def sums_of(entries: Sequence[PastEntry]) -> tuple[int, int]:
    """Debits and credits."""
    return (
        sum(entry.amount for entry in entries if entry.side == "debit"),
        sum(entry.amount for entry in entries if entry.side == "credit"),
    )


def balance_of(account: str, debits: int, credits_: int) -> int:
    """On the normal side."""
    return debits - credits_ if account.startswith(DEBIT_NORMAL) else credits_ - debits


Compare = Callable[[Book, Past, list[int]], Coroutine[Any, Any, None]]


async def compare_histories(ledger: TestMesh, clock: SettableClock, compare: Compare) -> None:
    """Books random histories, and has each compared with the help of some random numbers.

    Runs in a thread beside the loop of the service. The examples are the same each time, unless KENTE_TEST_EFFORT asks
    for more of them.
    """
    loop = asyncio.get_running_loop()

    @settings(
        max_examples=max(1, round(EXAMPLES * EFFORT)),
        deadline=None,
        database=None,
        derandomize=EFFORT == 1,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(steps=histories(), numbers=st.lists(st.integers(0, 10_000), min_size=NUMBERS, max_size=NUMBERS))
    def check(steps: list[Step], numbers: list[int]) -> None:
        asyncio.run_coroutine_threadsafe(run(steps, numbers), loop).result(ANSWER_SECONDS)

    async def run(steps: list[Step], numbers: list[int]) -> None:
        tenant_id = new_id("ten")
        book = Book(ledger.client("ledger", tenant_id, SCOPES), tenant_id)
        await compare(book, await book_history(book, clock, steps), numbers)

    await asyncio.to_thread(check)


@st.composite
def histories(draw: st.DrawFn) -> list[Step]:
    """Some steps."""
    step = st.builds(
        Step,
        advance=st.sampled_from(ADVANCES),
        book=st.sampled_from((BOOKS[0], BOOKS[0], BOOKS[1])),
        debited=st.sampled_from(ACCOUNTS),
        credited=st.sampled_from(ACCOUNTS),
        amount=st.integers(1, 100),
        effect=st.sampled_from(EFFECTS),
        holds=st.sampled_from((False, False, False, True)),
        expiry=st.sampled_from((None, timedelta(seconds=1), timedelta(days=2))),
        ends=st.sampled_from(("", "", "post", "void")),
    )
    return draw(st.lists(step, min_size=1, max_size=12))


async def book_history(book: Book, clock: SettableClock, steps: Sequence[Step]) -> Past:
    """Books a history; the clock begins anew."""
    clock.now = START
    past = Past()
    drafts = [draft(account, book_name=book_name) for book_name in BOOKS for account in ACCOUNTS]
    await book.stub.BatchCreateAccounts(batch_request(*drafts))
    held: list[str] = []
    for step in steps:
        clock.now += step.advance
        held = [hold for hold in held if past.ends.get(hold, clock.now + MICROSECOND) > clock.now]
        if step.ends and held:
            past.note(await _end(book, held.pop(0), step.ends))
        transaction = await _book(book, clock, step)
        past.note(transaction)
        if step.holds:
            held.append(transaction.transaction_id)
    return past


async def _book(book: Book, clock: SettableClock, step: Step) -> ledger_pb2.Transaction:
    request = transaction_request(
        debit(step.debited, step.amount),
        credit(step.credited, step.amount),
        book_name=step.book,
        pending=step.holds,
        effective_time=None if step.effect is None else timestamp(clock.now + step.effect),
        expire_time=timestamp(clock.now + step.expiry) if step.holds and step.expiry is not None else None,
    )
    return (await book.stub.CreateTransaction(request)).transaction


async def _end(book: Book, hold_id: str, how: str) -> ledger_pb2.Transaction:
    request_id, transaction_id = new_request_id(), new_id("txn")
    if how == "post":
        posting = pb2.PostHoldRequest(request_id=request_id, transaction_id=transaction_id, hold_transaction_id=hold_id)
        return (await book.stub.PostHold(posting)).transaction
    void = pb2.VoidHoldRequest(request_id=request_id, transaction_id=transaction_id, hold_transaction_id=hold_id)
    return (await book.stub.VoidHold(void)).transaction


def _time(time: Timestamp) -> datetime:
    return time.ToDatetime(tzinfo=UTC)
