"""Postings that are sent again, through the contract: each is booked once."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.errors import Reason
from mesh.ids import new_id
from tests.ledger.book import BANK, FEES, PAYER, Book, credit, debit, new_request_id, refusal, transaction_request
from tests.ledger.chart import freeze
from tests.ledger.teller import money, told


def balance_of(account_name: str, amount_minor: int) -> ledger_pb2.BalanceAssertion:
    """A balance in GHS that an account must have."""
    return ledger_pb2.BalanceAssertion(account_name=account_name, balance=money(amount_minor, "GHS"))


async def test_the_same_id_and_content_give_the_same_answer_whoever_asks(open_book: Book) -> None:
    legs = (debit(BANK, 5), credit(PAYER, 5))
    first_request = transaction_request(*legs, description="once")
    resend = transaction_request(*legs, description="once", transaction_id=first_request.transaction_id)

    first = await open_book.stub.CreateTransaction(first_request)
    await open_book.post(*legs)
    again = await open_book.stub.CreateTransaction(first_request)
    by_another_request = await open_book.stub.CreateTransaction(resend)

    as_bytes = {answer.SerializeToString(deterministic=True) for answer in (first, again, by_another_request)}
    assert len(as_bytes) == 1
    assert await open_book.balance(BANK) == (10, 10, 0)


async def test_a_resend_is_answered_even_if_its_account_was_frozen_since(open_book: Book) -> None:
    legs = (debit(BANK, 5), credit(PAYER, 5))
    first = await open_book.post(*legs)
    await freeze(open_book, PAYER)

    assert await open_book.post(*legs, transaction_id=first.transaction_id) == first


async def test_a_refusal_stays_the_same_byte_for_byte_when_its_cause_is_gone(open_book: Book) -> None:
    request = transaction_request(debit(BANK, 5), credit("liabilities:late", 5), description="x")
    by_another = transaction_request(*request.legs, description="x", transaction_id=request.transaction_id)

    first = await told(open_book.stub.CreateTransaction(request))
    await open_book.open("liabilities:late")
    again = [await told(open_book.stub.CreateTransaction(asked)) for asked in (request, by_another)]

    assert first.reason == "ACCOUNT_NOT_FOUND"
    assert {answer.as_bytes for answer in again} == {first.as_bytes}
    assert await open_book.balance(BANK) == (0, 0, 0)
    await open_book.post(*request.legs)
    assert await open_book.balance(BANK) == (5, 5, 0)


async def test_the_proof_is_left_out_or_asked_for_without_being_another_posting(open_book: Book) -> None:
    first = await open_book.stub.CreateTransaction(
        transaction_request(debit(BANK, 5), credit(PAYER, 5), include_proof=True)
    )
    transaction_id = first.transaction.transaction_id

    without = transaction_request(debit(BANK, 5), credit(PAYER, 5), transaction_id=transaction_id)

    assert first.HasField("proof")
    assert await open_book.stub.CreateTransaction(without) == first


async def post(book: Book, fields: dict[str, Any]) -> ledger_pb2.Transaction:
    """Posts what the fields say, legs among them."""
    return await book.post(*fields["legs"], **{name: value for name, value in fields.items() if name != "legs"})


def changes() -> dict[str, dict[str, Any]]:
    """Other values of fields, by how the difference is told."""
    return {
        "description": {"description": "b"},
        "source_id": {"source_id": "pay_2"},
        "effective_time": {"effective_time": Timestamp(seconds=1)},
        "book_name": {"book_name": "side"},
        "metadata": {"metadata": {"order": "2"}},
        "pending": {"pending": True},
        "pending,expire_time": {"pending": True, "expire_time": Timestamp(seconds=4_000_000_000)},
        "legs[0].amount,legs[1].amount": {"legs": [debit(BANK, 6), credit(PAYER, 6)]},
        "legs[1].account_name": {"legs": [debit(BANK, 5), credit(FEES, 5)]},
        "legs[0].side,legs[1].side": {"legs": [credit(BANK, 5), debit(PAYER, 5)]},
        "legs": {"legs": [debit(BANK, 5), credit(PAYER, 4), credit(FEES, 1)]},
        "description,legs[1].account_name": {"description": "b", "legs": [debit(BANK, 5), credit(FEES, 5)]},
        "assertions[0].balance": {"assertions": [balance_of(BANK, 6)]},
        "assertions": {"assertions": [balance_of(BANK, 5), balance_of(PAYER, 5)]},
    }


@pytest.mark.parametrize("differing", changes())
async def test_the_same_id_with_other_content_is_told_what_differs(open_book: Book, differing: str) -> None:
    fields: dict[str, Any] = {
        "legs": [debit(BANK, 5), credit(PAYER, 5)],
        "description": "a",
        "source_id": "pay_1",
        "metadata": {"order": "1"},
        "assertions": [balance_of(BANK, 5)],
    }
    first = await post(open_book, fields)

    others = fields | changes()[differing] | {"transaction_id": first.transaction_id}
    problem = await refusal(post(open_book, others))

    assert problem.reason is Reason.RESOURCE_ALREADY_EXISTS
    assert set(problem.metadata["differing_fields"].split(",")) == set(differing.split(","))
    assert problem.metadata["transaction_id"] == first.transaction_id
    assert await open_book.transaction(first.transaction_id) == first
    assert await open_book.balance(BANK) == (5, 5, 0)


async def test_the_same_id_sent_to_another_rpc_is_told_so(open_book: Book) -> None:
    hold = await open_book.post(debit(BANK, 5), credit(PAYER, 5), pending=True)
    ids: dict[str, Any] = {"hold_transaction_id": hold.transaction_id, "transaction_id": hold.transaction_id}

    problems = [
        await refusal(open_book.stub.VoidHold(pb2.VoidHoldRequest(request_id=new_request_id(), **ids))),
        await refusal(open_book.stub.PostHold(pb2.PostHoldRequest(request_id=new_request_id(), **ids))),
    ]

    assert {problem.reason for problem in problems} == {Reason.RESOURCE_ALREADY_EXISTS}
    assert {problem.metadata["differing_fields"] for problem in problems} == {"rpc"}
    assert (await open_book.transaction(hold.transaction_id)).hold_state == ledger_pb2.Transaction.HOLD_STATE_HELD


async def test_of_a_hold_posting_and_of_a_reversal_it_is_told_what_differs_too(open_book: Book) -> None:
    hold = await open_book.post(debit(BANK, 5), credit(PAYER, 5), pending=True)
    post = pb2.PostHoldRequest(
        request_id=new_request_id(), transaction_id=new_id("txn"), hold_transaction_id=hold.transaction_id
    )
    await open_book.stub.PostHold(post)
    reversal = pb2.ReverseTransactionRequest(
        request_id=new_request_id(), transaction_id=new_id("txn"), reversed_transaction_id=post.transaction_id
    )
    await open_book.stub.ReverseTransaction(reversal)

    post.request_id, reversal.request_id = new_request_id(), new_request_id()
    post.legs.extend([debit(BANK, 1), credit(PAYER, 1)])
    reversal.entry_indexes.extend([0, 1])
    posted = await refusal(open_book.stub.PostHold(post))
    reversed_ = await refusal(open_book.stub.ReverseTransaction(reversal))

    assert posted.metadata["differing_fields"] == "legs"
    assert reversed_.metadata["differing_fields"] == "entry_indexes"


async def test_a_request_id_used_for_another_posting_is_refused(open_book: Book) -> None:
    request_id = new_request_id()
    await open_book.post(debit(BANK, 5), credit(PAYER, 5), request_id=request_id)

    problem = await refusal(open_book.post(debit(BANK, 6), credit(PAYER, 6), request_id=request_id.upper()))

    assert (problem.reason, problem.metadata) == (Reason.REQUEST_ID_REUSED, {"request_id": request_id.upper()})
    assert await open_book.balance(BANK) == (5, 5, 0)


async def test_a_call_whose_deadline_passes_while_it_waits_is_told_what_became_of_it_when_sent_again(
    open_book: Book, admin: asyncpg.Connection
) -> None:
    request = transaction_request(debit(BANK, 5), credit(PAYER, 5))
    async with admin.transaction():
        await admin.execute("SELECT FROM journals WHERE tenant_id = $1 FOR UPDATE", open_book.tenant_id)
        problem = await refusal(open_book.stub.CreateTransaction(request, timeout=0.5))
    assert problem.code is grpc.StatusCode.DEADLINE_EXCEEDED

    # Its batch may be booked still; a resend books it, or is told what was booked.
    first = await open_book.stub.CreateTransaction(request)
    again, other = await asyncio.gather(
        open_book.stub.CreateTransaction(request), open_book.post(debit(BANK, 1), credit(PAYER, 1))
    )

    assert again == first
    assert other.leaf_index == 1
    assert await open_book.balance(BANK) == (6, 6, 0)
