"""The stream of changes, through the contract."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import grpc
import pytest
from kente.common.v1.money_pb2 import Money
from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.errors import Problem, Reason
from mesh.ids import new_id
from mesh.pages import encode_page_token
from tests.harness import Infrastructure, TestMesh, eventually
from tests.ledger.book import BANK, FEES, PAYER, SCOPES, Book, credit, debit, new_request_id

ANSWER_SECONDS = 15


class Watch:
    """One stream."""

    def __init__(self, book: Book, **fields: Any) -> None:
        self.call = book.stub.WatchEntries(pb2.WatchEntriesRequest(**fields))

    async def begun(self) -> None:
        """Waits until the service knows where to begin."""
        await asyncio.wait_for(self.call.initial_metadata(), ANSWER_SECONDS)

    async def take(self, count: int) -> list[pb2.WatchEntriesResponse]:
        """The next so many answers."""
        answers: list[pb2.WatchEntriesResponse] = []
        async with asyncio.timeout(ANSWER_SECONDS):
            async for answer in self.call:
                answers.append(answer)
                if len(answers) == count:
                    break
        return answers

    async def refusal(self) -> Problem:
        """The problem that the stream ends with."""
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await self.take(1)
        return Problem.from_rpc_error(refused.value)


@asynccontextmanager
async def watching(book: Book, **fields: Any) -> AsyncIterator[Watch]:
    """A stream that is left at the end."""
    watch = Watch(book, **fields)
    try:
        yield watch
    finally:
        watch.call.cancel()


def leaves(answers: Sequence[pb2.WatchEntriesResponse]) -> list[int]:
    """Which transactions were told of."""
    return [answer.transaction.leaf_index for answer in answers]


async def post_one(book: Book, amount_minor: int = 1) -> ledger_pb2.Transaction:
    """Posts a transaction."""
    return await book.post(debit(BANK, amount_minor), credit(PAYER, amount_minor))


async def test_all_that_was_booked_and_then_what_is_booked_comes_in_order_without_a_gap(open_book: Book) -> None:
    posted = [await post_one(open_book, number) for number in range(1, 4)]
    async with watching(open_book) as watch:
        told = await watch.take(3)
        posted += [await post_one(open_book, number) for number in range(4, 7)]
        told += await watch.take(3)

    assert [answer.transaction for answer in told] == posted
    assert leaves(told) == [0, 1, 2, 3, 4, 5]


async def test_nothing_is_missed_when_many_book_at_once(open_book: Book) -> None:
    async def book_some() -> None:
        for _ in range(15):
            await post_one(open_book)

    async with watching(open_book) as watch:
        reading = asyncio.create_task(watch.take(150))
        await asyncio.gather(*(book_some() for _ in range(10)))
        told = await reading

    assert leaves(told) == list(range(150))
    sequences = [entry.sequence for answer in told for entry in answer.transaction.entries]
    assert sequences == list(range(1, 301))
    balances = [answer.transaction.entries[0].balance_after.amount_minor for answer in told]
    assert balances == list(range(1, 151))


async def test_a_stream_goes_on_after_its_resume_token(open_book: Book) -> None:
    for _ in range(4):
        await post_one(open_book)
    async with watching(open_book) as first:
        tokens = [answer.resume_token for answer in await first.take(4)]
    for index, token in enumerate(tokens[:3]):
        async with watching(open_book, resume_token=token) as second:
            assert leaves(await second.take(3 - index)) == list(range(index + 1, 4))
    async with watching(open_book, resume_token=tokens[3]) as third:
        await third.begun()
        await post_one(open_book)
        assert leaves(await third.take(1)) == [4]


async def test_a_stream_from_now_tells_of_nothing_before(open_book: Book) -> None:
    await post_one(open_book)
    async with watching(open_book, from_now=True) as watch:
        await watch.begun()
        await post_one(open_book)

        assert leaves(await watch.take(1)) == [1]


async def test_a_tenant_that_has_booked_nothing_can_be_watched(book: Book) -> None:
    async with watching(book) as watch:
        await watch.begun()
        await book.open(BANK, PAYER)
        await post_one(book)

        assert leaves(await watch.take(1)) == [0]


async def test_what_another_process_books_is_told_too(open_book: Book, infrastructure: Infrastructure) -> None:
    other = TestMesh(infrastructure)
    # The harness knows one port of each service; the second process takes any.
    await other.start("ledger", port=0)
    try:
        port = other.services["ledger"].port
        token = infrastructure.identity("identity").access_token(new_id("key"), open_book.tenant_id, SCOPES, 300)
        async with watching(open_book) as watch, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await watch.begun()
            second = Book(channel, open_book.tenant_id)
            request = pb2.CreateTransactionRequest(
                request_id=new_request_id(), transaction_id=new_id("txn"), legs=[debit(BANK, 1), credit(PAYER, 1)]
            )
            await second.stub.CreateTransaction(request, metadata=[("authorization", f"Bearer {token}")])

            assert leaves(await watch.take(1)) == [0]
    finally:
        await other.close()


async def test_a_stream_that_is_read_again_tells_the_same(open_book: Book) -> None:
    hold = await open_book.post(debit(BANK, 5), credit(PAYER, 5), pending=True)
    async with watching(open_book) as first:
        told = await first.take(1)
    await open_book.stub.VoidHold(
        pb2.VoidHoldRequest(
            request_id=new_request_id(),
            transaction_id=new_id("txn"),
            hold_transaction_id=hold.transaction_id,
        )
    )

    async with watching(open_book) as second:
        told_again = await second.take(2)

    assert told_again[0] == told[0]
    assert told[0].transaction.hold_state == ledger_pb2.Transaction.HOLD_STATE_HELD
    assert told_again[1].transaction.related_transaction_id == hold.transaction_id
    assert not told_again[1].transaction.entries


async def test_each_tenant_sees_its_own_transactions_only(open_book: Book, ledger: TestMesh) -> None:
    other = Book(ledger.client("ledger", other_id := new_id("ten"), SCOPES), other_id)
    await other.open(BANK, PAYER, FEES)
    await post_one(other)
    async with watching(open_book) as watch:
        await watch.begun()
        posted = await post_one(open_book)

        assert [answer.transaction for answer in await watch.take(1)] == [posted]


async def test_no_transaction_stays_open_for_a_watcher_who_takes_its_time_or_leaves(
    open_book: Book, admin: asyncpg.Connection
) -> None:
    # More than the buffers on the way hold.
    amount = Money(amount_minor=1, currency="GHS")
    transfers = [
        ledger_pb2.Transfer(
            transaction_id=new_id("txn"),
            debit_account_name=BANK,
            credit_account_name=PAYER,
            amount=amount,
            description="x" * 200,
        )
        for _ in range(1_000)
    ]
    await open_book.stub.CreateTransfers(pb2.CreateTransfersRequest(request_id=new_request_id(), transfers=transfers))

    async def none_open() -> bool:
        query = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'kente_ledger' AND xact_start IS NOT NULL"
        return bool(await admin.fetchval(query) == 0)

    async with watching(open_book) as watch:
        await watch.take(1)
        assert await eventually(none_open)
        assert leaves(await watch.take(999)) == list(range(1, 1_000))
    assert await eventually(none_open)


@pytest.mark.parametrize(
    "token",
    [
        "x",
        encode_page_token({"leaf_index": 1}, {}),
        encode_page_token({"leaf_index": 1}, {"list": "watch", "tenant_id": "ten_other"}),
    ],
)
async def test_a_resume_token_of_something_else_is_refused(open_book: Book, token: str) -> None:
    await post_one(open_book)

    problem = await Watch(open_book, resume_token=token).refusal()

    assert problem.reason is Reason.FIELD_INVALID
    assert [violation.field for violation in problem.violations] == ["resume_token"]


@pytest.mark.parametrize("leaf_index", [-1, 0, 2, "1"])
async def test_a_forged_resume_token_is_refused(open_book: Book, leaf_index: int | str) -> None:
    await post_one(open_book)
    token = encode_page_token({"leaf_index": leaf_index}, {"list": "watch", "tenant_id": open_book.tenant_id})

    assert (await Watch(open_book, resume_token=token).refusal()).reason is Reason.FIELD_INVALID


async def test_a_resume_token_says_where_to_begin_and_from_now_does_too(open_book: Book) -> None:
    await post_one(open_book)
    async with watching(open_book) as watch:
        (answer,) = await watch.take(1)

    problem = await Watch(open_book, resume_token=answer.resume_token, from_now=True).refusal()

    assert problem.reason is Reason.FIELD_INVALID
    assert [violation.field for violation in problem.violations] == ["from_now"]
