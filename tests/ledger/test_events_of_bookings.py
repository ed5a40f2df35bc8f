"""What the bus and the audit log are told of what is booked."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC
from typing import Any

import asyncpg
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from hypothesis import given, settings
from hypothesis import strategies as st
from kente.ledger.v1 import ledger_pb2

from mesh.errors import Reason
from mesh.ids import new_id
from mesh.outbox import MAX_EVENT_BYTES
from services.ledger.convert.postings import transaction_to_json, transaction_to_proto
from services.ledger.model.accounts import Side
from services.ledger.model.postings import Entry, HoldState, Kind, Transaction
from tests.harness import Infrastructure, TestMesh
from tests.ledger.book import BANK, FEES, PAYER, Book, credit, debit, new_request_id, refusal, transaction_request
from tests.ledger.chart import published
from tests.ledger.orders import (
    hold,
    post_hold_request,
    reversal_request,
    send_transfers,
    transfer,
    transfers_request,
    void_hold_request,
)

BOOKED, TRANSFERRED = "ledger.transactions.booked", "ledger.transfers.booked"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACED = (("traceparent", f"00-{TRACE_ID}-00f067aa0ba902b7-01"),)

TEXTS = st.text(max_size=8)
NAMES = st.text(min_size=1, max_size=8)
AMOUNTS = st.integers(-(2**63), 2**63 - 1)
TIMES = st.datetimes(timezones=st.just(UTC)).flatmap(
    # In whole seconds, milliseconds or microseconds, which JSON writes with as many digits.
    lambda time: st.sampled_from([time.replace(microsecond=0), time.replace(microsecond=250_000), time])
)
ENTRIES = st.builds(
    Entry,
    sequence=st.integers(1, 2**63 - 1),
    account_name=NAMES,
    side=st.sampled_from(Side),
    pending=st.booleans(),
    amount_minor=st.integers(1, 2**63 - 1),
    currency=st.sampled_from(["GHS", "POINTS"]),
    balance_after_minor=AMOUNTS | st.just(0),
)
TRANSACTIONS = st.builds(
    Transaction,
    transaction_id=NAMES,
    kind=st.sampled_from(Kind),
    book_name=NAMES,
    leaf_index=st.integers(0, 2**63 - 1) | st.just(0),
    first_sequence=st.integers(1, 2**63 - 1),
    entries=st.lists(ENTRIES, max_size=3).map(tuple),
    description=TEXTS,
    source_id=TEXTS,
    metadata=st.dictionaries(TEXTS, TEXTS, max_size=3),
    effective_time=st.none() | TIMES,
    expire_time=st.none() | TIMES,
    related_id=TEXTS,
    create_time=TIMES,
    hold_state=st.none() | st.sampled_from(HoldState),
    later_ids=st.lists(TEXTS, max_size=2).map(tuple),
)


@settings(max_examples=300, deadline=None)
@given(transaction=TRANSACTIONS)
def test_a_transaction_is_told_as_the_json_of_its_message(transaction: Transaction) -> None:
    assert transaction_to_json(transaction) == MessageToDict(transaction_to_proto(transaction))


def transactions_of(events: list[dict[str, Any]]) -> list[ledger_pb2.Transaction]:
    """The transactions that events list."""
    return [ParseDict(one, ledger_pb2.Transaction()) for event in events for one in event["data"]["transactions"]]


async def audit_rows(admin: asyncpg.Connection, book: Book, method: str) -> list[asyncpg.Record]:
    """What the audit log says of a tenant's calls of a method."""
    return await admin.fetch(
        "SELECT *, xmin::text AS writer FROM audit_log WHERE tenant_id = $1 AND method LIKE '%/' || $2"
        " ORDER BY sequence",
        book.tenant_id,
        method,
    )


async def test_every_kind_of_transaction_is_announced_as_it_was_answered(
    open_book: Book, infrastructure: Infrastructure
) -> None:
    posting = await open_book.post(debit(BANK, 5), credit(PAYER, 5), description="rent", metadata={"a": "1"})
    first, second = await hold(open_book, 6), await hold(open_book, 7)
    answers: list[Any] = [
        await open_book.stub.PostHold(post_hold_request(first, debit(BANK, 1), credit(PAYER, 1))),
        await open_book.stub.VoidHold(void_hold_request(second)),
        await open_book.stub.ReverseTransaction(reversal_request(posting.transaction_id)),
    ]

    events = await published(infrastructure, open_book, "transactions", BOOKED, 6)

    told = transactions_of(events)
    assert told[0] == posting
    assert [one.transaction_id for one in told[1:3]] == [first, second]
    assert {one.hold_state for one in told[1:3]} == {ledger_pb2.Transaction.HOLD_STATE_HELD}
    assert told[3:] == [answer.transaction for answer in answers]
    assert {event["subject"] for event in events} == {open_book.tenant_id}
    assert [event["data"]["firstLeafIndex"] for event in events] == [str(number) for number in range(6)]


