"""Trial balance, balance sheet, and profit and loss, through the contract."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.errors import Reason
from tests.harness import TestMesh
from tests.ledger.book import Book, credit, debit, refusal
from tests.ledger.clock import SettableClock
from tests.ledger.past import BOOKS, START, Past, balance_of, compare_histories, sums_of
from tests.ledger.teller import timestamp

DAY = timedelta(days=1)
RATES = [ledger_pb2.Rate(currency="USD", rate="10.5")]


@pytest.fixture
def book(timed_book: Book) -> Book:
    """The book of this test's tenant; all tests of this module share one service."""
    return timed_book


@pytest.fixture
async def shop(book: Book, clock: SettableClock) -> Book:
    """A shop in two currencies, with income on two days."""
    clock.now = START
    await book.open("assets:bank", "equity:owner", "expenses:rent", "liabilities:tax", "income:sales", "assets:unused")
    await book.open("assets:bank-usd", "equity:fx", "income:sales-usd", currency="USD")
    await book.post(debit("assets:bank", 10_000), credit("equity:owner", 10_000))
    await book.post(debit("assets:bank", 1_200), credit("income:sales", 1_000), credit("liabilities:tax", 200))
    clock.advance(DAY.total_seconds())
    await book.post(debit("expenses:rent", 700), credit("assets:bank", 700))
    await book.post(debit("assets:bank-usd", 333, "USD"), credit("income:sales-usd", 333, "USD"))
    return book


def lines_of(lines: Sequence[ledger_pb2.ReportLine]) -> list[tuple[str, int, int]]:
    """Name, balance and presented amount."""
    return [(line.account_name, line.balance.amount_minor, line.presented.amount_minor) for line in lines]


def totals_of(totals: Sequence[ledger_pb2.ReportTotal]) -> list[tuple[str, int, int]]:
    """Currency, balance and presented amount."""
    return [(total.debit.currency, total.balance.amount_minor, total.presented.amount_minor) for total in totals]


async def test_a_trial_balance_has_a_line_for_each_account_with_entries(shop: Book) -> None:
    report = await shop.stub.GetTrialBalance(pb2.GetTrialBalanceRequest())

    assert [(line.account_name, line.debit.amount_minor, line.credit.amount_minor) for line in report.lines] == [
        ("assets:bank", 10_500, 0),
        ("assets:bank-usd", 333, 0),
        ("equity:owner", 0, 10_000),
        ("expenses:rent", 700, 0),
        ("income:sales", 0, 1_000),
        ("income:sales-usd", 0, 333),
        ("liabilities:tax", 0, 200),
    ]
    assert [(total.debit.amount_minor, total.credit.amount_minor) for total in report.totals] == [
        (11_200, 11_200),
        (333, 333),
    ]
    assert not any(line.HasField("presented") for line in report.lines)


async def test_an_account_whose_entries_cancel_out_has_a_line(shop: Book) -> None:
    await shop.post(debit("assets:unused", 1), credit("assets:unused", 1))

    report = await shop.stub.GetTrialBalance(pb2.GetTrialBalanceRequest())

    assert ("assets:unused", 0, 0) in lines_of(report.lines)


async def test_a_trial_balance_of_the_past_holds_what_counted_then(shop: Book) -> None:
    report = await shop.stub.GetTrialBalance(pb2.GetTrialBalanceRequest(effective_time=timestamp(START)))

    assert lines_of(report.lines) == [
        ("assets:bank", 11_200, 0),
        ("equity:owner", 10_000, 0),
        ("income:sales", 1_000, 0),
        ("liabilities:tax", 200, 0),
    ]


async def test_a_balance_sheet_balances_with_the_earnings_that_are_not_allocated(shop: Book) -> None:
    report = await shop.stub.GetBalanceSheet(pb2.GetBalanceSheetRequest())

    assert totals_of(report.assets.totals) == [("GHS", 10_500, 0), ("USD", 333, 0)]
    assert totals_of(report.liabilities.totals) == [("GHS", 200, 0)]
    assert totals_of(report.equity.totals) == [("GHS", 10_300, 0), ("USD", 333, 0)]
    assert totals_of(report.unallocated_earnings) == [("GHS", 300, 0), ("USD", 333, 0)]
    assert lines_of(report.equity.lines) == [("equity:owner", 10_000, 0)]


async def test_profit_and_loss_are_those_of_the_period(shop: Book) -> None:
    all_time = await shop.stub.GetProfitAndLoss(pb2.GetProfitAndLossRequest())
    second_day = await shop.stub.GetProfitAndLoss(pb2.GetProfitAndLossRequest(start_time=timestamp(START + DAY)))
    first_day = await shop.stub.GetProfitAndLoss(pb2.GetProfitAndLossRequest(end_time=timestamp(START + DAY)))

    assert lines_of(all_time.income.lines) == [("income:sales", 1_000, 0), ("income:sales-usd", 333, 0)]
    assert totals_of(all_time.net_income) == [("GHS", 300, 0), ("USD", 333, 0)]
    assert lines_of(second_day.income.lines) == [("income:sales-usd", 333, 0)]
    assert lines_of(second_day.expenses.lines) == [("expenses:rent", 700, 0)]
    assert totals_of(second_day.net_income) == [("GHS", -700, 0), ("USD", 333, 0)]
    assert totals_of(first_day.net_income) == [("GHS", 1_000, 0)]


async def test_profit_and_loss_as_known_then_leave_out_what_was_booked_later(shop: Book) -> None:
    await shop.post(debit("assets:bank", 5), credit("income:sales", 5), effective_time=timestamp(START))

    now = await shop.stub.GetProfitAndLoss(pb2.GetProfitAndLossRequest(end_time=timestamp(START + DAY)))
    then = await shop.stub.GetProfitAndLoss(
        pb2.GetProfitAndLossRequest(end_time=timestamp(START + DAY), booking_time=timestamp(START))
    )

    assert totals_of(now.net_income) == [("GHS", 1_005, 0)]
    assert totals_of(then.net_income) == [("GHS", 1_000, 0)]


