"""Where calls meet: batches, faults of the connection, back-pressure, months, and the clock."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.clock import utc_now
from mesh.database import Database, DatabaseAwayError
from mesh.errors import Problem, Reason
from mesh.ids import new_id
from mesh.interceptors.audit import AuditRow
from mesh.tokens import load_private_key
from services.ledger.convert import postings, transfers
from services.ledger.model.checkpoints import CheckpointSigner
from services.ledger.model.postings import Posting
from services.ledger.use_cases.booking import RETRIES, Bookkeeper
from services.ledger.use_cases.work import BatchTools, Result, Wording, Work
from tests.harness import PASSWORD, Infrastructure, TestMesh, eventually, free_ports
from tests.ledger.book import BANK, PAYER, SCOPES, Book, credit, debit, new_request_id, transaction_request
from tests.ledger.clock import SettableClock
from tests.ledger.orders import transfer, transfers_request
from tests.ledger.wire import Wire

NEW_YEAR = datetime(2031, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
TOOK_TOO_LONG_SECONDS = 10.0
MakeBookkeeper = Callable[..., Awaitable[Bookkeeper]]


@pytest.fixture
async def wire(infrastructure: Infrastructure) -> AsyncIterator[Wire]:
    """The wire of the bookkeeper."""
    wire = Wire(infrastructure.postgres.port)
    await wire.open()
    yield wire
    await wire.close()


@pytest.fixture
async def make_bookkeeper(infrastructure: Infrastructure, wire: Wire) -> AsyncIterator[MakeBookkeeper]:
    """Makes bookkeepers as a process of its own has one, whose only way to the database is the wire."""
    made: list[tuple[Bookkeeper, Database]] = []

    async def make(clock: Callable[[], datetime] = utc_now, queue_limit: int = 1_000) -> Bookkeeper:
        direct = infrastructure.postgres.url("kente_ledger", PASSWORD)
        database = await Database.connect(direct.replace(str(infrastructure.postgres.port), str(wire.port)))
        signer = CheckpointSigner("kente.test/ledger", load_private_key(infrastructure.checkpoint_key_file, ""))
        wording = Wording(
            booked=postings.booked_to_proto,
            transfer=transfers.transfer_result_to_proto,
            event=postings.transaction_to_json,
            differing_fields=postings.differing_fields,
        )
        tools = BatchTools(clock, signer, wording, timedelta(seconds=300))
        made.append((Bookkeeper(database, tools, batch_limit=8192, queue_limit=queue_limit), database))
        return made[-1][0]

    yield make
    for bookkeeper, database in made:
        await bookkeeper.close()
        await database.close()


def posting(amount_minor: int = 5) -> Posting:
    """A posting of an amount."""
    return postings.posting_from_proto(transaction_request(debit(BANK, amount_minor), credit(PAYER, amount_minor)))


def work(tenant_id: str, *asked: Posting) -> Work:
    """A call that books."""
    row = AuditRow(tenant_id, "tests", "tests", new_request_id(), {}, "OK", "")
    hash_ = hashlib.sha256(b"".join(one.request for one in asked)).digest()
    return Work(new_request_id(), hash_, asked, len(asked) > 1, row)


def booked(results: list[Result]) -> ledger_pb2.Transaction:
    """The transaction that a call was answered with."""
    (answer,) = results
    assert isinstance(answer, bytes)
    return pb2.CreateTransactionResponse.FromString(answer).transaction


@asynccontextmanager
async def journal_locked(admin: asyncpg.Connection, book: Book) -> AsyncIterator[None]:
    """Keeps all bookings of a tenant waiting."""
    async with admin.transaction():
        await admin.execute("SELECT FROM journals WHERE tenant_id = $1 FOR UPDATE", book.tenant_id)
        yield


async def waiting_backends(admin: asyncpg.Connection) -> list[int]:
    """Sessions of the service's role that wait for a lock."""
    # Within a transaction, the server would repeat what it saw first.
    await admin.execute("SELECT pg_stat_clear_snapshot()")
    rows = await admin.fetch(
        "SELECT pid FROM pg_stat_activity WHERE usename = 'kente_ledger' AND wait_event_type = 'Lock'"
    )
    return [row["pid"] for row in rows]


