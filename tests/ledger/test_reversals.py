"""Reversing what was booked, through the contract."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.errors import Reason
from mesh.ids import new_id
from tests.harness import TestMesh
from tests.ledger.book import BANK, FEES, PAYER, SCOPES, Book, credit, debit, new_request_id, refusal
from tests.ledger.chart import freeze
from tests.ledger.orders import hold, post_hold_request, reversal_request, send_transfers, transfer
from tests.ledger.teller import told


@pytest.fixture
async def payment(open_book: Book) -> ledger_pb2.Transaction:
    """A transaction of 1,000 with a fee of 15, and 200 that only passed through."""
    return await open_book.post(
        debit(BANK, 1_000), credit(PAYER, 985), credit(FEES, 15), debit(PAYER, 200), credit(PAYER, 200)
    )


async def test_a_transaction_is_reversed_in_full_with_a_link_both_ways(
    open_book: Book, payment: ledger_pb2.Transaction
) -> None:
    request = reversal_request(payment.transaction_id, description="refund", metadata={"why": "returned"})

    answer = await open_book.stub.ReverseTransaction(request)

    reversal = answer.transaction
    assert (reversal.kind, reversal.related_transaction_id, reversal.description, dict(reversal.metadata)) == (
        ledger_pb2.Transaction.KIND_REVERSAL,
        payment.transaction_id,
        "refund",
        {"why": "returned"},
    )
    assert [(e.account_name, e.side, e.amount.amount_minor) for e in reversal.entries] == [
        (BANK, ledger_pb2.SIDE_CREDIT, 1_000),
        (PAYER, ledger_pb2.SIDE_DEBIT, 985),
        (FEES, ledger_pb2.SIDE_DEBIT, 15),
        (PAYER, ledger_pb2.SIDE_CREDIT, 200),
        (PAYER, ledger_pb2.SIDE_DEBIT, 200),
    ]
    assert [balance.balance.amount_minor for balance in answer.balances] == [0, 0, 0]
    assert await open_book.transaction(reversal.transaction_id) == reversal
    assert list((await open_book.transaction(payment.transaction_id)).later_transaction_ids) == [request.transaction_id]
    assert await open_book.balance(BANK) == (0, 1_000, 1_000)


async def test_entries_are_reversed_bit_by_bit_and_each_once(open_book: Book, payment: ledger_pb2.Transaction) -> None:
    first = reversal_request(payment.transaction_id, 4, 3)
    await open_book.stub.ReverseTransaction(first)

    problems = [
        await refusal(open_book.stub.ReverseTransaction(reversal_request(payment.transaction_id, *indexes)))
        for indexes in ((), (3, 4), (0, 1, 2, 3, 4))
    ]
    second = await open_book.stub.ReverseTransaction(reversal_request(payment.transaction_id, 0, 1, 2))

    for problem in problems:
        assert problem.reason is Reason.TRANSACTION_ALREADY_REVERSED
        assert problem.code is grpc.StatusCode.FAILED_PRECONDITION
        assert problem.metadata == {
            "transaction_id": payment.transaction_id,
            "reversal_transaction_id": first.transaction_id,
        }
    assert list((await open_book.transaction(payment.transaction_id)).later_transaction_ids) == [
        first.transaction_id,
        second.transaction.transaction_id,
    ]
    assert [await open_book.balance(name) for name in (BANK, PAYER, FEES)] == [
        (0, 1_000, 1_000),
        (0, 1_385, 1_385),
        (0, 15, 15),
    ]


async def test_reversing_twice_is_refused(open_book: Book, payment: ledger_pb2.Transaction) -> None:
    first = await open_book.stub.ReverseTransaction(reversal_request(payment.transaction_id))

    problem = await refusal(open_book.stub.ReverseTransaction(reversal_request(payment.transaction_id)))

    assert problem.reason is Reason.TRANSACTION_ALREADY_REVERSED
    assert problem.metadata["reversal_transaction_id"] == first.transaction.transaction_id
    assert await open_book.balance(BANK) == (0, 1_000, 1_000)


async def test_of_many_reversals_at_once_one_is_booked(open_book: Book, payment: ledger_pb2.Transaction) -> None:
    answers = await asyncio.gather(
        *(told(open_book.stub.ReverseTransaction(reversal_request(payment.transaction_id))) for _ in range(20))
    )

    assert sorted(answer.reason for answer in answers) == ["OK"] + ["TRANSACTION_ALREADY_REVERSED"] * 19
    assert await open_book.balance(BANK) == (0, 1_000, 1_000)


async def test_entries_that_do_not_balance_are_not_reversed(open_book: Book, payment: ledger_pb2.Transaction) -> None:
    problem = await refusal(open_book.stub.ReverseTransaction(reversal_request(payment.transaction_id, 0, 1)))

    assert problem.reason is Reason.TRANSACTION_UNBALANCED
    assert problem.metadata["difference_minor"] == "-15"


async def test_an_entry_that_is_not_there_is_told(open_book: Book, payment: ledger_pb2.Transaction) -> None:
    problem = await refusal(open_book.stub.ReverseTransaction(reversal_request(payment.transaction_id, 0, 5)))

    assert problem.reason is Reason.RESOURCE_NOT_FOUND
    assert problem.metadata == {"transaction_id": payment.transaction_id, "entry_count": "5"}


@pytest.mark.parametrize("indexes", [(0, 0), (-1,), (100,)])
async def test_positions_of_entries_are_checked(
    open_book: Book, payment: ledger_pb2.Transaction, indexes: tuple[int, ...]
) -> None:
    problem = await refusal(open_book.stub.ReverseTransaction(reversal_request(payment.transaction_id, *indexes)))

    assert problem.reason is Reason.FIELD_INVALID
    assert problem.violations[0].field.startswith("entry_indexes")


async def test_what_was_posted_of_a_hold_is_reversed_and_a_reversal_is_not(open_book: Book) -> None:
    hold_id = await hold(open_book, 30)
    posting = await open_book.stub.PostHold(post_hold_request(hold_id, debit(BANK, 20), credit(PAYER, 20)))

    reversal = await open_book.stub.ReverseTransaction(reversal_request(posting.transaction.transaction_id))
    problem = await refusal(open_book.stub.ReverseTransaction(reversal_request(reversal.transaction.transaction_id)))

    assert await open_book.balance(BANK) == (0, 20, 20)
    assert problem.reason is Reason.TRANSACTION_NOT_REVERSIBLE
    assert problem.metadata == {"transaction_id": reversal.transaction.transaction_id, "kind": "REVERSAL"}


async def test_a_transfer_is_reversed_like_any_transaction(open_book: Book) -> None:
    (result,) = await send_transfers(open_book, transfer(7))

    await open_book.stub.ReverseTransaction(reversal_request(result.transaction_id))

    assert await open_book.balance(BANK) == (0, 7, 7)


async def test_a_transaction_that_does_not_exist_is_not_reversed(
    open_book: Book, payment: ledger_pb2.Transaction, ledger: TestMesh
) -> None:
    neighbour_id = new_id("ten")
    neighbour = Book(ledger.client("ledger", neighbour_id, SCOPES), neighbour_id)
    await neighbour.open(BANK)

    for book, transaction_id in ((open_book, new_id("txn")), (neighbour, payment.transaction_id)):
        problem = await refusal(book.stub.ReverseTransaction(reversal_request(transaction_id)))
        assert problem.reason is Reason.RESOURCE_NOT_FOUND
        assert problem.metadata == {"transaction_id": transaction_id}


async def test_a_reversal_is_refused_for_what_a_posting_is_refused_for(
    open_book: Book, payment: ledger_pb2.Transaction
) -> None:
    await open_book.open("liabilities:wallet", limits=ledger_pb2.AccountLimits(min_balance_minor=0))
    paid_in = await open_book.post(debit(BANK, 10), credit("liabilities:wallet", 10))
    await open_book.post(debit("liabilities:wallet", 1), credit(FEES, 1))

    over_limit = await refusal(open_book.stub.ReverseTransaction(reversal_request(paid_in.transaction_id)))
    await freeze(open_book, FEES)
    frozen = await refusal(open_book.stub.ReverseTransaction(reversal_request(payment.transaction_id)))
    future = Timestamp(seconds=payment.create_time.seconds + 3_600)
    too_late = await refusal(
        open_book.stub.ReverseTransaction(reversal_request(payment.transaction_id, effective_time=future))
    )

    assert over_limit.reason is Reason.BALANCE_LIMIT_EXCEEDED
    assert over_limit.metadata["exceeded_by_minor"] == "1"
    assert (frozen.reason, frozen.metadata["account_name"]) == (Reason.ACCOUNT_NOT_OPEN, FEES)
    assert too_late.reason is Reason.FIELD_INVALID
    assert list((await open_book.transaction(payment.transaction_id)).later_transaction_ids) == []


async def test_what_was_booked_in_a_closed_period_is_reversed_in_the_open_one(open_book: Book) -> None:
    old = Timestamp(seconds=1_700_000_000)
    before = await open_book.post(debit(BANK, 5), credit(PAYER, 5), effective_time=old)
    closed_time = Timestamp(seconds=1_700_000_001)
    await open_book.stub.ClosePeriod(
        pb2.ClosePeriodRequest(request_id=new_request_id(), book_name="main", end_time=closed_time)
    )

    problem = await refusal(
        open_book.stub.ReverseTransaction(reversal_request(before.transaction_id, effective_time=old))
    )
    reversal = (await open_book.stub.ReverseTransaction(reversal_request(before.transaction_id))).transaction

    assert problem.reason is Reason.PERIOD_CLOSED
    assert problem.metadata == {"book_name": "main", "closed_time": "2023-11-14T22:13:21+00:00"}
    assert reversal.effective_time == reversal.create_time


async def test_the_same_reversal_sent_again_gives_the_same_bytes(
    open_book: Book, payment: ledger_pb2.Transaction
) -> None:
    request = reversal_request(payment.transaction_id)

    answers = [await told(open_book.stub.ReverseTransaction(request)) for _ in range(2)]
    request.request_id = new_request_id()
    answers.append(await told(open_book.stub.ReverseTransaction(request)))

    assert len({answer.as_bytes for answer in answers}) == 1
    assert await open_book.balance(BANK) == (0, 1_000, 1_000)
