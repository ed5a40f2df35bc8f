"""What is remembered of a tenant's books, and what was decided on it, is given up as soon as anything else happened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta

import asyncpg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.clock import utc_now
from mesh.database import Database
from mesh.errors import Problem, Reason
from mesh.ids import new_id
from services.ledger.convert import postings
from services.ledger.repository.journals import LOCK_FIRST
from services.ledger.use_cases.book_batch import Decided, book_batch, decide_ahead
from services.ledger.use_cases.memory import Memory
from services.ledger.use_cases.work import Result, Work
from tests.harness import PASSWORD, Infrastructure
from tests.ledger.book import BANK, FEES, PAYER, Book, credit, debit, new_request_id, transaction_request
from tests.ledger.clock import SettableClock
from tests.ledger.desk import (
    ahead_outcomes,
    booked,
    posting,
    tools_of,
    work,
)

Results = list[list[Result] | Problem]


class Process:
    """A process that books, without anything around it."""

    def __init__(self, infrastructure: Infrastructure, database: Database, tenant_id: str) -> None:
        self.tenant_id = tenant_id
        self.memory = Memory(1_000)
        self.clock = SettableClock(utc_now())
        self._database = database
        self._tools = tools_of(infrastructure, self.clock)

    def work(self, amount_minor: int = 5) -> Work:
        """A call that books an amount which took effect an hour ago."""
        effective_time = Timestamp()
        effective_time.FromDatetime(self.clock() - timedelta(hours=1))
        return work(self.tenant_id, posting(amount_minor, effective_time=effective_time))

    async def decide(self, *works: Work) -> Decided | None:
        """Decides ahead."""
        return await decide_ahead(self._database, self._tools, self.memory, self.tenant_id, works)

    async def book(self, *works: Work, ahead: Decided | None = None) -> Results:
        """Books a batch."""
        async with self._database.transaction(self.tenant_id, by_index=True, first=LOCK_FIRST) as connection:
            return await book_batch(connection, self._tools, self.memory, self.tenant_id, works, ahead=ahead)

    async def book_alone(self) -> None:
        """Books until it is known that nobody else does."""
        for _ in range(2):
            await self.book(self.work())

    async def decide_surely(self, *works: Work) -> Decided:
        """Decides ahead what can be."""
        await self.book_alone()
        decided = await self.decide(*works)
        assert decided
        return decided


@dataclass(frozen=True)
class Scene:
    """What something can happen to, after a call was decided about and before the lock."""

    process: Process
    other: Process
    book: Book
    admin: asyncpg.Connection
    asked: Work


@pytest.fixture
async def database(infrastructure: Infrastructure) -> AsyncIterator[Database]:
    """The service's way to the database."""
    database = await Database.connect(infrastructure.postgres.url("kente_ledger", PASSWORD))
    yield database
    await database.close()


@pytest.fixture
def process(infrastructure: Infrastructure, database: Database, open_book: Book) -> Process:
    """The process that decides ahead."""
    return Process(infrastructure, database, open_book.tenant_id)


@pytest.fixture
def other(infrastructure: Infrastructure, database: Database, open_book: Book) -> Process:
    """Another process that serves the same tenant."""
    return Process(infrastructure, database, open_book.tenant_id)


@pytest.fixture
def scene(process: Process, other: Process, open_book: Book, admin: asyncpg.Connection) -> Scene:
    """A call to decide about, and those around."""
    return Scene(process, other, open_book, admin, process.work(7))


def reasons(results: Results) -> list[Reason | None]:
    """How each posting ended; None is well."""
    each = [one for result in results for one in ([result] if isinstance(result, Problem) else result)]
    return [one.reason if isinstance(one, Problem) else None for one in each]


