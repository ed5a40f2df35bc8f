"""Many callers at once, on the same few accounts."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator

import asyncpg
import grpc
import pytest
from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1.ledger_service_pb2 import CreateTransactionRequest

from mesh.errors import Problem, Reason
from mesh.ids import new_id
from tests.harness import Infrastructure, TestMesh, eventually, free_ports
from tests.ledger.book import BANK, FEES, PAYER, SCOPES, Book, credit, debit, transaction_request
from tests.ledger.crowd import Crowd

SEED = 20_260_102
EFFORT = float(os.environ.get("KENTE_TEST_EFFORT", "1"))
CALLERS, CALLS_EACH = 16, 14


async def outcome(book: Book, request: CreateTransactionRequest) -> ledger_pb2.Transaction | Problem:
    """What a posting is answered with."""
    try:
        return (await book.stub.CreateTransaction(request)).transaction
    except grpc.aio.AioRpcError as error:
        return Problem.from_rpc_error(error)


async def check_books(book: Book) -> list[ledger_pb2.Entry]:
    """Checks what must hold whatever happened: no gap, sum zero, running balances, sums of accounts."""
    entries = await book.entries(page_size=200)
    assert [entry.sequence for entry in entries] == list(range(1, len(entries) + 1))
    sums: Counter[str] = Counter()
    running: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    types = {name: (await book.account(name)).type for name in {entry.account_name for entry in entries}}
    for entry in entries:
        is_debit = entry.side == ledger_pb2.SIDE_DEBIT
        sums[entry.amount.currency] += entry.amount.amount_minor if is_debit else -entry.amount.amount_minor
        totals = running[entry.account_name]
        totals[0 if is_debit else 1] += entry.amount.amount_minor
        grows_by_debit = types[entry.account_name] in {ledger_pb2.Account.TYPE_ASSET, ledger_pb2.Account.TYPE_EXPENSE}
        difference = totals[0] - totals[1]
        assert entry.balance_after.amount_minor == (difference if grows_by_debit else -difference)
    assert set(sums.values()) <= {0}
    for name, totals in running.items():
        assert (await book.balance(name))[1:] == tuple(totals)
    return entries


async def test_concurrent_postings_on_the_same_accounts_lose_nothing(book: Book) -> None:
    await book.open(BANK, PAYER, FEES)
    chance = random.Random(SEED)
    requests = []
    for _ in range(200):
        # Any two of three accounts in any order: without the order of locking, this would be a storm of deadlocks.
        one, other = chance.sample([BANK, PAYER, FEES], 2)
        amount = chance.randint(1, 1_000)
        requests.append(transaction_request(debit(one, amount), credit(other, amount)))

    answers = await asyncio.gather(*(outcome(book, request) for request in requests))

    assert [answer for answer in answers if isinstance(answer, Problem)] == []
    entries = await check_books(book)
    assert len(entries) == 400
    assert {entry.transaction_id for entry in entries} == {request.transaction_id for request in requests}


async def test_concurrent_resends_of_one_posting_book_it_once(book: Book) -> None:
    await book.open(BANK, PAYER)
    transaction_id = new_id("txn")
    requests = [transaction_request(debit(BANK, 5), credit(PAYER, 5), transaction_id=transaction_id) for _ in range(20)]

    answers = await asyncio.gather(*(outcome(book, request) for request in requests))

    assert all(answer == answers[0] for answer in answers)
    assert isinstance(answers[0], ledger_pb2.Transaction)
    assert len(await check_books(book)) == 2


async def test_of_concurrent_postings_with_one_id_and_other_accounts_one_is_booked(book: Book) -> None:
    """They share no account, so only the unique id can stop them."""
    names = [f"assets:till_{number}" for number in range(20)]
    await book.open(*names)
    transaction_id = new_id("txn")
    pairs = zip(names[::2], names[1::2], strict=True)
    requests = [
        transaction_request(debit(one, 5), credit(other, 5), transaction_id=transaction_id) for one, other in pairs
    ]

    answers = await asyncio.gather(*(outcome(book, request) for request in requests))

    refused = [answer for answer in answers if isinstance(answer, Problem)]
    assert [problem.reason for problem in refused] == [Reason.RESOURCE_ALREADY_EXISTS] * 9
    assert len(await check_books(book)) == 2


async def test_concurrent_requests_for_one_account_name_create_one(book: Book) -> None:
    async def create() -> str:
        try:
            await book.open(BANK)
        except grpc.aio.AioRpcError as error:
            return Problem.from_rpc_error(error).reason_name
        return "OK"

    outcomes = Counter(await asyncio.gather(*(create() for _ in range(10))))

    assert outcomes == {"OK": 1, "RESOURCE_ALREADY_EXISTS": 9}


async def test_a_deadlock_with_a_foreign_session_is_waited_out(book: Book, admin: asyncpg.Connection) -> None:
    """An operator's session locks in the wrong order; the posting is the victim, and is tried again."""
    await book.open(BANK, PAYER)
    lock = "SELECT FROM accounts WHERE tenant_id = $1 AND account_name = $2 FOR UPDATE"
    # Of two sessions in a deadlock, the one that looks for it first gives way: let it be the service's.
    await admin.execute("SET deadlock_timeout = '30s'")

    async def service_waits() -> bool:
        return bool(
            await admin.fetchval(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE application_name = 'kente-ledger' AND wait_event_type = 'Lock'"
            )
        )

    async with admin.transaction():
        await admin.execute(lock, book.tenant_id, PAYER)
        posting = asyncio.create_task(book.post(debit(BANK, 5), credit(PAYER, 5)))
        await eventually(service_waits)
        # BANK is locked by the posting, which waits for PAYER: this closes the circle.
        await admin.execute(lock, book.tenant_id, BANK)

    transaction = await posting
    assert [entry.sequence for entry in transaction.entries] == [1, 2]
    await check_books(book)


