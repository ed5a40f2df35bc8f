"""Holding amounts, and what becomes of what is held, through the contract."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from kente.ledger.v1 import ledger_pb2

from mesh.errors import Reason
from mesh.ids import new_id
from tests.harness import TestMesh
from tests.ledger.book import BANK, FEES, PAYER, SCOPES, Book, credit, debit, refusal, transaction_request
from tests.ledger.chart import close, freeze, reopen
from tests.ledger.orders import hold, pending, post_hold_request, reversal_request, void_hold_request
from tests.ledger.teller import told

HELD, POSTED, VOIDED, EXPIRED = (
    ledger_pb2.Transaction.HOLD_STATE_HELD,
    ledger_pb2.Transaction.HOLD_STATE_POSTED,
    ledger_pb2.Transaction.HOLD_STATE_VOIDED,
    ledger_pb2.Transaction.HOLD_STATE_EXPIRED,
)


WALLET = "liabilities:wallet"


async def test_what_is_held_changes_no_balance(open_book: Book) -> None:
    answer = await open_book.stub.CreateTransaction(
        transaction_request(debit(BANK, 30), credit(PAYER, 20), credit(FEES, 10), pending=True)
    )

    held = answer.transaction
    assert (held.kind, held.hold_state) == (ledger_pb2.Transaction.KIND_HOLD, HELD)
    assert [(entry.pending, entry.amount.amount_minor, entry.balance_after.amount_minor) for entry in held.entries] == [
        (True, 30, 0),
        (True, 20, 0),
        (True, 10, 0),
    ]
    assert [(b.balance.amount_minor, b.pending_debits_minor, b.pending_credits_minor) for b in answer.balances] == [
        (0, 30, 0),
        (0, 0, 20),
        (0, 0, 10),
    ]
    assert await open_book.transaction(held.transaction_id) == held
    assert await open_book.balance(BANK) == (0, 0, 0)
    assert [await pending(open_book, name) for name in (BANK, PAYER, FEES)] == [(30, 0), (0, 20), (0, 10)]


async def test_all_of_a_hold_is_posted(open_book: Book) -> None:
    hold_id = await hold(open_book, 30)
    request = post_hold_request(hold_id, description="captured", metadata={"order": "7"})

    answer = await open_book.stub.PostHold(request)

    posted = answer.transaction
    assert (posted.kind, posted.related_transaction_id) == (ledger_pb2.Transaction.KIND_HOLD_POSTING, hold_id)
    assert [(e.account_name, e.amount.amount_minor, e.pending, e.sequence) for e in posted.entries] == [
        (BANK, 30, False, 3),
        (PAYER, 30, False, 4),
    ]
    assert [(b.balance.amount_minor, b.pending_debits_minor, b.pending_credits_minor) for b in answer.balances] == [
        (30, 0, 0),
        (30, 0, 0),
    ]
    ended = await open_book.transaction(hold_id)
    assert (ended.hold_state, list(ended.later_transaction_ids)) == (POSTED, [request.transaction_id])
    assert await open_book.balance(BANK) == (30, 30, 0)
    assert await pending(open_book, BANK) == (0, 0)
    assert await open_book.transaction(request.transaction_id) == posted


async def test_a_part_of_a_hold_is_posted_and_the_rest_released(open_book: Book) -> None:
    held = await open_book.post(debit(BANK, 30), credit(PAYER, 20), credit(FEES, 10), pending=True)

    answer = await open_book.stub.PostHold(
        post_hold_request(held.transaction_id, debit(BANK, 13), credit(FEES, 1), credit(PAYER, 12))
    )

    assert [entry.account_name for entry in answer.transaction.entries] == [BANK, FEES, PAYER]
    assert [await open_book.balance(name) for name in (BANK, PAYER, FEES)] == [(13, 13, 0), (12, 0, 12), (1, 0, 1)]
    assert [await pending(open_book, name) for name in (BANK, PAYER, FEES)] == [(0, 0)] * 3


async def test_legs_of_one_account_may_be_split_up_to_what_is_held_there(open_book: Book) -> None:
    hold_id = await hold(open_book, 30)
    legs = [debit(BANK, 10), debit(BANK, 20), credit(PAYER, 30)]

    problem = await refusal(
        open_book.stub.PostHold(post_hold_request(hold_id, *legs, debit(BANK, 1), credit(PAYER, 1)))
    )
    await open_book.stub.PostHold(post_hold_request(hold_id, *legs))

    assert problem.reason is Reason.HOLD_EXCEEDED
    assert problem.metadata == {
        "account_name": BANK,
        "side": "DEBIT",
        "currency": "GHS",
        "held_minor": "30",
        "amount_minor": "31",
    }
    assert await open_book.balance(BANK) == (30, 30, 0)


@pytest.mark.parametrize(
    ("legs", "reason"),
    [
        ([debit(BANK, 31), credit(PAYER, 31)], Reason.HOLD_EXCEEDED),
        ([debit(BANK, 5), credit(FEES, 5)], Reason.HOLD_EXCEEDED),
        ([credit(BANK, 5), debit(PAYER, 5)], Reason.HOLD_EXCEEDED),
        ([debit(BANK, 5, "KES"), credit(PAYER, 5, "KES")], Reason.HOLD_EXCEEDED),
        ([debit(BANK, 5), credit(PAYER, 4)], Reason.TRANSACTION_UNBALANCED),
        ([debit(BANK, 5)], Reason.FIELD_INVALID),
    ],
)
async def test_no_more_is_posted_than_is_held_where_it_is_held(
    open_book: Book, legs: list[ledger_pb2.Leg], reason: Reason
) -> None:
    hold_id = await hold(open_book, 30)

    problem = await refusal(open_book.stub.PostHold(post_hold_request(hold_id, *legs)))

    assert problem.reason is reason
    assert (await open_book.transaction(hold_id)).hold_state == HELD
    assert await pending(open_book, BANK) == (30, 0)
    assert await open_book.balance(BANK) == (0, 0, 0)


async def test_a_voided_hold_leaves_nothing(open_book: Book) -> None:
    hold_id = await hold(open_book, 30)
    request = void_hold_request(hold_id, description="canceled", metadata={"why": "canceled"})

    void = (await open_book.stub.VoidHold(request)).transaction

    assert (void.kind, void.related_transaction_id, len(void.entries)) == (
        ledger_pb2.Transaction.KIND_HOLD_VOID,
        hold_id,
        0,
    )
    ended = await open_book.transaction(hold_id)
    assert (ended.hold_state, list(ended.later_transaction_ids)) == (VOIDED, [request.transaction_id])
    assert await open_book.balance(BANK) == (0, 0, 0)
    assert await pending(open_book, BANK) == (0, 0)
    assert await open_book.transaction(void.transaction_id) == void


async def test_a_hold_ends_once(open_book: Book) -> None:
    posted, voided = await hold(open_book, 30), await hold(open_book, 30)
    posting, void = post_hold_request(posted, debit(BANK, 1), credit(PAYER, 1)), void_hold_request(voided)
    await open_book.stub.PostHold(posting)
    await open_book.stub.VoidHold(void)

    for hold_id, ending, state in ((posted, posting, "POSTED"), (voided, void, "VOIDED")):
        for again in (
            open_book.stub.PostHold(post_hold_request(hold_id)),
            open_book.stub.VoidHold(void_hold_request(hold_id)),
        ):
            problem = await refusal(again)
            assert problem.reason is Reason.HOLD_NOT_PENDING
            assert problem.code is grpc.StatusCode.FAILED_PRECONDITION
            assert problem.metadata == {
                "transaction_id": hold_id,
                "state": state,
                "ended_by_transaction_id": ending.transaction_id,
            }
    assert await open_book.balance(BANK) == (1, 1, 0)


async def test_of_many_who_end_a_hold_at_once_one_does(open_book: Book) -> None:
    hold_id = await hold(open_book, 30)

    answers = await asyncio.gather(
        *(told(open_book.stub.PostHold(post_hold_request(hold_id))) for _ in range(10)),
        *(told(open_book.stub.VoidHold(void_hold_request(hold_id))) for _ in range(10)),
    )

    assert sorted(answer.reason for answer in answers) == ["HOLD_NOT_PENDING"] * 19 + ["OK"]


async def test_only_a_hold_can_be_ended(open_book: Book) -> None:
    posting = await open_book.post(debit(BANK, 5), credit(PAYER, 5))
    unknown = new_id("txn")

    no_hold = await refusal(open_book.stub.PostHold(post_hold_request(posting.transaction_id)))
    missing = await refusal(open_book.stub.VoidHold(void_hold_request(unknown)))

    assert (no_hold.reason, no_hold.metadata["state"]) == (Reason.HOLD_NOT_PENDING, "NONE")
    assert (missing.reason, missing.metadata) == (Reason.RESOURCE_NOT_FOUND, {"transaction_id": unknown})


async def test_what_posts_or_voids_a_hold_is_no_hold_and_no_hold_is_reversed(open_book: Book) -> None:
    posted, voided, still_held = [await hold(open_book, 5) for _ in range(3)]
    posting, void = post_hold_request(posted), void_hold_request(voided)
    await open_book.stub.PostHold(posting)
    await open_book.stub.VoidHold(void)

    for transaction_id in (posting.transaction_id, void.transaction_id):
        problem = await refusal(open_book.stub.PostHold(post_hold_request(transaction_id)))
        assert (problem.reason, problem.metadata["state"]) == (Reason.HOLD_NOT_PENDING, "NONE")
    for transaction_id, kind in ((still_held, "HOLD"), (posted, "HOLD"), (void.transaction_id, "HOLD_VOID")):
        problem = await refusal(open_book.stub.ReverseTransaction(reversal_request(transaction_id)))
        assert problem.reason is Reason.TRANSACTION_NOT_REVERSIBLE
        assert problem.metadata == {"transaction_id": transaction_id, "kind": kind}


async def test_another_tenants_hold_looks_like_none(open_book: Book, ledger: TestMesh) -> None:
    hold_id = await hold(open_book, 5)
    neighbour_id = new_id("ten")
    neighbour = Book(ledger.client("ledger", neighbour_id, SCOPES), neighbour_id)
    await neighbour.open(BANK, PAYER)

    for call in (
        neighbour.stub.PostHold(post_hold_request(hold_id)),
        neighbour.stub.VoidHold(void_hold_request(hold_id)),
    ):
        assert (await refusal(call)).reason is Reason.RESOURCE_NOT_FOUND
    assert await pending(open_book, BANK) == (5, 0)


async def test_limits_count_what_is_held(open_book: Book) -> None:
    await open_book.open(WALLET, limits=ledger_pb2.AccountLimits(min_balance_minor=0, max_balance_minor=100))
    await open_book.post(debit(BANK, 50), credit(WALLET, 50))
    spent = await hold(open_book, 30, debited=WALLET, credited=FEES)
    await hold(open_book, 45, debited=BANK, credited=WALLET)

    too_low = await refusal(open_book.post(debit(WALLET, 21), credit(FEES, 21)))
    too_high = await refusal(open_book.post(debit(BANK, 6), credit(WALLET, 6), pending=True))

    assert (await open_book.account(WALLET)).available.amount_minor == 20
    assert too_low.metadata == {
        "account_name": WALLET,
        "limit": "MIN_BALANCE",
        "limit_minor": "0",
        "exceeded_by_minor": "1",
        "available_minor": "20",
        "currency": "GHS",
    }
    assert (too_high.metadata["limit"], too_high.metadata["exceeded_by_minor"]) == ("MAX_BALANCE", "1")
    assert {problem.reason for problem in (too_low, too_high)} == {Reason.BALANCE_LIMIT_EXCEEDED}
    # What was let in as a hold can always be posted, and what is released can be spent.
    await open_book.stub.PostHold(post_hold_request(spent, debit(WALLET, 10), credit(FEES, 10)))
    await open_book.post(debit(WALLET, 40), credit(FEES, 40))
    assert await open_book.balance(WALLET) == (0, 50, 50)


async def test_a_frozen_account_keeps_its_holds_which_can_be_voided_only(open_book: Book) -> None:
    posted, voided = await hold(open_book, 5), await hold(open_book, 6)
    await freeze(open_book, PAYER)

    problems = [
        await refusal(open_book.stub.PostHold(post_hold_request(posted))),
        await refusal(open_book.post(debit(BANK, 1), credit(PAYER, 1), pending=True)),
        await refusal(close(open_book, PAYER)),
    ]
    await open_book.stub.VoidHold(void_hold_request(voided))

    assert [problem.reason for problem in problems] == [
        Reason.ACCOUNT_NOT_OPEN,
        Reason.ACCOUNT_NOT_OPEN,
        Reason.ACCOUNT_NOT_EMPTY,
    ]
    assert await pending(open_book, PAYER) == (0, 5)
    await reopen(open_book, PAYER)
    await open_book.stub.PostHold(post_hold_request(posted))
    assert await open_book.balance(PAYER) == (5, 0, 5)