async def test_what_was_decided_ahead_is_written_when_nothing_else_happened(process: Process, open_book: Book) -> None:
    works = [process.work(7), process.work(8)]
    ahead = await process.decide_surely(*works)
    before = ahead_outcomes()

    results = await process.book(*works, ahead=ahead)

    assert ahead_outcomes() == (before[0] + 1, before[1])
    assert reasons(results) == [None, None]
    assert await open_book.balance(PAYER) == (25, 0, 25)
    assert reasons(await process.book(*works)) == [None, None]
    assert await process.book(*works) == results


async def test_a_batch_that_is_decided_ahead_goes_on_from_the_one_that_is_not_written_yet(
    process: Process, open_book: Book
) -> None:
    first, second = process.work(100), process.work(10)
    decided = await process.decide_surely(first)
    following = await process.decide(second)

    await process.book(first, ahead=decided)
    (results,) = await process.book(second, ahead=following)

    assert isinstance(results, list)
    assert booked(results).entries[-1].balance_after.amount_minor == 120
    assert await open_book.balance(PAYER) == (120, 0, 120)


async def test_a_batch_whose_predecessor_was_never_written_is_decided_again(process: Process, open_book: Book) -> None:
    lost, second = process.work(100), process.work(10)
    await process.decide_surely(lost)
    following = await process.decide(second)
    before = ahead_outcomes()

    (results,) = await process.book(second, ahead=following)

    assert ahead_outcomes() == (before[0], before[1] + 1)
    assert isinstance(results, list)
    assert booked(results).leaf_index == 2
    assert booked(results).entries[-1].balance_after.amount_minor == 20
    assert await open_book.balance(PAYER) == (20, 0, 20)


async def another_books(scene: Scene) -> None:
    await scene.other.book(scene.other.work(1_000))


async def another_books_the_same(scene: Scene) -> None:
    await scene.other.book(scene.asked)


async def another_freezes(scene: Scene) -> None:
    request = pb2.FreezeAccountRequest(request_id=new_request_id(), account_name=PAYER)
    await scene.book.stub.FreezeAccount(request)


async def somebody_freezes_by_hand(scene: Scene) -> None:
    await scene.admin.execute("UPDATE accounts SET state = 'frozen' WHERE tenant_id = $1", scene.book.tenant_id)


async def another_limits(scene: Scene) -> None:
    request = pb2.UpdateAccountRequest(request_id=new_request_id(), account_name=PAYER)
    request.limits.max_balance_minor = 12
    request.update_mask.paths.append("limits")
    await scene.book.stub.UpdateAccount(request)


async def another_closes_the_period(scene: Scene) -> None:
    request = pb2.ClosePeriodRequest(request_id=new_request_id(), book_name="main")
    request.end_time.FromDatetime(scene.process.clock() - timedelta(minutes=30))
    await scene.book.stub.ClosePeriod(request)


async def time_goes_by(scene: Scene) -> None:
    scene.process.clock.advance(2)


@pytest.mark.parametrize(
    ("happens", "reason", "balance_minor"),
    [
        (another_books, None, 1_017),
        (another_books_the_same, None, 17),
        (another_freezes, Reason.ACCOUNT_NOT_OPEN, 10),
        (somebody_freezes_by_hand, Reason.ACCOUNT_NOT_OPEN, 10),
        (another_limits, Reason.BALANCE_LIMIT_EXCEEDED, 10),
        (another_closes_the_period, Reason.PERIOD_CLOSED, 10),
        (time_goes_by, None, 17),
    ],
)
async def test_what_was_decided_ahead_is_decided_again_when_something_happened_meanwhile(
    scene: Scene, happens: Callable[[Scene], Awaitable[None]], reason: Reason | None, balance_minor: int
) -> None:
    process, asked = scene.process, scene.asked
    ahead = await process.decide_surely(asked)
    await happens(scene)
    before = ahead_outcomes()

    results = await process.book(asked, ahead=ahead)

    assert ahead_outcomes() == (before[0], before[1] + 1)
    assert reasons(results) == [reason]
    assert (await scene.book.balance(PAYER))[0] == balance_minor
    # What was decided in vain is not remembered either.
    assert reasons(await process.book(process.work(7))) == [reason]


