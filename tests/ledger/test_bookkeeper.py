"""Where calls meet: batches, faults of the connection, and back-pressure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.database import Database, DatabaseAwayError
from mesh.errors import Problem, Reason
from mesh.ids import new_id
from services.ledger.convert import postings
from services.ledger.repository.journals import LOCK_FIRST, Journal, find_journal
from services.ledger.use_cases.booking import RETRIES
from tests.harness import PASSWORD, Infrastructure, TestMesh, eventually, free_ports
from tests.ledger.book import BANK, PAYER, SCOPES, Book, credit, debit, transaction_request
from tests.ledger.desk import MakeBookkeeper, batches_of, booked, bookkeepers_on, posting, work
from tests.ledger.orders import transfer, transfers_request
from tests.ledger.wire import Wire

TOOK_TOO_LONG_SECONDS = 10.0


@pytest.fixture
async def wire(infrastructure: Infrastructure) -> AsyncIterator[Wire]:
    """The wire of the bookkeeper."""
    wire = Wire(infrastructure.postgres.port)
    await wire.open()
    yield wire
    await wire.close()


@pytest.fixture
async def make_bookkeeper(infrastructure: Infrastructure, wire: Wire) -> AsyncIterator[MakeBookkeeper]:
    """Makes bookkeepers whose only way to the database is the wire."""
    async with bookkeepers_on(infrastructure, wire.port) as make:
        yield make


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


@pytest.mark.parametrize("is_kept", [True, False])
async def test_the_first_batch_of_a_tenant_waits_for_whoever_else_is_its_first(
    infrastructure: Infrastructure, admin: asyncpg.Connection, *, is_kept: bool
) -> None:
    tenant_id = new_id("ten")
    database = await Database.connect(infrastructure.postgres.url("kente_ledger", PASSWORD))

    async def lock() -> Journal | None:
        async with database.transaction(tenant_id, first=LOCK_FIRST) as connection:
            return await find_journal(connection, tenant_id)

    with suppress(InterruptedError):
        async with database.transaction(tenant_id, first=LOCK_FIRST) as connection:
            first = await find_journal(connection, tenant_id)
            other = await begin(admin, lock())
            if not is_kept:
                raise InterruptedError

    second = await other
    await database.close()
    assert first
    assert second
    assert (first.journal_key == second.journal_key) == is_kept


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


async def test_a_batch_that_the_database_could_not_serialise_is_tried_again(
    open_book: Book, make_bookkeeper: MakeBookkeeper, admin: asyncpg.Connection
) -> None:
    """A trigger of an operator fails twice, and counts where a rollback does not reach."""
    bookkeeper = await make_bookkeeper()
    await admin.execute(
        f"""
        CREATE SEQUENCE failures;
        CREATE FUNCTION fail_twice() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger AS $$
        BEGIN
            IF nextval('failures') <= 2 THEN
                RAISE EXCEPTION 'twice' USING ERRCODE = 'serialization_failure';
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER fails_twice AFTER INSERT ON transactions FOR EACH ROW
            WHEN (NEW.tenant_id = '{open_book.tenant_id}') EXECUTE FUNCTION fail_twice();
        """
    )
    try:
        answer = booked(await bookkeeper.book(open_book.tenant_id, work(open_book.tenant_id, posting())))
    finally:
        await admin.execute(
            "DROP TRIGGER fails_twice ON transactions; DROP FUNCTION fail_twice(); DROP SEQUENCE failures"
        )

    assert answer.leaf_index == 0
    assert await batches_of(admin, open_book) == [1]


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


async def test_who_waits_for_a_booking_is_woken_by_it(open_book: Book, make_bookkeeper: MakeBookkeeper) -> None:
    bookkeeper = await make_bookkeeper()
    waiter = asyncio.create_task(bookkeeper.wait_for_booking(open_book.tenant_id, 60))
    await asyncio.sleep(0)

    await bookkeeper.book(open_book.tenant_id, work(open_book.tenant_id, posting()))
    async with asyncio.timeout(TOOK_TOO_LONG_SECONDS):
        await waiter

    await bookkeeper.wait_for_booking(open_book.tenant_id, 0.01)