async def test_a_batch_is_announced_in_the_order_of_the_book(open_book: Book, infrastructure: Infrastructure) -> None:
    await asyncio.gather(*(open_book.post(debit(BANK, 5), credit(PAYER, 5)) for _ in range(30)))
    await send_transfers(open_book, *(transfer(1) for _ in range(20)), transfer(1, BANK, "assets:nowhere"))
    last = await open_book.post(debit(BANK, 1), credit(PAYER, 1))

    events: list[dict[str, Any]] = []
    count = 0
    while not events or int(events[-1]["data"]["lastLeafIndex"]) < last.leaf_index:
        count += 1
        events = await published(infrastructure, open_book, "*", BOOKED, count)
    events = [event for event in events if event["type"] in {BOOKED, TRANSFERRED}]

    ranges = [(int(event["data"]["firstLeafIndex"]), int(event["data"]["lastLeafIndex"])) for event in events]
    assert [first for first, _ in ranges] == [0, *(last + 1 for _, last in ranges[:-1])]
    assert [event["data"]["transactionCount"] for event in events] == [last - first + 1 for first, last in ranges]
    sequences = [(int(event["data"]["firstSequence"]), int(event["data"]["lastSequence"])) for event in events]
    assert [first for first, _ in sequences] == [1, *(last + 1 for _, last in sequences[:-1])]
    assert len([event for event in events if event["type"] == TRANSFERRED]) == 1


async def test_transfers_of_one_call_are_announced_by_where_they_are(
    open_book: Book, infrastructure: Infrastructure
) -> None:
    request_id = new_request_id()
    request = transfers_request([transfer(1), transfer(1, BANK, "assets:nowhere"), transfer(2)], request_id=request_id)
    await open_book.stub.CreateTransfers(request, metadata=TRACED)
    # One whose transfers were all refused, or booked before, has nothing to announce.
    await send_transfers(open_book, transfer(1, BANK, "assets:nowhere"))
    await open_book.stub.CreateTransfers(request)
    await send_transfers(open_book, transfer(3))

    first, second = await published(infrastructure, open_book, "transfers", TRANSFERRED, 2)

    assert first["data"] == {
        "requestId": request_id,
        "transactionCount": 2,
        "firstLeafIndex": "0",
        "lastLeafIndex": "1",
        "firstSequence": "1",
        "lastSequence": "4",
    }
    assert first["traceparent"].split("-")[1] == TRACE_ID
    assert (second["data"]["firstLeafIndex"], second["data"]["firstSequence"]) == ("2", "5")


async def test_a_batch_too_large_for_one_event_is_told_by_several(
    open_book: Book, infrastructure: Infrastructure
) -> None:
    names = [f"assets:{'x' * 180}:{number}" for number in range(50)]
    await open_book.open(*names)
    legs = [debit(name, 1) for name in names] + [credit(name, 1) for name in names]
    metadata = {f"name_{number}": "\u20ac" * 80 for number in range(32)}
    asked = [transaction_request(*legs, metadata=metadata, description="\u20ac" * 200) for _ in range(12)]

    answers = await asyncio.gather(*(open_book.stub.CreateTransaction(request) for request in asked))

    events = await published(infrastructure, open_book, "transactions", BOOKED)
    while sum(event["data"]["transactionCount"] for event in events) < len(asked):
        events = await published(infrastructure, open_book, "transactions", BOOKED, len(events) + 1)
    told = {one.transaction_id: one for one in transactions_of(events)}
    assert [told[answer.transaction.transaction_id] for answer in answers] == [answer.transaction for answer in answers]
    assert max(len(json.dumps(event)) for event in events) < MAX_EVENT_BYTES


