"""Posting, through the contract."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import asyncpg
import grpc
import nats
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp
from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1.ledger_service_pb2 import CreateTransactionRequest, GetTransactionRequest
from nats.js.errors import NotFoundError

from mesh.bus import STREAM
from mesh.errors import Reason
from mesh.ids import new_id
from mesh.money import INT64_MAX
from tests.harness import Infrastructure, TestMesh, eventually
from tests.ledger.book import (
    BANK,
    FEES,
    PAYER,
    SCOPES,
    Book,
    credit,
    debit,
    refusal,
    set_state,
    transaction_request,
)


async def test_a_posting_is_booked_with_the_balances_after_it(open_book: Book) -> None:
    before = datetime.now(UTC)
    transaction_id = new_id("txn")

    transaction = await open_book.post(
        debit(BANK, 1_000),
        credit(PAYER, 985),
        credit(FEES, 15),
        transaction_id=transaction_id,
        description="payment",
        source_id="pay_1",
    )

    assert (transaction.transaction_id, transaction.description, transaction.source_id) == (
        transaction_id,
        "payment",
        "pay_1",
    )
    assert [
        (entry.sequence, entry.account_name, entry.side, entry.amount.amount_minor, entry.balance_after.amount_minor)
        for entry in transaction.entries
    ] == [
        (1, BANK, ledger_pb2.SIDE_DEBIT, 1_000, 1_000),
        (2, PAYER, ledger_pb2.SIDE_CREDIT, 985, 985),
        (3, FEES, ledger_pb2.SIDE_CREDIT, 15, 15),
    ]
    created = transaction.create_time.ToDatetime(tzinfo=UTC)
    assert before - timedelta(seconds=1) < created < datetime.now(UTC) + timedelta(seconds=1)
    assert transaction.effective_time == transaction.create_time
    assert await open_book.balance(BANK) == (1_000, 1_000, 0)
    assert await open_book.balance(PAYER) == (985, 0, 985)
    assert transaction == await open_book.transaction(transaction_id)


async def test_a_balance_falls_below_zero_on_the_other_side(open_book: Book) -> None:
    transaction = await open_book.post(credit(BANK, 30), debit(PAYER, 30))

    assert [entry.balance_after.amount_minor for entry in transaction.entries] == [-30, -30]
    assert await open_book.balance(BANK) == (-30, 0, 30)
    assert await open_book.balance(PAYER) == (-30, 30, 0)


async def test_an_account_can_occur_in_several_legs(open_book: Book) -> None:
    transaction = await open_book.post(debit(BANK, 50), credit(BANK, 20), credit(PAYER, 60), debit(BANK, 30))

    assert [entry.balance_after.amount_minor for entry in transaction.entries] == [50, 30, 60, 60]
    assert await open_book.balance(BANK) == (60, 80, 20)


async def test_each_currency_balances_by_itself(open_book: Book) -> None:
    await open_book.open("assets:kes", "equity:kes", currency="KES")
    await open_book.open("assets:usdc", "equity:usdc", currency="USDC")

    await open_book.post(
        debit(BANK, 100),
        credit("equity:kes", 900, "KES"),
        credit(PAYER, 100),
        debit("assets:kes", 900, "KES"),
        debit("assets:usdc", 5, "USDC"),
        credit("equity:usdc", 5, "USDC"),
    )

    assert await open_book.balance("assets:kes") == (900, 900, 0)
    assert await open_book.balance("assets:usdc") == (5, 5, 0)
    assert await open_book.balance(BANK) == (100, 100, 0)


async def test_the_time_of_effect_is_kept_to_the_microsecond(open_book: Book) -> None:
    effective_time = Timestamp(seconds=946_684_800, nanos=123_456_789)

    transaction = await open_book.post(debit(BANK, 1), credit(PAYER, 1), effective_time=effective_time)

    assert transaction.effective_time == Timestamp(seconds=946_684_800, nanos=123_456_000)
    assert transaction == await open_book.transaction(transaction.transaction_id)


async def test_the_largest_amount_fits_and_one_more_does_not(open_book: Book) -> None:
    await open_book.post(debit(BANK, INT64_MAX), credit(PAYER, INT64_MAX))

    problem = await refusal(open_book.post(credit(FEES, 1), debit(BANK, 1)))

    assert problem.reason is Reason.BALANCE_OVERFLOW
    assert problem.code is grpc.StatusCode.OUT_OF_RANGE
    assert problem.metadata == {"account_name": BANK, "side": "DEBIT"}
    assert await open_book.balance(BANK) == (INT64_MAX, INT64_MAX, 0)
    assert await open_book.balance(FEES) == (0, 0, 0)
    # The other side of the full account has room, down to the smallest balance there is.
    await open_book.post(credit(BANK, INT64_MAX), debit(FEES, INT64_MAX))
    assert await open_book.balance(BANK) == (0, INT64_MAX, INT64_MAX)
    assert await open_book.balance(FEES) == (-INT64_MAX, INT64_MAX, 0)


async def test_legs_that_overflow_an_account_only_together_are_refused(open_book: Book) -> None:
    problem = await refusal(
        open_book.post(debit(BANK, INT64_MAX), credit(PAYER, INT64_MAX), debit(BANK, 1), credit(FEES, 1))
    )

    assert problem.reason is Reason.BALANCE_OVERFLOW
    assert await open_book.entries() == []


async def test_an_unbalanced_posting_is_refused(open_book: Book) -> None:
    problem = await refusal(open_book.post(debit(BANK, 100), credit(PAYER, 99)))

    assert problem.reason is Reason.TRANSACTION_UNBALANCED
    assert problem.metadata == {
        "currency": "GHS",
        "debits_minor": "100",
        "credits_minor": "99",
        "difference_minor": "1",
    }
    assert await open_book.entries() == []


async def test_an_unknown_account_is_named(open_book: Book) -> None:
    problem = await refusal(open_book.post(debit(BANK, 1), credit("liabilities:nobody", 1)))

    assert problem.reason is Reason.ACCOUNT_NOT_FOUND
    assert problem.metadata == {"account_name": "liabilities:nobody"}
    assert await open_book.balance(BANK) == (0, 0, 0)


async def test_a_tenant_without_any_account_is_told_which_is_missing(book: Book) -> None:
    problem = await refusal(book.post(debit(BANK, 1), credit(PAYER, 1)))

    assert problem.reason is Reason.ACCOUNT_NOT_FOUND


async def test_another_tenants_account_looks_like_none(open_book: Book, ledger: TestMesh) -> None:
    neighbour_id = new_id("ten")
    neighbour = Book(ledger.client("ledger", neighbour_id, SCOPES), neighbour_id)
    await neighbour.open(BANK)
    transaction = await open_book.post(debit(BANK, 5), credit(PAYER, 5))

    problem = await refusal(neighbour.post(debit(BANK, 1), credit(PAYER, 1)))
    assert problem.reason is Reason.ACCOUNT_NOT_FOUND
    assert problem.metadata == {"account_name": PAYER}
    unseen = await refusal(neighbour.transaction(transaction.transaction_id))
    assert unseen.reason is Reason.RESOURCE_NOT_FOUND
    assert await neighbour.entries(account_name=PAYER) == []
    assert await neighbour.entries(source_id=transaction.source_id) == []
    assert await open_book.balance(PAYER) == (5, 0, 5)


async def test_a_transaction_id_of_another_tenant_is_free(open_book: Book, ledger: TestMesh) -> None:
    neighbour_id = new_id("ten")
    neighbour = Book(ledger.client("ledger", neighbour_id, SCOPES), neighbour_id)
    await neighbour.open(BANK, PAYER)
    mine = await open_book.post(debit(BANK, 5), credit(PAYER, 5))

    theirs = await neighbour.post(debit(BANK, 7), credit(PAYER, 7), transaction_id=mine.transaction_id)

    assert theirs.entries[0].sequence == 1
    assert await open_book.transaction(mine.transaction_id) == mine


@pytest.mark.parametrize("state", ["frozen", "closed"])
async def test_only_an_open_account_is_posted_to(open_book: Book, admin: asyncpg.Connection, state: str) -> None:
    await set_state(admin, open_book, PAYER, state)

    problem = await refusal(open_book.post(debit(BANK, 1), credit(PAYER, 1)))

    assert problem.reason is Reason.ACCOUNT_NOT_OPEN
    assert problem.metadata == {"account_name": PAYER, "state": state.upper()}
    account = await open_book.account(PAYER)
    assert account.state == ledger_pb2.Account.State.Value(f"STATE_{state.upper()}")
    await set_state(admin, open_book, PAYER, "opened")
    await open_book.post(debit(BANK, 1), credit(PAYER, 1))


@pytest.mark.parametrize("currency", ["KES", "ZZZ"])
async def test_a_leg_in_another_currency_than_its_account_is_refused(open_book: Book, currency: str) -> None:
    """An asset that nobody knows is like any other: a tenant may have made it up."""
    problem = await refusal(open_book.post(debit(BANK, 1, currency), credit(PAYER, 1, currency)))

    assert problem.reason is Reason.ACCOUNT_CURRENCY_MISMATCH
    assert problem.metadata == {"account_name": BANK, "account_currency": "GHS", "leg_currency": currency}


async def test_an_asset_of_the_tenants_own_is_posted(open_book: Book) -> None:
    await open_book.open("assets:points", "liabilities:points", currency="POINTS", scale=3)

    await open_book.post(debit("assets:points", 1_500, "POINTS"), credit("liabilities:points", 1_500, "POINTS"))

    assert await open_book.balance("assets:points") == (1_500, 1_500, 0)


def bad_requests() -> dict[str, tuple[CreateTransactionRequest, str]]:
    """Requests that break a rule of the contract, with the field at fault."""
    pair = (debit(BANK, 5), credit(PAYER, 5))
    return {
        "request id": (transaction_request(*pair, request_id="7"), "request_id"),
        "transaction id": (transaction_request(*pair, transaction_id="txn_1"), "transaction_id"),
        "transaction id of another kind": (transaction_request(*pair, transaction_id=new_id("pay")), "transaction_id"),
        "long description": (transaction_request(*pair, description="x" * 201), "description"),
        "NUL in description": (transaction_request(*pair, description="a\x00"), "description"),
        "long source": (transaction_request(*pair, source_id="x" * 65), "source_id"),
        "NUL in source": (transaction_request(*pair, source_id="\x00"), "source_id"),
        "no legs": (transaction_request(), "legs"),
        "one leg": (transaction_request(debit(BANK, 5)), "legs"),
        "many legs": (transaction_request(*pair * 51), "legs"),
        "no amount": (
            transaction_request(pair[0], ledger_pb2.Leg(account_name=PAYER, side=ledger_pb2.SIDE_CREDIT)),
            "legs[1].amount",
        ),
        "amount zero": (transaction_request(pair[0], credit(PAYER, 0)), "legs[1].amount"),
        "amount negative": (transaction_request(debit(BANK, -5), pair[1]), "legs[0].amount"),
        "no currency": (transaction_request(pair[0], credit(PAYER, 5, "")), "legs[1].amount.currency"),
        "no side": (
            transaction_request(pair[0], ledger_pb2.Leg(account_name=PAYER, amount=pair[1].amount)),
            "legs[1].side",
        ),
        "bad account name": (transaction_request(pair[0], credit("Liabilities Payer", 5)), "legs[1].account_name"),
        "year 10000": (
            transaction_request(*pair, effective_time=Timestamp(seconds=253_402_300_800)),
            "effective_time",
        ),
        "negative nanos": (transaction_request(*pair, effective_time=Timestamp(nanos=-1)), "effective_time"),
    }


@pytest.mark.parametrize("name", bad_requests())
async def test_a_bad_field_is_named_and_nothing_is_booked(open_book: Book, name: str) -> None:
    request, field = bad_requests()[name]

    problem = await refusal(open_book.stub.CreateTransaction(request))

    assert problem.reason is Reason.FIELD_INVALID
    assert problem.code is grpc.StatusCode.INVALID_ARGUMENT
    assert field in [violation.field for violation in problem.violations]
    assert await open_book.entries() == []


async def test_a_hundred_legs_are_booked_as_one(open_book: Book) -> None:
    legs = [leg for number in range(1, 51) for leg in (debit(BANK, number), credit(PAYER, number))]

    transaction = await open_book.post(*legs)

    assert [entry.sequence for entry in transaction.entries] == list(range(1, 101))
    assert transaction == await open_book.transaction(transaction.transaction_id)
    assert await open_book.balance(BANK) == (1_275, 1_275, 0)


async def test_reading_a_transaction_that_does_not_exist_says_so(book: Book) -> None:
    transaction_id = new_id("txn")

    problem = await refusal(book.transaction(transaction_id))

    assert problem.reason is Reason.RESOURCE_NOT_FOUND
    assert problem.metadata == {"transaction_id": transaction_id}
    malformed = await refusal(book.stub.GetTransaction(GetTransactionRequest(transaction_id="txn_\x00")))
    assert malformed.reason is Reason.FIELD_INVALID


async def test_a_posting_is_published_once_and_a_refused_one_never(
    open_book: Book, infrastructure: Infrastructure
) -> None:
    transaction = await open_book.post(debit(BANK, 5), credit(PAYER, 5), description="published")
    await open_book.post(
        debit(BANK, 5), credit(PAYER, 5), description="published", transaction_id=transaction.transaction_id
    )
    await refusal(open_book.post(debit(BANK, 5), credit(PAYER, 6)))
    await refusal(open_book.post(debit(BANK, 5), credit("assets:nowhere", 5)))
    last = await open_book.post(debit(BANK, 1), credit(PAYER, 1))
    connection = await nats.connect(infrastructure.nats.url)
    jetstream = connection.jetstream()
    subject = f"kente.{open_book.tenant_id}.ledger.transactions.booked"

    async def last_event() -> bool:
        try:
            message = await jetstream.get_last_msg(STREAM, subject)
        except NotFoundError:
            return False
        return last.transaction_id in str(message.data)

    await eventually(last_event)
    subscription = await jetstream.subscribe(subject, ordered_consumer=True)
    events = [json.loads((await subscription.next_msg()).data) for _ in range(2)]
    with pytest.raises(TimeoutError):
        await subscription.next_msg(timeout=0.2)
    await connection.close()

    booked = [one for event in events for one in event["data"]["transactions"]]
    assert [one["transactionId"] for one in booked] == [transaction.transaction_id, last.transaction_id]
    assert events[0]["type"] == "ledger.transactions.booked"
    assert events[0]["kentetenant"] == open_book.tenant_id
    assert booked[0] == MessageToDict(transaction)
