"""What can be read when an old month of entries was taken away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.errors import Reason
from mesh.ids import new_id
from tests.ledger.book import BANK, FEES, PAYER, Book, credit, debit, new_request_id, refusal
from tests.ledger.clock import SettableClock
from tests.ledger.teller import timestamp

# Far from what other tests book in the same database.
MAY, JUNE = datetime(2041, 5, 10, tzinfo=UTC), datetime(2041, 6, 10, tzinfo=UTC)


@pytest.fixture
async def archived_book(timed_book: Book, clock: SettableClock, admin: asyncpg.Connection) -> AsyncIterator[Book]:
    """A book with entries of May, which are archived, and of June: BANK moved in both, PAYER and FEES in one each."""
    await timed_book.open(BANK, PAYER, FEES)
    clock.now = MAY
    await timed_book.post(debit(BANK, 100), credit(PAYER, 100))
    clock.now = JUNE
    await timed_book.post(debit(BANK, 7), credit(FEES, 7))
    await admin.execute("ALTER TABLE entries DETACH PARTITION entries_2041_05")
    yield timed_book
    await admin.execute(
        "ALTER TABLE entries ATTACH PARTITION entries_2041_05 FOR VALUES FROM ('2041-05-01 UTC') TO ('2041-06-01 UTC')"
    )


def day_of_june(day: int) -> Timestamp:
    """The beginning of a day."""
    made = timestamp(JUNE.replace(day=day))
    assert made is not None
    return made


async def balances(book: Book, **fields: Any) -> list[tuple[str, int, int, int]]:
    """Name, balance, debits and credits of all accounts."""
    answer = await book.stub.ListBalances(pb2.ListBalancesRequest(**fields))
    return [
        (each.branch, each.balance.amount_minor, each.debits.amount_minor, each.credits.amount_minor)
        for each in answer.balances
    ]


async def test_balances_since_then_are_what_they_were(archived_book: Book) -> None:
    assert await balances(archived_book) == [(BANK, 107, 107, 0), (FEES, 7, 0, 7), (PAYER, 100, 0, 100)]
    for field in ("booking_time", "effective_time"):
        assert await balances(archived_book, **{field: day_of_june(1)}) == [
            (BANK, 100, 100, 0),
            (FEES, 0, 0, 0),
            (PAYER, 100, 0, 100),
        ]


async def test_a_statement_that_begins_after_it_opens_with_what_was_there(archived_book: Book) -> None:
    for account_name, opening, closing in ((BANK, 100, 107), (PAYER, 100, 100), (FEES, 0, 7)):
        request = pb2.GetStatementRequest(account_name=account_name, start_time=day_of_june(1))
        statement = await archived_book.stub.GetStatement(request)
        assert statement.opening_balance.amount_minor == opening
        assert statement.closing_balance.amount_minor == closing


async def test_reports_of_a_time_after_it_balance(archived_book: Book) -> None:
    report = await archived_book.stub.GetTrialBalance(pb2.GetTrialBalanceRequest(booking_time=day_of_june(1)))

    assert [(line.account_name, line.balance.amount_minor) for line in report.lines] == [(BANK, 100), (PAYER, 100)]


@pytest.mark.parametrize(
    ("rpc", "fields", "field"),
    [
        ("GetBalance", {"account_name": BANK, "effective_time": timestamp(MAY.replace(day=1))}, "effective_time"),
        ("ListBalances", {"booking_time": timestamp(MAY.replace(day=1))}, "booking_time"),
        ("GetTrialBalance", {"effective_time": timestamp(MAY.replace(day=1))}, "effective_time"),
        ("GetBalanceSheet", {"effective_time": timestamp(MAY.replace(day=1))}, "effective_time"),
        ("GetStatement", {"account_name": BANK}, "start_time"),
        ("GetProfitAndLoss", {}, "start_time"),
    ],
)
async def test_who_asks_for_the_time_before_is_told_that_it_is_archived(
    archived_book: Book, rpc: str, fields: dict[str, Any], field: str
) -> None:
    problem = await refusal(getattr(archived_book.stub, rpc)(getattr(pb2, f"{rpc}Request")(**fields)))

    assert problem.reason is Reason.FIELD_INVALID
    assert [violation.field for violation in problem.violations] == [field]


async def test_what_is_archived_is_not_reversed_by_halves(
    timed_book: Book, clock: SettableClock, admin: asyncpg.Connection
) -> None:
    await timed_book.open(BANK, PAYER)
    clock.now = MAY
    old = await timed_book.post(debit(BANK, 100), credit(PAYER, 100))
    clock.now = JUNE
    await admin.execute("ALTER TABLE entries DETACH PARTITION entries_2041_05")
    reversal = pb2.ReverseTransactionRequest(
        request_id=new_request_id(), transaction_id=new_id("txn"), reversed_transaction_id=old.transaction_id
    )

    problem = await refusal(timed_book.stub.ReverseTransaction(reversal))
    await admin.execute(
        "ALTER TABLE entries ATTACH PARTITION entries_2041_05 FOR VALUES FROM ('2041-05-01 UTC') TO ('2041-06-01 UTC')"
    )

    assert (problem.reason, "archived" in problem.detail) == (Reason.RESOURCE_NOT_FOUND, True)
    assert await timed_book.balance(BANK) == (100, 100, 0)