async def test_the_trace_of_a_call_goes_on_in_its_event_and_its_audit_row(
    open_book: Book, infrastructure: Infrastructure, admin: asyncpg.Connection
) -> None:
    request = transaction_request(debit(BANK, 5), credit(PAYER, 5))

    await open_book.stub.CreateTransaction(request, metadata=TRACED)

    (event,) = await published(infrastructure, open_book, "transactions", BOOKED)
    (row,) = await audit_rows(admin, open_book, "CreateTransaction")
    assert event["traceparent"].split("-")[1] == TRACE_ID
    assert row["trace_id"] == TRACE_ID


async def test_who_booked_is_written_in_the_transaction_of_the_booking(
    open_book: Book, admin: asyncpg.Connection
) -> None:
    request = transaction_request(debit(BANK, 5), credit(PAYER, 5))

    await open_book.stub.CreateTransaction(request)

    (row,) = await audit_rows(admin, open_book, "CreateTransaction")
    writer = await admin.fetchval(
        "SELECT xmin::text FROM transactions WHERE tenant_id = $1 AND transaction_id = $2",
        open_book.tenant_id,
        request.transaction_id,
    )
    assert row["writer"] == writer
    assert row["subject"].startswith("key_")
    assert (row["request_id"], row["outcome"]) == (request.request_id, "OK")
    assert json.loads(row["resources"]) == {"transaction_id": request.transaction_id}


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({}, "OK"),
        ({"description": "other"}, "RESOURCE_ALREADY_EXISTS"),
        ({"transaction_id": new_id("txn"), "legs": [debit(BANK, 5), credit(PAYER, 6)]}, "TRANSACTION_UNBALANCED"),
        ({"transaction_id": new_id("txn"), "legs": [debit(BANK, 5), credit("assets:x", 5)]}, "ACCOUNT_NOT_FOUND"),
    ],
)
async def test_what_a_caller_is_told_is_what_the_audit_log_says(
    open_book: Book, admin: asyncpg.Connection, fields: dict[str, Any], outcome: str
) -> None:
    first = transaction_request(debit(BANK, 5), credit(PAYER, 5))
    await open_book.stub.CreateTransaction(first)
    values = {"legs": first.legs, "transaction_id": first.transaction_id} | fields
    legs = values.pop("legs")

    for _ in range(2):
        request = transaction_request(*legs, **values)
        if outcome == "OK":
            await open_book.stub.CreateTransaction(request)
        else:
            assert (await refusal(open_book.stub.CreateTransaction(request))).reason_name == outcome

    rows = await audit_rows(admin, open_book, "CreateTransaction")
    assert [row["outcome"] for row in rows] == ["OK", outcome, outcome]


async def test_a_request_id_used_again_is_in_the_audit_log(open_book: Book, admin: asyncpg.Connection) -> None:
    request_id = new_request_id()
    await open_book.post(debit(BANK, 5), credit(PAYER, 5), request_id=request_id)

    problem = await refusal(open_book.post(debit(BANK, 6), credit(PAYER, 6), request_id=request_id))

    assert problem.reason is Reason.REQUEST_ID_REUSED
    rows = await audit_rows(admin, open_book, "CreateTransaction")
    assert [row["outcome"] for row in rows] == ["OK", "REQUEST_ID_REUSED"]


async def test_a_call_for_many_transfers_is_one_row(open_book: Book, admin: asyncpg.Connection) -> None:
    await send_transfers(open_book, transfer(1), transfer(1, BANK, "assets:nowhere"), transfer(1, PAYER, FEES))

    (row,) = await audit_rows(admin, open_book, "CreateTransfers")

    assert (row["outcome"], json.loads(row["resources"])) == ("OK", {})


async def test_whoever_ends_a_hold_or_reverses_is_in_the_audit_log(
    open_book: Book, admin: asyncpg.Connection, ledger: TestMesh
) -> None:
    posting = await open_book.post(debit(BANK, 5), credit(PAYER, 5))
    peer = Book(ledger.peer("ledger", "payments", open_book.tenant_id), open_book.tenant_id)
    await peer.stub.PostHold(post_hold_request(await hold(peer, 6)))
    await peer.stub.VoidHold(void_hold_request(await hold(peer, 6)))
    await peer.stub.ReverseTransaction(reversal_request(posting.transaction_id))

    for method in ("PostHold", "VoidHold", "ReverseTransaction"):
        (row,) = await audit_rows(admin, open_book, method)
        assert (row["subject"], row["outcome"]) == ("spiffe://kente/payments", "OK")