@pytest.fixture(scope="module", params=[1, 256], ids=["deciding_ahead", "deciding_under_the_lock"])
async def ledger_ports(infrastructure: Infrastructure, request: pytest.FixtureRequest) -> AsyncIterator[list[int]]:
    """Two processes' worth of the service on the same database; their ports."""
    meshes = [TestMesh(infrastructure) for _ in range(2)]
    ports = free_ports(2)
    limits = {"write_rate_per_second": 100_000, "read_rate_per_second": 100_000}
    for mesh, port in zip(meshes, ports, strict=True):
        await mesh.start("ledger", limits, port=port, ahead_postings=request.param)
    yield ports
    for mesh in meshes:
        await mesh.close()


@pytest.mark.timeout(120 + 30 * EFFORT)
@pytest.mark.parametrize("services", [1, 2])
async def test_what_a_crowd_is_told_could_have_happened_one_after_the_other(
    ledger: TestMesh, ledger_ports: list[int], tenant_id: str, services: int
) -> None:
    """Every answer, refusals and readings included, has a place in the order that the leaf indexes claim."""
    for history in range(max(1, round(EFFORT))):
        tenant = tenant_id if history == 0 else new_id("ten")
        ports = ledger_ports[:services]
        channels = [ledger.client("ledger", tenant, SCOPES, port=ports[number % services]) for number in range(CALLERS)]
        await asyncio.gather(*(channel.channel_ready() for channel in channels))
        books = [Book(channel, tenant) for channel in channels]
        crowd = Crowd(books, SEED + history)
        await crowd.open()

        await crowd.run(CALLS_EACH)

        # The checker computes; the services of this process need the event loop meanwhile.
        assert await crowd.check() == []
        assert len({claim for sent in crowd.sent.values() for claim in sent.asks}) > CALLERS * CALLS_EACH / 2
