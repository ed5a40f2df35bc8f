"""What is remembered of a tenant's books, and what was decided on it, is given up as soon as anything else happened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.clock import utc_now
from mesh.database import Database
from mesh.errors import Problem, Reason
from mesh.ids import new_id
from services.ledger.convert import postings
from services.ledger.model.accounts import AccountLimits, AccountState, AccountType, PostableAccount
from services.ledger.repository.journals import LOCK_FIRST, Journal
from services.ledger.use_cases.book_batch import AHEAD, Decided, book_batch, decide_ahead
from services.ledger.use_cases.memory import Memory, RememberedBooks
from services.ledger.use_cases.work import Result, Work
from tests.harness import PASSWORD, Infrastructure, eventually
from tests.ledger.book import BANK, FEES, PAYER, Book, credit, debit, new_request_id, transaction_request
from tests.ledger.clock import SettableClock
from tests.ledger.desk import MakeBookkeeper, batches_of, booked, bookkeepers_on, posting, tools_of, work

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


@pytest.fixture
async def make_bookkeeper(infrastructure: Infrastructure) -> AsyncIterator[MakeBookkeeper]:
    """Makes bookkeepers."""
    async with bookkeepers_on(infrastructure, infrastructure.postgres.port) as make:
        yield make


def outcomes() -> tuple[float, ...]:
    """How many batches that were decided ahead were written, and how many were decided again."""
    values = {
        sample.labels["outcome"]: sample.value
        for metric in AHEAD.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }
    return values.get("written", 0.0), values.get("decided_again", 0.0)


def reasons(results: Results) -> list[Reason | None]:
    """How each posting ended; None is well."""
    each = [one for result in results for one in ([result] if isinstance(result, Problem) else result)]
    return [one.reason if isinstance(one, Problem) else None for one in each]


async def test_what_was_decided_ahead_is_written_when_nothing_else_happened(process: Process, open_book: Book) -> None:
    works = [process.work(7), process.work(8)]
    ahead = await process.decide_surely(*works)
    before = outcomes()

    results = await process.book(*works, ahead=ahead)

    assert outcomes() == (before[0] + 1, before[1])
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
    before = outcomes()

    (results,) = await process.book(second, ahead=following)

    assert outcomes() == (before[0], before[1] + 1)
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


async def somebody_corrects_a_sum_by_hand(scene: Scene) -> None:
    await scene.admin.execute(
        "UPDATE accounts SET credits_minor = credits_minor + 1000 WHERE tenant_id = $1 AND account_name = $2",
        scene.book.tenant_id,
        PAYER,
    )


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
        (somebody_corrects_a_sum_by_hand, None, 1_017),
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
    before = outcomes()

    results = await process.book(asked, ahead=ahead)

    assert outcomes() == (before[0], before[1] + 1)
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
    hold.expire_time.FromDatetime(process.clock() + timedelta(seconds=10))
    await process.book(work(process.tenant_id, postings.posting_from_proto(hold)))
    await process.book_alone()
    process.clock.advance(11)
    asked = process.work(7)
    ahead = await process.decide(asked)
    assert ahead

    (results,) = await process.book(asked, ahead=ahead)

    assert isinstance(results, list)
    # The hold, two postings, the end of the hold, and only then this.
    assert booked(results).leaf_index == 4


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


def test_two_journals_begin_alike_and_are_not_the_same() -> None:
    """A tenant whose first journal was taken back gets another."""
    newcomer = Journal(1, new_id("ten"), 0, 0, b"", datetime(1, 1, 1, tzinfo=UTC), None, 0)

    assert newcomer.has_same_books(replace(newcomer, next_expire_time=utc_now()))
    assert not newcomer.has_same_books(replace(newcomer, journal_key=2))


async def test_a_large_batch_is_decided_while_the_one_before_is_being_written(
    open_book: Book, make_bookkeeper: MakeBookkeeper, admin: asyncpg.Connection
) -> None:
    bookkeeper = await make_bookkeeper(ahead_postings=10)
    tenant_id = open_book.tenant_id
    for _ in range(2):
        await bookkeeper.book(tenant_id, work(tenant_id, posting()))
    slow = work(tenant_id, posting())
    before = outcomes()

    async def is_writing() -> bool:
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'kente_ledger' AND wait_event = 'transactionid'"
        )
        await admin.execute("SELECT pg_stat_clear_snapshot()")
        return bool(await admin.fetchval(waiting))

    async with admin.transaction():
        # Whoever writes the same request waits to see what becomes of this one.
        await admin.execute("INSERT INTO requests VALUES ($1, $2, '', now())", tenant_id, slow.request.key)
        first = asyncio.create_task(bookkeeper.book(tenant_id, slow))
        await eventually(is_writing)
        others = [asyncio.create_task(bookkeeper.book(tenant_id, work(tenant_id, posting()))) for _ in range(10)]
        await asyncio.sleep(0)
        await admin.execute("DELETE FROM requests WHERE tenant_id = $1 AND request_hash = ''", tenant_id)

    answers = [booked(await task) for task in (first, *others)]

    assert [answer.leaf_index for answer in answers] == list(range(2, 13))
    assert [answer.entries[-1].balance_after.amount_minor for answer in answers] == list(range(15, 70, 5))
    assert await batches_of(admin, open_book) == [1, 2, 3, 13]
    assert outcomes() == (before[0] + 1, before[1])


def remembered(*account_names: str) -> RememberedBooks:
    """Books of which accounts are remembered."""
    books = RememberedBooks(Journal(1, "ten_1", 0, 0, b"", datetime(1, 1, 1, tzinfo=UTC), None, 0))
    sums = (0, 0, 0, 0)
    books.add(
        PostableAccount(1, "main", name, AccountType.ASSET, "GHS", AccountState.OPENED, AccountLimits(), *sums)
        for name in account_names
    )
    return books


def test_who_works_with_remembered_books_has_them_alone() -> None:
    memory = Memory(2)
    memory.give_back("a", remembered("x"))

    assert memory.take("a")
    assert memory.take("a") is None


def test_those_that_were_not_used_for_longest_are_forgotten_first() -> None:
    memory = Memory(3)
    memory.give_back("a", remembered("x"))
    memory.give_back("b", remembered("x", "y"))
    memory.give_back("a", remembered("x", "y"))

    assert memory.take("b") is None
    assert memory.take("a")


def test_a_tenant_with_more_accounts_than_can_be_remembered_is_not() -> None:
    memory = Memory(1)
    memory.give_back("a", remembered("x", "y"))

    assert memory.take("a") is None
