"""Holding amounts, and what becomes of what is held, through the contract, with a clock that the tests set."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial

import asyncpg
import grpc
import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.timestamp_pb2 import Timestamp
from kente.ledger.v1 import ledger_pb2

from mesh.errors import Reason
from mesh.ids import new_id
from services.ledger.__main__ import build
from tests.harness import Infrastructure, TestMesh, eventually
from tests.ledger.book import BANK, FEES, PAYER, SCOPES, Book, credit, debit, refusal, transaction_request
from tests.ledger.chart import close, freeze, published, reopen
from tests.ledger.clock import SettableClock
from tests.ledger.orders import hold, pending, post_hold_request, reversal_request, void_hold_request
from tests.ledger.teller import told

START = datetime(2027, 3, 31, 23, 59, 30, tzinfo=UTC)
HELD, POSTED, VOIDED, EXPIRED = (
    ledger_pb2.Transaction.HOLD_STATE_HELD,
    ledger_pb2.Transaction.HOLD_STATE_POSTED,
    ledger_pb2.Transaction.HOLD_STATE_VOIDED,
    ledger_pb2.Transaction.HOLD_STATE_EXPIRED,
)
WALLET = "liabilities:wallet"


@pytest.fixture(scope="module")
async def clock() -> SettableClock:
    """The clock of the service."""
    return SettableClock(START)


@pytest.fixture(scope="module")
async def timed_ledger(infrastructure: Infrastructure, clock: SettableClock) -> AsyncIterator[TestMesh]:
    """A ledger with that clock."""
    mesh = TestMesh(infrastructure)
    limits = {"write_rate_per_second": 100_000, "read_rate_per_second": 100_000}
    await mesh.start("ledger", limits, build=partial(build, clock=clock))
    yield mesh
    await mesh.close()


@pytest.fixture
async def held_book(timed_ledger: TestMesh, tenant_id: str) -> Book:
    """A book with three empty accounts in GHS."""
    book = Book(timed_ledger.client("ledger", tenant_id, SCOPES), tenant_id)
    await book.open(BANK, PAYER, FEES)
    return book


def at(time: datetime) -> Timestamp:
    """A time of the contract."""
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp


async def test_what_is_held_changes_no_balance(held_book: Book) -> None:
    answer = await held_book.stub.CreateTransaction(
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
    assert await held_book.transaction(held.transaction_id) == held
    assert await held_book.balance(BANK) == (0, 0, 0)
    assert [await pending(held_book, name) for name in (BANK, PAYER, FEES)] == [(30, 0), (0, 20), (0, 10)]


async def test_all_of_a_hold_is_posted(held_book: Book) -> None:
    hold_id = await hold(held_book, 30)
    request = post_hold_request(hold_id, description="captured", metadata={"order": "7"})

    answer = await held_book.stub.PostHold(request)

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
    ended = await held_book.transaction(hold_id)
    assert (ended.hold_state, list(ended.later_transaction_ids)) == (POSTED, [request.transaction_id])
    assert await held_book.balance(BANK) == (30, 30, 0)
    assert await pending(held_book, BANK) == (0, 0)
    assert await held_book.transaction(request.transaction_id) == posted


async def test_a_part_of_a_hold_is_posted_and_the_rest_released(held_book: Book) -> None:
    held = await held_book.post(debit(BANK, 30), credit(PAYER, 20), credit(FEES, 10), pending=True)

    answer = await held_book.stub.PostHold(
        post_hold_request(held.transaction_id, debit(BANK, 13), credit(FEES, 1), credit(PAYER, 12))
    )

    assert [entry.account_name for entry in answer.transaction.entries] == [BANK, FEES, PAYER]
    assert [await held_book.balance(name) for name in (BANK, PAYER, FEES)] == [(13, 13, 0), (12, 0, 12), (1, 0, 1)]
    assert [await pending(held_book, name) for name in (BANK, PAYER, FEES)] == [(0, 0)] * 3


async def test_legs_of_one_account_may_be_split_up_to_what_is_held_there(held_book: Book) -> None:
    hold_id = await hold(held_book, 30)
    legs = [debit(BANK, 10), debit(BANK, 20), credit(PAYER, 30)]

    problem = await refusal(
        held_book.stub.PostHold(post_hold_request(hold_id, *legs, debit(BANK, 1), credit(PAYER, 1)))
    )
    await held_book.stub.PostHold(post_hold_request(hold_id, *legs))

    assert problem.reason is Reason.HOLD_EXCEEDED
    assert problem.metadata == {
        "account_name": BANK,
        "side": "DEBIT",
        "currency": "GHS",
        "held_minor": "30",
        "amount_minor": "31",
    }
    assert await held_book.balance(BANK) == (30, 30, 0)


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
    held_book: Book, legs: list[ledger_pb2.Leg], reason: Reason
) -> None:
    hold_id = await hold(held_book, 30)

    problem = await refusal(held_book.stub.PostHold(post_hold_request(hold_id, *legs)))

    assert problem.reason is reason
    assert (await held_book.transaction(hold_id)).hold_state == HELD
    assert await pending(held_book, BANK) == (30, 0)
    assert await held_book.balance(BANK) == (0, 0, 0)


async def test_a_voided_hold_leaves_nothing(held_book: Book) -> None:
    hold_id = await hold(held_book, 30)
    request = void_hold_request(hold_id, description="canceled", metadata={"why": "canceled"})

    void = (await held_book.stub.VoidHold(request)).transaction

    assert (void.kind, void.related_transaction_id, len(void.entries)) == (
        ledger_pb2.Transaction.KIND_HOLD_VOID,
        hold_id,
        0,
    )
    ended = await held_book.transaction(hold_id)
    assert (ended.hold_state, list(ended.later_transaction_ids)) == (VOIDED, [request.transaction_id])
    assert await held_book.balance(BANK) == (0, 0, 0)
    assert await pending(held_book, BANK) == (0, 0)
    assert await held_book.transaction(void.transaction_id) == void


async def test_a_hold_ends_once(held_book: Book) -> None:
    posted, voided = await hold(held_book, 30), await hold(held_book, 30)
    posting, void = post_hold_request(posted, debit(BANK, 1), credit(PAYER, 1)), void_hold_request(voided)
    await held_book.stub.PostHold(posting)
    await held_book.stub.VoidHold(void)

    for hold_id, ending, state in ((posted, posting, "POSTED"), (voided, void, "VOIDED")):
        for again in (
            held_book.stub.PostHold(post_hold_request(hold_id)),
            held_book.stub.VoidHold(void_hold_request(hold_id)),
        ):
            problem = await refusal(again)
            assert problem.reason is Reason.HOLD_NOT_PENDING
            assert problem.code is grpc.StatusCode.FAILED_PRECONDITION
            assert problem.metadata == {
                "transaction_id": hold_id,
                "state": state,
                "ended_by_transaction_id": ending.transaction_id,
            }
    assert await held_book.balance(BANK) == (1, 1, 0)


async def test_of_many_who_end_a_hold_at_once_one_does(held_book: Book) -> None:
    hold_id = await hold(held_book, 30)

    answers = await asyncio.gather(
        *(told(held_book.stub.PostHold(post_hold_request(hold_id))) for _ in range(10)),
        *(told(held_book.stub.VoidHold(void_hold_request(hold_id))) for _ in range(10)),
    )

    assert sorted(answer.reason for answer in answers) == ["HOLD_NOT_PENDING"] * 19 + ["OK"]


async def test_only_a_hold_can_be_ended(held_book: Book) -> None:
    posting = await held_book.post(debit(BANK, 5), credit(PAYER, 5))
    unknown = new_id("txn")

    no_hold = await refusal(held_book.stub.PostHold(post_hold_request(posting.transaction_id)))
    missing = await refusal(held_book.stub.VoidHold(void_hold_request(unknown)))

    assert (no_hold.reason, no_hold.metadata["state"]) == (Reason.HOLD_NOT_PENDING, "NONE")
    assert (missing.reason, missing.metadata) == (Reason.RESOURCE_NOT_FOUND, {"transaction_id": unknown})


async def test_what_posts_or_voids_a_hold_is_no_hold_and_no_hold_is_reversed(held_book: Book) -> None:
    posted, voided, still_held = [await hold(held_book, 5) for _ in range(3)]
    posting, void = post_hold_request(posted), void_hold_request(voided)
    await held_book.stub.PostHold(posting)
    await held_book.stub.VoidHold(void)

    for transaction_id in (posting.transaction_id, void.transaction_id):
        problem = await refusal(held_book.stub.PostHold(post_hold_request(transaction_id)))
        assert (problem.reason, problem.metadata["state"]) == (Reason.HOLD_NOT_PENDING, "NONE")
    for transaction_id, kind in ((still_held, "HOLD"), (posted, "HOLD"), (void.transaction_id, "HOLD_VOID")):
        problem = await refusal(held_book.stub.ReverseTransaction(reversal_request(transaction_id)))
        assert problem.reason is Reason.TRANSACTION_NOT_REVERSIBLE
        assert problem.metadata == {"transaction_id": transaction_id, "kind": kind}


async def test_another_tenants_hold_looks_like_none(held_book: Book, timed_ledger: TestMesh) -> None:
    hold_id = await hold(held_book, 5)
    neighbour_id = new_id("ten")
    neighbour = Book(timed_ledger.client("ledger", neighbour_id, SCOPES), neighbour_id)
    await neighbour.open(BANK, PAYER)

    for call in (
        neighbour.stub.PostHold(post_hold_request(hold_id)),
        neighbour.stub.VoidHold(void_hold_request(hold_id)),
    ):
        assert (await refusal(call)).reason is Reason.RESOURCE_NOT_FOUND
    assert await pending(held_book, BANK) == (5, 0)


async def test_limits_count_what_is_held(held_book: Book) -> None:
    await held_book.open(WALLET, limits=ledger_pb2.AccountLimits(min_balance_minor=0, max_balance_minor=100))
    await held_book.post(debit(BANK, 50), credit(WALLET, 50))
    spent = await hold(held_book, 30, debited=WALLET, credited=FEES)
    await hold(held_book, 45, debited=BANK, credited=WALLET)

    too_low = await refusal(held_book.post(debit(WALLET, 21), credit(FEES, 21)))
    too_high = await refusal(held_book.post(debit(BANK, 6), credit(WALLET, 6), pending=True))

    assert (await held_book.account(WALLET)).available.amount_minor == 20
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
    await held_book.stub.PostHold(post_hold_request(spent, debit(WALLET, 10), credit(FEES, 10)))
    await held_book.post(debit(WALLET, 40), credit(FEES, 40))
    assert await held_book.balance(WALLET) == (0, 50, 50)


async def test_a_frozen_account_keeps_its_holds_which_can_be_voided_only(held_book: Book) -> None:
    posted, voided = await hold(held_book, 5), await hold(held_book, 6)
    await freeze(held_book, PAYER)

    problems = [
        await refusal(held_book.stub.PostHold(post_hold_request(posted))),
        await refusal(held_book.post(debit(BANK, 1), credit(PAYER, 1), pending=True)),
        await refusal(close(held_book, PAYER)),
    ]
    await held_book.stub.VoidHold(void_hold_request(voided))

    assert [problem.reason for problem in problems] == [
        Reason.ACCOUNT_NOT_OPEN,
        Reason.ACCOUNT_NOT_OPEN,
        Reason.ACCOUNT_NOT_EMPTY,
    ]
    assert await pending(held_book, PAYER) == (0, 5)
    await reopen(held_book, PAYER)
    await held_book.stub.PostHold(post_hold_request(posted))
    assert await held_book.balance(PAYER) == (5, 0, 5)


async def test_a_hold_expires_at_its_time_and_not_before(held_book: Book, clock: SettableClock) -> None:
    expire_time = clock.now + timedelta(seconds=60)
    hold_id = await hold(held_book, 30, expire_time=at(expire_time))

    clock.now = expire_time - timedelta(microseconds=1)
    assert (await held_book.transaction(hold_id)).hold_state == HELD
    assert await pending(held_book, BANK) == (30, 0)
    clock.now = expire_time

    # Whoever looks at that very moment sees it gone.
    assert await pending(held_book, BANK) == (0, 0)
    ended = await held_book.transaction(hold_id)
    assert ended.hold_state == EXPIRED
    (expiry_id,) = ended.later_transaction_ids
    expiry = await held_book.transaction(expiry_id)
    assert (expiry.kind, expiry.related_transaction_id, len(expiry.entries)) == (
        ledger_pb2.Transaction.KIND_HOLD_EXPIRY,
        hold_id,
        0,
    )
    assert expiry.effective_time.ToDatetime(tzinfo=UTC) == expire_time
    problem = await refusal(held_book.stub.PostHold(post_hold_request(hold_id)))
    assert problem.reason is Reason.HOLD_NOT_PENDING
    assert problem.metadata == {
        "transaction_id": hold_id,
        "state": "EXPIRED",
        "ended_by_transaction_id": expiry_id,
    }


async def test_a_posting_at_the_time_of_an_expiry_finds_the_amount_released(
    held_book: Book, clock: SettableClock
) -> None:
    await held_book.open(WALLET, limits=ledger_pb2.AccountLimits(min_balance_minor=0))
    await held_book.post(debit(BANK, 50), credit(WALLET, 50))
    await hold(held_book, 50, debited=WALLET, credited=FEES, expire_time=at(clock.now + timedelta(seconds=9)))
    clock.advance(9)

    spent = await held_book.post(debit(WALLET, 50), credit(FEES, 50))

    # The expiry comes before it in the book.
    assert spent.leaf_index == 3
    assert await held_book.balance(WALLET) == (0, 50, 50)


async def test_holds_expire_in_the_order_of_their_times_and_say_so(
    held_book: Book, clock: SettableClock, infrastructure: Infrastructure, admin: asyncpg.Connection
) -> None:
    """Nobody asks for anything: the service looks by itself."""
    second, first, third = [
        await hold(held_book, amount, expire_time=at(clock.now + timedelta(seconds=seconds)))
        for amount, seconds in ((1, 20), (2, 10), (3, 20))
    ]
    never = await hold(held_book, 4)
    clock.advance(3_600)

    async def all_expired() -> bool:
        left = await admin.fetchval(
            "SELECT count(*) FROM holds WHERE tenant_id = $1 AND state = 'held'", held_book.tenant_id
        )
        return bool(left == 1)

    await eventually(all_expired)
    events = await published(infrastructure, held_book, "hold", "ledger.hold.expired", 3)

    assert [event["subject"] for event in events] == [first, second, third]
    for event in events:
        expiry = ParseDict(event["data"], ledger_pb2.Transaction())
        assert expiry == await held_book.transaction(expiry.transaction_id)
        assert expiry.related_transaction_id == event["subject"]
    assert (await held_book.transaction(never)).hold_state == HELD
    assert await pending(held_book, BANK) == (4, 0)


async def test_a_hold_expires_on_a_frozen_account_and_in_a_closed_period(held_book: Book, clock: SettableClock) -> None:
    hold_id = await hold(held_book, 5, expire_time=at(clock.now + timedelta(seconds=10)))
    await freeze(held_book, PAYER)
    clock.advance(3_600)

    assert await pending(held_book, PAYER) == (0, 0)
    assert (await held_book.transaction(hold_id)).hold_state == EXPIRED


async def test_a_hold_that_is_over_already_is_refused(held_book: Book, clock: SettableClock) -> None:
    for expire_time in (clock.now, clock.now - timedelta(days=1)):
        problem = await refusal(hold(held_book, 5, expire_time=at(expire_time)))
        assert problem.reason is Reason.FIELD_INVALID
        assert [violation.field for violation in problem.violations] == ["expire_time"]


async def test_what_is_posted_at_once_never_expires(held_book: Book, clock: SettableClock) -> None:
    problem = await refusal(
        held_book.post(debit(BANK, 5), credit(PAYER, 5), expire_time=at(clock.now + timedelta(days=1)))
    )

    assert problem.reason is Reason.FIELD_INVALID
    assert [violation.field for violation in problem.violations] == ["expire_time"]


async def test_a_hold_posted_in_time_does_not_expire(held_book: Book, clock: SettableClock) -> None:
    hold_id = await hold(held_book, 5, expire_time=at(clock.now + timedelta(seconds=10)))
    await held_book.stub.PostHold(post_hold_request(hold_id))
    clock.advance(3_600)

    assert await held_book.balance(BANK) == (5, 5, 0)
    ended = await held_book.transaction(hold_id)
    assert (ended.hold_state, len(ended.later_transaction_ids)) == (POSTED, 1)