async def test_profit_and_loss_of_a_random_history_are_those_of_its_entries(
    timed_ledger: TestMesh, clock: SettableClock
) -> None:
    async def compare(book: Book, past: Past, numbers: list[int]) -> None:
        times = past.times()
        for first, second in zip(numbers[::2], numbers[1::2], strict=True):
            start, end = times[first % len(times)], times[second % len(times)]
            if start is not None and end is not None and start >= end:
                continue
            known = times[(first + second) % len(times)]
            book_name = BOOKS[second % 2]
            request = pb2.GetProfitAndLossRequest(
                book_name=book_name,
                start_time=timestamp(start),
                end_time=timestamp(end),
                booking_time=timestamp(known),
            )
            report = await book.stub.GetProfitAndLoss(request)
            counted = [
                entry
                for entry in past.counted(book_name, known, None)
                if (start is None or entry.effect >= start) and (end is None or entry.effect < end)
            ]
            for section, account in ((report.income, "income:fees"), (report.expenses, "expenses:rent")):
                entries = [entry for entry in counted if entry.account == account]
                balance = balance_of(account, *sums_of(entries))
                assert lines_of(section.lines) == ([(account, balance, 0)] if entries else [])

    await compare_histories(timed_ledger, clock, compare)


# In one currency


async def test_amounts_are_presented_in_one_currency_as_well(shop: Book) -> None:
    report = await shop.stub.GetBalanceSheet(pb2.GetBalanceSheetRequest(presentation_currency="GHS", rates=RATES))

    assert lines_of(report.assets.lines) == [("assets:bank", 10_500, 10_500), ("assets:bank-usd", 333, 3_496)]
    assert report.assets.presented.amount_minor == 13_996
    assert report.liabilities.presented.amount_minor == 200
    assert report.equity.presented.amount_minor == 13_796
    assert {line.presented.currency for line in report.assets.lines} == {"GHS"}


async def test_a_trial_balance_is_presented_with_the_total_of_its_debits(shop: Book) -> None:
    report = await shop.stub.GetTrialBalance(pb2.GetTrialBalanceRequest(presentation_currency="GHS", rates=RATES))

    assert [total.presented.amount_minor for total in report.totals] == [11_200, 3_496]


async def test_profit_and_loss_are_presented(shop: Book) -> None:
    report = await shop.stub.GetProfitAndLoss(pb2.GetProfitAndLossRequest(presentation_currency="GHS", rates=RATES))

    assert totals_of(report.net_income) == [("GHS", 300, 300), ("USD", 333, 3_496)]
    assert report.income.presented.amount_minor == 4_496
    assert report.expenses.presented.amount_minor == 700


async def test_presentation_heeds_how_many_decimals_currencies_have(shop: Book) -> None:
    rates = [ledger_pb2.Rate(currency="GHS", rate="13.5"), ledger_pb2.Rate(currency="USD", rate="150")]

    report = await shop.stub.GetTrialBalance(pb2.GetTrialBalanceRequest(presentation_currency="JPY", rates=rates))

    # 105.00 GHS and 3.33 USD, in whole yen.
    assert [line.presented.amount_minor for line in report.lines[:2]] == [1_418, 500]


@pytest.mark.parametrize("rpc", ["GetTrialBalance", "GetBalanceSheet", "GetProfitAndLoss"])
async def test_a_missing_rate_is_named(shop: Book, rpc: str) -> None:
    request = getattr(pb2, f"{rpc}Request")(presentation_currency="GHS")

    problem = await refusal(getattr(shop.stub, rpc)(request))

    assert problem.reason is Reason.FIELD_INVALID
    assert problem.violations[0].field == "rates"
    assert "USD" in problem.violations[0].description


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"rates": RATES}, "rates"),
        ({"presentation_currency": "ZZZ"}, "presentation_currency"),
        ({"presentation_currency": "GHS", "rates": [*RATES, *RATES]}, "rates[1].currency"),
        ({"presentation_currency": "GHS", "rates": [ledger_pb2.Rate(currency="USD", rate="0.0")]}, "rates[0].rate"),
        ({"presentation_currency": "USD", "rates": RATES}, "rates[0].rate"),
        ({"presentation_currency": "GHS", "rates": [ledger_pb2.Rate(currency="USD", rate="-1")]}, "rates[0].rate"),
    ],
)
async def test_rates_that_make_no_sense_are_refused(shop: Book, fields: dict[str, Any], field: str) -> None:
    problem = await refusal(shop.stub.GetTrialBalance(pb2.GetTrialBalanceRequest(**fields)))

    assert problem.reason is Reason.FIELD_INVALID
    assert [violation.field for violation in problem.violations] == [field]


@pytest.mark.parametrize("rpc", ["GetTrialBalance", "GetBalanceSheet", "GetProfitAndLoss"])
async def test_a_book_that_does_not_exist_has_no_reports(shop: Book, rpc: str) -> None:
    problem = await refusal(getattr(shop.stub, rpc)(getattr(pb2, f"{rpc}Request")(book_name="nowhere")))

    assert problem.reason is Reason.RESOURCE_NOT_FOUND
    assert problem.metadata == {"book_name": "nowhere"}


async def test_a_tenant_without_books_has_no_reports(book: Book) -> None:
    problem = await refusal(book.stub.GetTrialBalance(pb2.GetTrialBalanceRequest()))

    assert problem.reason is Reason.RESOURCE_NOT_FOUND
