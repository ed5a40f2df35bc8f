"""Holds that end by themselves, through the contract, with a clock that the tests set."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial

import asyncpg
import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.timestamp_pb2 import Timestamp
from kente.ledger.v1 import ledger_pb2

from mesh.errors import Reason
from services.ledger.__main__ import build
from tests.harness import Infrastructure, TestMesh, eventually
from tests.ledger.book import BANK, FEES, PAYER, SCOPES, Book, credit, debit, refusal
from tests.ledger.chart import freeze, published
from tests.ledger.clock import SettableClock
from tests.ledger.orders import hold, pending, post_hold_request

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


async def test_a_hold_expires_on_a_frozen_account(held_book: Book, clock: SettableClock) -> None:
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
