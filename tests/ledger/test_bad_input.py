"""Everything that must not be booked: each is told why, and leaves the books as they were."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.errors import Problem, Reason
from mesh.ids import new_id
from mesh.money import INT64_MAX
from tests.ledger.book import BANK, FEES, PAYER, Book, credit, debit, new_request_id, refusal, transaction_request
from tests.ledger.orders import transfer, transfers_request
from tests.ledger.teller import timestamp

LIMITED, YEN, MISSING = "liabilities:limited", "assets:yen", "assets:missing"
# Whatever is booked is in one of these.
TABLES = ("journals", "books", "accounts", "transactions", "entries", "holds", "reversed_entries", "checkpoints")

Call = Callable[[Book], Awaitable[object]]


@dataclass(frozen=True)
class Bad:
    """A call that must be refused.

    Attributes:
        prepare: makes what it is about. Gives the call.
        faulty_field: the field at fault, of FIELD_INVALID.
        metadata: what machines are told, at least.
    """

    prepare: Callable[[Book], Awaitable[Call]]
    reason: Reason
    faulty_field: str = ""
    metadata: dict[str, str] = field(default_factory=dict)


def posting(*legs: ledger_pb2.Leg, **fields: Any) -> Callable[[Book], Awaitable[Call]]:
    """A posting that needs nothing before it."""

    async def prepare(_book: Book) -> Call:
        return lambda book: book.stub.CreateTransaction(transaction_request(*legs, **fields))

    return prepare


def transfers(*items: ledger_pb2.Transfer) -> Callable[[Book], Awaitable[Call]]:
    """Transfers that need nothing before them."""

    async def prepare(_book: Book) -> Call:
        return lambda book: book.stub.CreateTransfers(transfers_request(items))

    return prepare


async def into_a_full_account(book: Book) -> Call:
    """One more than fits."""
    await book.post(debit(BANK, INT64_MAX), credit(PAYER, INT64_MAX))
    return lambda book: book.post(debit(BANK, 1), credit(FEES, 1))


def account_in(state: str) -> Callable[[Book], Awaitable[Call]]:
    """To an account that was frozen or closed."""

    async def prepare(book: Book) -> Call:
        request: dict[str, Any] = {"account_name": PAYER, "request_id": new_request_id()}
        if state == "FROZEN":
            await book.stub.FreezeAccount(pb2.FreezeAccountRequest(**request))
        else:
            await book.stub.CloseAccount(pb2.CloseAccountRequest(**request))
        return lambda book: book.post(debit(BANK, 5), credit(PAYER, 5))

    return prepare


def beyond(limits: ledger_pb2.AccountLimits, *legs: ledger_pb2.Leg) -> Callable[[Book], Awaitable[Call]]:
    """From or to an account with limits, on which there are 100 already, of which 30 are held."""

    async def prepare(book: Book) -> Call:
        await book.open(LIMITED)
        await book.post(debit(BANK, 100), credit(LIMITED, 100))
        await book.post(debit(LIMITED, 30), credit(BANK, 30), pending=True)
        update = pb2.UpdateAccountRequest(request_id=new_request_id(), account_name=LIMITED, limits=limits)
        update.update_mask.paths.append("limits")
        await book.stub.UpdateAccount(update)
        return lambda book: book.post(*legs)

    return prepare


async def into_a_closed_period(book: Book) -> Call:
    """Back-dated into what is locked."""
    closed_time = datetime(2026, 1, 1, tzinfo=UTC)
    await book.stub.ClosePeriod(
        pb2.ClosePeriodRequest(request_id=new_request_id(), book_name="main", end_time=timestamp(closed_time))
    )
    earlier = timestamp(closed_time - timedelta(microseconds=1))
    return lambda book: book.post(debit(BANK, 5), credit(PAYER, 5), effective_time=earlier)


async def reversing_twice(book: Book) -> Call:
    """What was reversed already."""
    transaction = await book.post(debit(BANK, 5), credit(PAYER, 5))

    def reverse(book: Book) -> Awaitable[object]:
        return book.stub.ReverseTransaction(
            pb2.ReverseTransactionRequest(
                request_id=new_request_id(),
                transaction_id=new_id("txn"),
                reversed_transaction_id=transaction.transaction_id,
            )
        )

    await reverse(book)
    return reverse


async def posting_a_void_hold(book: Book) -> Call:
    """What was released already."""
    hold = await book.post(debit(BANK, 5), credit(PAYER, 5), pending=True)
    await book.stub.VoidHold(
        pb2.VoidHoldRequest(
            transaction_id=new_id("txn"), hold_transaction_id=hold.transaction_id, request_id=new_request_id()
        )
    )
    return lambda book: book.stub.PostHold(
        pb2.PostHoldRequest(
            transaction_id=new_id("txn"), hold_transaction_id=hold.transaction_id, request_id=new_request_id()
        )
    )


async def beyond_the_skew(_book: Book) -> Call:
    """In a future that is too far."""
    later = timestamp(datetime.now(UTC) + timedelta(seconds=400))
    return lambda book: book.post(debit(BANK, 5), credit(PAYER, 5), effective_time=later)


def limits(**values: int) -> ledger_pb2.AccountLimits:
    """Limits of an account."""
    return ledger_pb2.AccountLimits(**values)


PAIR = (debit(BANK, 5), credit(PAYER, 5))
NOT_AS_MUCH = (debit(LIMITED, 71), credit(BANK, 71))
BAD: dict[str, Bad] = {
    "unbalanced legs": Bad(
        posting(debit(BANK, 5), credit(PAYER, 3)),
        Reason.TRANSACTION_UNBALANCED,
        metadata={"currency": "GHS", "debits_minor": "5", "credits_minor": "3", "difference_minor": "2"},
    ),
    "mixed currencies in a pair of legs": Bad(
        posting(debit(BANK, 5), credit(YEN, 5, "JPY")), Reason.TRANSACTION_UNBALANCED, metadata={"currency": "GHS"}
    ),
    "a currency that is not the account's": Bad(
        posting(debit(BANK, 5, "JPY"), credit(YEN, 5, "JPY")),
        Reason.ACCOUNT_CURRENCY_MISMATCH,
        metadata={"account_name": BANK, "account_currency": "GHS", "leg_currency": "JPY"},
    ),
    "an amount of zero": Bad(posting(debit(BANK, 0), credit(PAYER, 0)), Reason.FIELD_INVALID, "legs[0].amount"),
    "a negative amount": Bad(posting(debit(BANK, -5), credit(PAYER, -5)), Reason.FIELD_INVALID, "legs[1].amount"),
    "a transfer of zero": Bad(transfers(transfer(0)), Reason.FIELD_INVALID, "transfers[0].amount.amount_minor"),
    "a negative transfer": Bad(transfers(transfer(-1)), Reason.FIELD_INVALID, "transfers[0].amount.amount_minor"),
    "a balance beyond 64 bits": Bad(
        into_a_full_account, Reason.BALANCE_OVERFLOW, metadata={"account_name": BANK, "side": "DEBIT"}
    ),
    "an unknown account": Bad(
        posting(debit(BANK, 5), credit(MISSING, 5)), Reason.ACCOUNT_NOT_FOUND, metadata={"account_name": MISSING}
    ),
    "a frozen account": Bad(
        account_in("FROZEN"), Reason.ACCOUNT_NOT_OPEN, metadata={"account_name": PAYER, "state": "FROZEN"}
    ),
    "a closed account": Bad(
        account_in("CLOSED"), Reason.ACCOUNT_NOT_OPEN, metadata={"account_name": PAYER, "state": "CLOSED"}
    ),
    "below the lowest balance": Bad(
        beyond(limits(min_balance_minor=0), *NOT_AS_MUCH),
        Reason.BALANCE_LIMIT_EXCEEDED,
        metadata={
            "account_name": LIMITED,
            "limit": "MIN_BALANCE",
            "limit_minor": "0",
            "exceeded_by_minor": "1",
            "available_minor": "70",
        },
    ),
    "beyond the credit limit": Bad(
        beyond(limits(credit_limit_minor=50), debit(LIMITED, 125), credit(BANK, 125)),
        Reason.BALANCE_LIMIT_EXCEEDED,
        metadata={
            "account_name": LIMITED,
            "limit": "CREDIT_LIMIT",
            "limit_minor": "-50",
            "exceeded_by_minor": "5",
            "available_minor": "120",
        },
    ),
    "above the highest balance": Bad(
        beyond(limits(max_balance_minor=110), debit(BANK, 25), credit(LIMITED, 25)),
        Reason.BALANCE_LIMIT_EXCEEDED,
        metadata={
            "account_name": LIMITED,
            "limit": "MAX_BALANCE",
            "limit_minor": "110",
            "exceeded_by_minor": "15",
            "available_minor": "10",
        },
    ),
    "into a closed period": Bad(
        into_a_closed_period,
        Reason.PERIOD_CLOSED,
        metadata={"book_name": "main", "closed_time": "2026-01-01T00:00:00+00:00"},
    ),
    "reversing twice": Bad(reversing_twice, Reason.TRANSACTION_ALREADY_REVERSED),
    "posting a void hold": Bad(posting_a_void_hold, Reason.HOLD_NOT_PENDING, metadata={"state": "VOIDED"}),
    "effective beyond the skew": Bad(beyond_the_skew, Reason.FIELD_INVALID, "effective_time"),
    "a batch over the limit": Bad(transfers(*(transfer(1) for _ in range(8_193))), Reason.FIELD_INVALID, "transfers"),
    "a linked group cut at the end": Bad(
        transfers(transfer(1), transfer(1, linked=True)), Reason.FIELD_INVALID, "transfers[1].linked"
    ),
    "too much metadata": Bad(
        posting(*PAIR, metadata={f"name_{number}": "" for number in range(33)}), Reason.FIELD_INVALID, "metadata"
    ),
    "a long value in the metadata": Bad(
        posting(*PAIR, metadata={"name": "x" * 257}), Reason.FIELD_INVALID, "metadata[name]"
    ),
    "a long name in the metadata": Bad(
        posting(*PAIR, metadata={"x" * 65: ""}), Reason.FIELD_INVALID, f"metadata[{'x' * 65}]"
    ),
}


@pytest.fixture
async def prepared_book(open_book: Book) -> Book:
    """A book with accounts in two currencies."""
    await open_book.open(YEN, currency="JPY")
    return open_book


async def all_rows(admin: asyncpg.Connection, tenant_id: str) -> dict[str, list[asyncpg.Record]]:
    """Everything of a tenant that says what its books are, and what was announced of them."""
    rows = {
        table: await admin.fetch(f"SELECT * FROM {table} WHERE tenant_id = $1 ORDER BY 1, 2, 3", tenant_id)  # noqa: S608 - names of this file
        for table in TABLES
    }
    return rows | {"events": await admin.fetch("SELECT * FROM outbox WHERE tenant_id = $1", tenant_id)}


@pytest.mark.parametrize("name", BAD)
async def test_what_must_not_be_booked_is_told_why_and_leaves_the_books_as_they_were(
    prepared_book: Book, admin: asyncpg.Connection, name: str
) -> None:
    bad = BAD[name]
    call = await bad.prepare(prepared_book)
    before = await all_rows(admin, prepared_book.tenant_id)

    problem: Problem = await refusal(call(prepared_book))

    assert problem.reason is bad.reason
    assert problem.detail
    assert problem.metadata == {**problem.metadata, **bad.metadata}
    if bad.faulty_field:
        assert bad.faulty_field in [violation.field for violation in problem.violations]
    after = await all_rows(admin, prepared_book.tenant_id)
    # Events of what was prepared leave the outbox meanwhile.
    new_events = {row["event_id"] for row in after.pop("events")} - {row["event_id"] for row in before.pop("events")}
    assert (after, new_events) == (before, set())