async def begin(admin: asyncpg.Connection, call: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Begins a call, and returns when its batch waits for the lock."""
    task = asyncio.create_task(call)
    await eventually(lambda: waiting_backends(admin))
    return task


async def batches_of(admin: asyncpg.Connection, book: Book) -> list[int]:
    """Size of the tree after each batch of a tenant."""
    rows = await admin.fetch(
        "SELECT tree_size FROM checkpoints WHERE tenant_id = $1 ORDER BY tree_size", book.tenant_id
    )
    return [row["tree_size"] for row in rows]


def retries() -> float:
    """How many batches were tried again in this process."""
    return sum(sample.value for metric in RETRIES.collect() for sample in metric.samples if "total" in sample.name)


async def test_calls_that_come_while_a_batch_is_on_its_way_meet_in_the_next(
    open_book: Book, make_bookkeeper: MakeBookkeeper, admin: asyncpg.Connection
) -> None:
    bookkeeper = await make_bookkeeper()
    async with journal_locked(admin, open_book):
        first = await begin(admin, bookkeeper.book(open_book.tenant_id, work(open_book.tenant_id, posting())))
        others = [
            asyncio.create_task(bookkeeper.book(open_book.tenant_id, work(open_book.tenant_id, posting())))
            for _ in range(50)
        ]
        await asyncio.sleep(0)

    answers = [booked(await task) for task in (first, *others)]

    assert await batches_of(admin, open_book) == [1, 51]
    assert [answer.leaf_index for answer in answers] == list(range(51))
    assert len({answer.create_time.ToNanoseconds() for answer in answers[1:]}) == 1


async def test_tenants_do_not_wait_for_each_other(
    open_book: Book, ledger: TestMesh, make_bookkeeper: MakeBookkeeper, admin: asyncpg.Connection
) -> None:
    neighbour_id = new_id("ten")
    neighbour = Book(ledger.client("ledger", neighbour_id, SCOPES), neighbour_id)
    await neighbour.open(BANK, PAYER)
    bookkeeper = await make_bookkeeper()

    async with journal_locked(admin, open_book):
        held_up = await begin(admin, bookkeeper.book(open_book.tenant_id, work(open_book.tenant_id, posting())))
        answer = booked(await bookkeeper.book(neighbour_id, work(neighbour_id, posting())))
        assert not held_up.done()

    assert answer.leaf_index == 0
    await held_up


async def test_an_answer_lost_after_the_commit_is_found_in_what_was_booked(
    open_book: Book, make_bookkeeper: MakeBookkeeper, wire: Wire
) -> None:
    bookkeeper = await make_bookkeeper()
    calls = [work(open_book.tenant_id, posting()) for _ in range(10)]
    before = retries()
    wire.lost_answers = 1

    answers = await asyncio.gather(*(bookkeeper.book(open_book.tenant_id, call) for call in calls))

    assert wire.lost_answers == 0
    assert retries() > before
    assert [booked(answer).leaf_index for answer in answers] == list(range(10))
    assert await open_book.balance(BANK) == (50, 50, 0)
    for call, answer in zip(calls, answers, strict=True):
        assert await open_book.transaction(call.postings[0].transaction_id) == booked(answer)


async def test_a_refusal_whose_answer_was_lost_is_found_too(
    open_book: Book, make_bookkeeper: MakeBookkeeper, wire: Wire
) -> None:
    bookkeeper = await make_bookkeeper()
    wire.lost_answers = 1
    unknown = postings.posting_from_proto(transaction_request(debit(BANK, 5), credit("assets:nowhere", 5)))

    (result,) = await bookkeeper.book(open_book.tenant_id, work(open_book.tenant_id, unknown))

    assert isinstance(result, Problem)
    assert result.reason is Reason.ACCOUNT_NOT_FOUND


async def test_a_commit_that_never_arrived_is_made_again(
    open_book: Book, make_bookkeeper: MakeBookkeeper, wire: Wire, admin: asyncpg.Connection
) -> None:
    bookkeeper = await make_bookkeeper()
    wire.lost_commits = 2

    answer = booked(await bookkeeper.book(open_book.tenant_id, work(open_book.tenant_id, posting())))

    assert wire.lost_commits == 0
    assert (answer.leaf_index, answer.entries[0].sequence) == (0, 1)
    assert await batches_of(admin, open_book) == [1]


async def test_a_batch_whose_session_is_ended_by_the_server_is_booked_by_another(
    open_book: Book, make_bookkeeper: MakeBookkeeper, admin: asyncpg.Connection
) -> None:
    bookkeeper = await make_bookkeeper()
    async with journal_locked(admin, open_book):
        call = await begin(admin, bookkeeper.book(open_book.tenant_id, work(open_book.tenant_id, posting())))
        (pid,) = await waiting_backends(admin)
        await admin.execute("SELECT pg_terminate_backend($1)", pid)

        async def another_waits() -> bool:
            return pid not in (found := await waiting_backends(admin)) and bool(found)

        await eventually(another_waits)

    assert booked(await call).leaf_index == 0
    assert await open_book.balance(BANK) == (5, 5, 0)


async def test_a_batch_in_a_deadlock_is_tried_again(
    open_book: Book, make_bookkeeper: MakeBookkeeper, admin: asyncpg.Connection
) -> None:
    """An operator's session takes an account first, and the journal then: the other way round."""
    bookkeeper = await make_bookkeeper()
    before = retries()
    # Of two sessions in a deadlock, the one that looks for it first gives way.
    await admin.execute("SET deadlock_timeout = '30s'")
    async with admin.transaction():
        await admin.execute("SELECT FROM accounts WHERE tenant_id = $1 FOR UPDATE", open_book.tenant_id)
        calls = await begin(
            admin,
            asyncio.wait_for(bookkeeper.book(open_book.tenant_id, work(open_book.tenant_id, posting())), 60),
        )
        await admin.execute("SELECT FROM journals WHERE tenant_id = $1 FOR UPDATE", open_book.tenant_id)

    assert booked(await calls).leaf_index == 0
    assert retries() > before


async def test_a_database_that_stays_away_is_told_and_what_was_asked_can_be_asked_again(
    open_book: Book, make_bookkeeper: MakeBookkeeper, wire: Wire
) -> None:
    bookkeeper = await make_bookkeeper()
    call = work(open_book.tenant_id, posting())
    wire.is_down = True
    begun = time.monotonic()

    with pytest.raises((DatabaseAwayError, asyncpg.PostgresConnectionError, OSError)):
        await bookkeeper.book(open_book.tenant_id, call)

    assert time.monotonic() - begun < TOOK_TOO_LONG_SECONDS
    wire.is_down = False
    assert booked(await bookkeeper.book(open_book.tenant_id, call)).leaf_index == 0
    assert await open_book.balance(BANK) == (5, 5, 0)


async def test_one_call_that_can_not_be_booked_does_not_fail_the_others_of_its_batch(
    open_book: Book, make_bookkeeper: MakeBookkeeper, admin: asyncpg.Connection
) -> None:
    bookkeeper = await make_bookkeeper()
    # No RPC lets it through: it stands for any fault of ours.
    poison = replace(posting(), transaction_id="txn_\0")
    async with journal_locked(admin, open_book):
        tasks = [await begin(admin, bookkeeper.book(open_book.tenant_id, work(open_book.tenant_id, posting())))]
        tasks += [
            asyncio.create_task(bookkeeper.book(open_book.tenant_id, work(open_book.tenant_id, one)))
            for one in (posting(), poison, posting())
        ]
        await asyncio.sleep(0)

    await asyncio.wait(tasks)

    poisoned = tasks.pop(2)
    assert [booked(task.result()).leaf_index for task in tasks] == [0, 1, 2]
    assert isinstance(poisoned.exception(), asyncpg.PostgresError)
    assert await open_book.balance(BANK) == (15, 15, 0)


async def test_a_call_that_its_caller_gave_up_before_its_batch_began_is_not_booked(
    open_book: Book, make_bookkeeper: MakeBookkeeper, admin: asyncpg.Connection
) -> None:
    bookkeeper = await make_bookkeeper()
    async with journal_locked(admin, open_book):
        first = await begin(admin, bookkeeper.book(open_book.tenant_id, work(open_book.tenant_id, posting())))
        given_up, kept = (
            asyncio.create_task(bookkeeper.book(open_book.tenant_id, work(open_book.tenant_id, posting())))
            for _ in range(2)
        )
        await asyncio.sleep(0)
        given_up.cancel()

    assert booked(await first).leaf_index == 0
    assert booked(await kept).leaf_index == 1
    assert await open_book.balance(BANK) == (10, 10, 0)


async def test_a_call_given_up_while_its_batch_is_on_its_way_is_booked_once(
    open_book: Book, make_bookkeeper: MakeBookkeeper, admin: asyncpg.Connection
) -> None:
    bookkeeper = await make_bookkeeper()
    call = work(open_book.tenant_id, posting())
    async with journal_locked(admin, open_book):
        given_up = await begin(admin, bookkeeper.book(open_book.tenant_id, call))
        given_up.cancel()

    assert booked(await bookkeeper.book(open_book.tenant_id, call)).leaf_index == 0
    assert await open_book.balance(BANK) == (5, 5, 0)


async def test_more_than_may_wait_are_told_when_to_come_back(
    open_book: Book, infrastructure: Infrastructure, admin: asyncpg.Connection
) -> None:
    busy = TestMesh(infrastructure)
    (port,) = free_ports(1)
    await busy.start("ledger", {"write_rate_per_second": 100_000}, port=port, queue_limit=4)
    book = Book(busy.client("ledger", open_book.tenant_id, SCOPES, port=port), open_book.tenant_id)
    requests = [transaction_request(debit(BANK, 5), credit(PAYER, 5)) for _ in range(12)]
    async with journal_locked(admin, open_book):
        tasks = [await begin(admin, told_end(book, requests[0]))]
        tasks += [asyncio.create_task(told_end(book, request)) for request in requests[1:]]

        async def all_others_are_refused() -> bool:
            return sum(task.done() for task in tasks) == len(requests) - 5

        await eventually(all_others_are_refused)
    ends = await asyncio.gather(*tasks)
    # More than may wait is taken when nothing else waits: it could never be booked otherwise.
    await book.stub.CreateTransfers(transfers_request([transfer(1) for _ in range(5)]))
    await busy.close()

    refused = [end for end in ends if end is not None]
    assert {problem.reason for problem in refused} == {Reason.SERVICE_OVERLOADED}
    assert {problem.code.name for problem in refused} == {"RESOURCE_EXHAUSTED"}
    assert {problem.retry_after_seconds for problem in refused} == {0.5}
    assert {problem.metadata["waiting"] for problem in refused} == {"4"}
    assert await open_book.balance(BANK) == (30, 30, 0)


async def told_end(book: Book, request: pb2.CreateTransactionRequest) -> Problem | None:
    """How a posting ends; without another try."""
    try:
        await book.stub.CreateTransaction(request)
    except asyncio.CancelledError:
        raise
    except Exception as error:  # noqa: BLE001 - only gRPC's own is left
        return Problem.from_rpc_error(error)  # type: ignore[arg-type]  # see above
    return None


async def test_two_processes_on_one_database_keep_one_order(
    open_book: Book, make_bookkeeper: MakeBookkeeper, admin: asyncpg.Connection
) -> None:
    bookkeepers = [await make_bookkeeper() for _ in range(2)]

    async def caller(number: int) -> list[ledger_pb2.Transaction]:
        answers = []
        for _ in range(10):
            call = work(open_book.tenant_id, posting(number + 1))
            answers.append(booked(await bookkeepers[number % 2].book(open_book.tenant_id, call)))
        return answers

    told = [answer for answers in await asyncio.gather(*map(caller, range(20))) for answer in answers]

    told.sort(key=lambda answer: answer.leaf_index)
    assert [answer.leaf_index for answer in told] == list(range(200))
    assert [entry.sequence for answer in told for entry in answer.entries] == list(range(1, 401))
    times = [answer.create_time.ToNanoseconds() for answer in told]
    assert times == sorted(times)
    sums = [sum(answer.entries[0].amount.amount_minor for answer in told[: number + 1]) for number in range(200)]
    assert [answer.entries[0].balance_after.amount_minor for answer in told] == sums
    assert await batches_of(admin, open_book) == sorted(set(await batches_of(admin, open_book)))


async def test_a_month_that_begins_gets_its_partition_when_it_is_booked_into(
    open_book: Book, make_bookkeeper: MakeBookkeeper, admin: asyncpg.Connection
) -> None:
    clock = SettableClock(NEW_YEAR)
    bookkeeper = await make_bookkeeper(clock)

    answers = []
    for seconds in (0.000001, 31 * 86_400, 60 * 86_400):
        answers.append(booked(await bookkeeper.book(open_book.tenant_id, work(open_book.tenant_id, posting()))))
        clock.advance(seconds)
    answers.append(booked(await bookkeeper.book(open_book.tenant_id, work(open_book.tenant_id, posting()))))

    rows = await admin.fetch(
        "SELECT DISTINCT tableoid::regclass::text AS name FROM entries WHERE tenant_id = $1 ORDER BY name",
        open_book.tenant_id,
    )
    assert [row["name"] for row in rows] == ["entries_2031_12", "entries_2032_01", "entries_2032_02", "entries_2032_04"]
    assert [await open_book.transaction(answer.transaction_id) for answer in answers] == answers
    assert [entry.sequence for entry in await open_book.entries()] == list(range(1, 9))


async def test_tenants_who_book_into_a_new_month_at_once_find_one_partition(
    ledger: TestMesh, make_bookkeeper: MakeBookkeeper
) -> None:
    books = []
    for _ in range(8):
        tenant_id = new_id("ten")
        books.append(Book(ledger.client("ledger", tenant_id, SCOPES), tenant_id))
        await books[-1].open(BANK, PAYER)
    clock = SettableClock(NEW_YEAR + timedelta(days=3_650))
    bookkeepers = [await make_bookkeeper(clock) for _ in range(2)]

    for _ in range(3):
        calls = [
            bookkeepers[number % 2].book(book.tenant_id, work(book.tenant_id, posting()))
            for number, book in enumerate(books)
        ]
        assert {len(results) for results in await asyncio.gather(*calls)} == {1}
        clock.advance(31 * 86_400)

    assert {await book.balance(BANK) for book in books} == {(15, 15, 0)}


async def test_a_clock_set_back_reorders_nothing(open_book: Book, make_bookkeeper: MakeBookkeeper) -> None:
    clock = SettableClock(NEW_YEAR)
    bookkeeper = await make_bookkeeper(clock)

    answers = []
    for seconds in (-3_600, 3_599, 2, 0):
        answers.append(booked(await bookkeeper.book(open_book.tenant_id, work(open_book.tenant_id, posting()))))
        clock.advance(seconds)

    times = [answer.create_time.ToDatetime(tzinfo=UTC) for answer in answers]
    assert times == [NEW_YEAR, NEW_YEAR, NEW_YEAR, NEW_YEAR + timedelta(seconds=1)]
    assert [answer.leaf_index for answer in answers] == [0, 1, 2, 3]


async def test_who_waits_for_a_booking_is_woken_by_it(open_book: Book, make_bookkeeper: MakeBookkeeper) -> None:
    bookkeeper = await make_bookkeeper()
    waiter = asyncio.create_task(bookkeeper.wait_for_booking(open_book.tenant_id, 60))
    await asyncio.sleep(0)

    await bookkeeper.book(open_book.tenant_id, work(open_book.tenant_id, posting()))
    async with asyncio.timeout(TOOK_TOO_LONG_SECONDS):
        await waiter

    await bookkeeper.wait_for_booking(open_book.tenant_id, 0.01)
