"""Reports: totals that balance, and amounts in one currency whose rounding is seen."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import Problem, Reason
from mesh.money import INT64_MAX
from services.ledger.model.accounts import NO_LIMITS, Account, AccountState, AccountType
from services.ledger.model.reports import (
    AccountBalance,
    Presentation,
    balance_sheet,
    presented_exactly,
    profit_and_loss,
    rounded_minor,
    trial_balance,
)

DAY = datetime(2026, 11, 21, tzinfo=UTC)
SCALES = {"GHS": 2, "JPY": 0, "USDC": 6}


def account(name: str, type_: AccountType, currency: str = "GHS") -> Account:
    """An account that nothing but a report is made of."""
    return Account(
        account_key=0,
        book_name="main",
        account_name=name,
        account_number=None,
        type=type_,
        currency=currency,
        scale=SCALES[currency],
        state=AccountState.OPENED,
        display_name="",
        metadata={},
        limits=NO_LIMITS,
        debits_minor=0,
        credits_minor=0,
        pending_debits_minor=0,
        pending_credits_minor=0,
        create_time=DAY,
        update_time=DAY,
    )


def balance(type_: AccountType, balance_minor: int, currency: str = "GHS") -> AccountBalance:
    """The balance of an account of that type."""
    return AccountBalance(account(f"{type_}:{currency.lower()}", type_, currency), balance_minor)


@st.composite
def books(draw: st.DrawFn) -> list[AccountBalance]:
    """Balances of a book: in each currency, debits are equal to credits."""
    balances = []
    for currency in draw(st.lists(st.sampled_from(sorted(SCALES)), unique=True, max_size=3)):
        difference_minor = 0
        for type_ in draw(st.lists(st.sampled_from(list(AccountType)), max_size=6)):
            amount_minor = draw(st.integers(-(10**12), 10**12))
            balances.append(balance(type_, amount_minor, currency))
            difference_minor += balances[-1].debit_minor - balances[-1].credit_minor
        balances.append(balance(AccountType.EQUITY, difference_minor, currency))
    return balances


@given(balances=books())
def test_the_debits_of_a_trial_balance_are_equal_to_its_credits_in_each_currency(
    balances: list[AccountBalance],
) -> None:
    report = trial_balance(balances, None)

    assert [line.account_balance for line in report.lines] == balances
    assert [total.currency for total in report.totals] == sorted({each.account.currency for each in balances})
    assert all(total.debit_minor == total.credit_minor for total in report.totals)


@given(balances=books())
def test_assets_are_equal_to_liabilities_and_equity_in_each_currency(balances: list[AccountBalance]) -> None:
    report = balance_sheet(balances, None)

    for currency in {each.account.currency for each in balances}:
        owned, owed, owners = (
            sum(total.balance_minor or 0 for total in section.totals if total.currency == currency)
            for section in (report.assets, report.liabilities, report.equity)
        )
        assert owned == owed + owners


@given(balances=books())
def test_the_unallocated_earnings_are_the_net_income_of_all_time(balances: list[AccountBalance]) -> None:
    assert balance_sheet(balances, None).unallocated_earnings == profit_and_loss(balances, None).net_income


@given(
    amount_minor=st.integers(-INT64_MAX, INT64_MAX),
    rate=st.decimals(Decimal("0.000000000000000001"), 10**18, places=18),
    scales=st.tuples(st.integers(0, 18), st.integers(0, 18)),
)
def test_nothing_is_rounded_before_the_end(amount_minor: int, rate: Decimal, scales: tuple[int, int]) -> None:
    presentation = Presentation("GHS", scales[1], {"JPY": rate})

    exact_minor = presented_exactly(amount_minor, scales[0], "JPY", presentation)

    expected = amount_minor * Fraction(rate) * Fraction(10) ** (scales[1] - scales[0])
    assert Fraction(exact_minor) == expected
    if abs(expected) <= INT64_MAX:
        assert rounded_minor(exact_minor) == round(expected)


@pytest.mark.parametrize(("amount_minor", "presented_minor"), [(1, 0), (3, 2), (5, 2), (7, 4), (-1, 0), (-3, -2)])
def test_halves_are_rounded_to_even(amount_minor: int, presented_minor: int) -> None:
    presentation = Presentation("GHS", 2, {"JPY": Decimal("0.005")})

    report = trial_balance([balance(AccountType.ASSET, amount_minor, "JPY")], presentation)

    assert report.lines[0].presented_minor == presented_minor


def test_a_total_is_rounded_from_its_exact_value_and_not_from_its_lines() -> None:
    presentation = Presentation("GHS", 2, {"JPY": Decimal("0.004")})
    owned = [replace(balance(AccountType.ASSET, 1, "JPY")) for _ in range(5)]

    report = balance_sheet([*owned, balance(AccountType.EQUITY, 5, "JPY")], presentation)

    assert [line.presented_minor for line in report.assets.lines] == [0, 0, 0, 0, 0]
    assert report.assets.totals[0].presented_minor == 2
    assert report.assets.presented_minor == report.equity.presented_minor == 2


def test_a_section_adds_up_its_currencies_before_it_rounds() -> None:
    presentation = Presentation("GHS", 2, {"JPY": Decimal("0.004"), "USDC": Decimal(4)})
    owned = [balance(AccountType.ASSET, 1, "JPY"), balance(AccountType.ASSET, 1000, "USDC")]

    report = balance_sheet(owned, presentation)

    assert [total.presented_minor for total in report.assets.totals] == [0, 0]
    assert report.assets.presented_minor == 1


def test_the_presentation_currency_needs_no_rate() -> None:
    report = trial_balance([balance(AccountType.ASSET, 7)], Presentation("GHS", 2, {}))

    assert report.lines[0].presented_minor == 7
    assert report.totals[0].presented_minor == 7


@pytest.mark.parametrize("make", [trial_balance, balance_sheet, profit_and_loss])
def test_missing_rates_are_named(make: object) -> None:
    balances = [balance(AccountType.INCOME, 1, "USDC"), balance(AccountType.INCOME, 1, "JPY")]

    with pytest.raises(Problem) as refused:
        make(balances, Presentation("GHS", 2, {}))  # type: ignore[operator]  # one of three functions

    assert refused.value.reason is Reason.FIELD_INVALID
    assert refused.value.violations[0].field == "rates"
    assert "JPY, USDC" in refused.value.violations[0].description
    assert "GHS" in refused.value.violations[0].description


def test_an_amount_that_does_not_fit_when_presented_is_refused() -> None:
    presentation = Presentation("GHS", 2, {"JPY": Decimal(10**18)})

    with pytest.raises(Problem) as refused:
        trial_balance([balance(AccountType.ASSET, 1000, "JPY")], presentation)

    assert refused.value.reason is Reason.FIELD_INVALID


def test_a_total_that_does_not_fit_is_refused() -> None:
    with pytest.raises(Problem) as refused:
        trial_balance([balance(AccountType.ASSET, INT64_MAX), balance(AccountType.ASSET, 1)], None)

    assert refused.value.reason is Reason.BALANCE_OVERFLOW
    assert refused.value.metadata == {"currency": "GHS"}
