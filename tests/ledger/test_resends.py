"""Postings that are sent again, through the contract: each is booked once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import asyncpg
import grpc
from kente.ledger.v1 import ledger_pb2

from mesh.errors import Reason
from tests.harness import eventually
from tests.ledger.book import (
    BANK,
    FEES,
    PAYER,
    Book,
    credit,
    debit,
    new_request_id,
    refusal,
    set_state,
    transaction_request,
)


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


async def test_a_resend_is_answered_even_if_its_account_was_closed_since(
    open_book: Book, admin: asyncpg.Connection
) -> None:
    legs = (debit(BANK, 5), credit(PAYER, 5))
    first = await open_book.post(*legs)
    await set_state(admin, open_book, PAYER, "closed")

    assert await open_book.post(*legs, transaction_id=first.transaction_id) == first


async def test_an_answer_lost_in_a_crash_is_given_again_and_nothing_is_booked_twice(
    open_book: Book, admin: asyncpg.Connection
) -> None:
    request = transaction_request(debit(BANK, 5), credit(PAYER, 5))
    first = await open_book.stub.CreateTransaction(request)
    # What the interceptor leaves when the process dies between the commit and the storing of the answer.
    await admin.execute("DELETE FROM idempotency WHERE request_id = $1", request.request_id)

    assert await open_book.stub.CreateTransaction(request) == first
    assert await open_book.balance(BANK) == (5, 5, 0)


async def test_the_same_id_with_other_content_is_told_what_differs(open_book: Book) -> None:
    first = await open_book.post(debit(BANK, 5), credit(PAYER, 5), description="a", source_id="pay_1")
    others: dict[str, tuple[tuple[ledger_pb2.Leg, ...], dict[str, Any]]] = {
        "description": ((debit(BANK, 5), credit(PAYER, 5)), {"description": "b", "source_id": "pay_1"}),
        "source_id": ((debit(BANK, 5), credit(PAYER, 5)), {"description": "a", "source_id": "pay_2"}),
        "effective_time": (
            (debit(BANK, 5), credit(PAYER, 5)),
            {"description": "a", "source_id": "pay_1", "effective_time": first.create_time},
        ),
        "legs[0].amount,legs[1].amount": (
            (debit(BANK, 6), credit(PAYER, 6)),
            {"description": "a", "source_id": "pay_1"},
        ),
        "legs[1].account_name": (
            (debit(BANK, 5), credit(FEES, 5)),
            {"description": "a", "source_id": "pay_1"},
        ),
    }

    for differing, (legs, fields) in others.items():
        problem = await refusal(open_book.post(*legs, transaction_id=first.transaction_id, **fields))
        assert problem.reason is Reason.RESOURCE_ALREADY_EXISTS
        assert problem.metadata == {"transaction_id": first.transaction_id, "differing_fields": differing}

    assert await open_book.transaction(first.transaction_id) == first
    assert await open_book.balance(BANK) == (5, 5, 0)


async def test_a_request_id_used_for_another_posting_is_refused(open_book: Book) -> None:
    request_id = new_request_id()
    await open_book.post(debit(BANK, 5), credit(PAYER, 5), request_id=request_id)

    problem = await refusal(open_book.post(debit(BANK, 6), credit(PAYER, 6), request_id=request_id))

    assert problem.reason is Reason.REQUEST_ID_REUSED
    assert await open_book.balance(BANK) == (5, 5, 0)


async def test_a_call_whose_deadline_passes_while_it_waits_books_nothing(
    open_book: Book, admin: asyncpg.Connection
) -> None:
    request = transaction_request(debit(BANK, 5), credit(PAYER, 5))
    async with admin.transaction():
        await admin.execute(
            "SELECT FROM accounts WHERE tenant_id = $1 AND account_name = $2 FOR UPDATE", open_book.tenant_id, BANK
        )
        problem = await refusal(open_book.stub.CreateTransaction(request, timeout=0.5))
    assert problem.code is grpc.StatusCode.DEADLINE_EXCEEDED

    assert await open_book.entries() == []

    # The same request, sent again, is booked once. The first call may still be on its way out.
    async def is_booked() -> bool:
        with suppress(grpc.aio.AioRpcError):
            await open_book.stub.CreateTransaction(request)
        return bool(await open_book.entries())

    await eventually(is_booked)
    await asyncio.gather(open_book.post(debit(BANK, 1), credit(PAYER, 1)), open_book.stub.CreateTransaction(request))
    assert await open_book.balance(BANK) == (6, 6, 0)