async def test_an_id_that_was_refused_meanwhile_stays_refused(process: Process, other: Process) -> None:
    """A refusal leaves no trace in the books."""
    asked = process.work(7)
    ahead = await process.decide_surely(asked)
    nowhere = transaction_request(
        debit(BANK, 7), credit("liabilities:nowhere", 7), transaction_id=asked.postings[0].transaction_id
    )
    await other.book(work(process.tenant_id, postings.posting_from_proto(nowhere)))

    assert reasons(await process.book(asked, ahead=ahead)) == [Reason.RESOURCE_ALREADY_EXISTS]


async def test_a_request_id_that_was_used_meanwhile_is_used_up(process: Process, other: Process) -> None:
    asked = process.work(7)
    ahead = await process.decide_surely(asked)
    nowhere = transaction_request(debit(BANK, 7), credit("liabilities:nowhere", 7))
    refused = work(process.tenant_id, postings.posting_from_proto(nowhere))
    request = replace(refused.request, request_id=asked.request.request_id)
    await other.book(replace(refused, request=request))

    assert reasons(await process.book(asked, ahead=ahead)) == [Reason.REQUEST_ID_REUSED]


async def test_a_hold_that_ends_first_is_ended_before_what_was_decided_ahead(process: Process) -> None:
    hold = transaction_request(debit(BANK, 5), credit(PAYER, 5), pending=True)
    hold.expire_time.FromDatetime(process.clock() + timedelta(seconds=0.1))
    holding, asked = work(process.tenant_id, postings.posting_from_proto(hold)), process.work(7)
    ahead = await process.decide_surely(holding)
    process.clock.advance(0.5)
    following = await process.decide(asked)
    assert following

    await process.book(holding, ahead=ahead)
    (results,) = await process.book(asked, ahead=following)

    assert isinstance(results, list)
    # Two postings, the hold, its end, and only then this.
    assert booked(results).leaf_index == 4


async def test_nothing_is_decided_ahead_while_a_hold_is_due(process: Process) -> None:
    hold = transaction_request(debit(BANK, 5), credit(PAYER, 5), pending=True)
    hold.expire_time.FromDatetime(process.clock() + timedelta(seconds=10))
    await process.book(work(process.tenant_id, postings.posting_from_proto(hold)))
    await process.book_alone()
    assert await process.decide(process.work())

    await process.book_alone()
    process.clock.advance(11)

    assert await process.decide(process.work()) is None


async def test_accounts_that_are_not_remembered_are_read_ahead_and_missing_ones_are_not_decided_about(
    process: Process, open_book: Book
) -> None:
    await process.book_alone()
    fees = work(process.tenant_id, postings.posting_from_proto(transaction_request(debit(BANK, 5), credit(FEES, 5))))
    late = transaction_request(debit(BANK, 5), credit("liabilities:late", 5))
    missing = work(process.tenant_id, postings.posting_from_proto(late))

    ahead = await process.decide(fees)
    assert await process.decide(missing) is None
    await open_book.open("liabilities:late")

    assert ahead
    assert reasons(await process.book(fees, ahead=ahead)) == [None]
    assert reasons(await process.book(missing)) == [None]
    assert await open_book.balance(FEES) == (5, 0, 5)


async def test_what_relates_to_earlier_transactions_is_not_decided_ahead(process: Process) -> None:
    await process.book_alone()
    request = pb2.ReverseTransactionRequest(transaction_id=new_id("txn"), reversed_transaction_id=new_id("txn"))

    assert await process.decide(work(process.tenant_id, postings.reversal_from_proto(request))) is None


async def test_who_is_not_alone_with_a_tenant_does_not_decide_ahead(process: Process, other: Process) -> None:
    await process.book_alone()
    await other.book(other.work())
    await process.book(process.work())

    assert await process.decide(process.work()) is None
