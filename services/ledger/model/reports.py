"""Reports: lines, totals, and what they are worth in one currency. No I/O.

An amount in the presentation currency is rounded once, half to even, from its exact value. A total is presented from
its own exact value and not from its lines, so the presented lines need not add up to it: the difference is what
rounding did, and it is left to be seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal

from mesh.errors import Problem, Reason, Violation
from mesh.money import INT64_MAX
from services.ledger.model.accounts import Account, AccountType, Side

# Wide enough that nothing but the last step rounds: 19 digits of an amount, 36 of a rate, 18 of each scale, sums.
_EXACT = Context(prec=120, rounding=ROUND_HALF_EVEN)


@dataclass(frozen=True, slots=True)
class Presentation:
    """The currency to present all amounts in.

    Attributes:
        scale: decimals of it.
        rates: units of it for one unit of each other currency.
    """

    currency: str
    scale: int
    rates: Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class AccountBalance:
    """An account with its balance on the normal side at some moment, or what a period added to that."""

    account: Account
    balance_minor: int

    @property
    def debit_minor(self) -> int:
        """The balance when it is on the debit side, or zero."""
        return max(0, _debit_minor(self))

    @property
    def credit_minor(self) -> int:
        """The balance when it is on the credit side, or zero."""
        return max(0, -_debit_minor(self))


@dataclass(frozen=True, slots=True)
class ReportLine:
    """One account in a report; presented_minor is None when no presentation was asked for."""

    account_balance: AccountBalance
    presented_minor: int | None


@dataclass(frozen=True, slots=True)
class ReportTotal:
    """One currency of a report.

    Attributes:
        debit_minor: sum of the debit balances.
        credit_minor: sum of the credit balances.
        balance_minor: on the normal side of what is summed up; None when that has no normal side.
        presented_minor: the balance, or the debits where there is none, in the presentation currency.
    """

    currency: str
    debit_minor: int
    credit_minor: int
    balance_minor: int | None
    presented_minor: int | None


@dataclass(frozen=True, slots=True)
class ReportSection:
    """Accounts of one kind in a report."""

    lines: tuple[ReportLine, ...]
    totals: tuple[ReportTotal, ...]
    presented_minor: int | None


@dataclass(frozen=True, slots=True)
class TrialBalance:
    """All accounts, debits beside credits."""

    lines: tuple[ReportLine, ...]
    totals: tuple[ReportTotal, ...]


@dataclass(frozen=True, slots=True)
class BalanceSheet:
    """Assets = liabilities + equity, in each currency; the unallocated earnings are in the totals of equity."""

    assets: ReportSection
    liabilities: ReportSection
    equity: ReportSection
    unallocated_earnings: tuple[ReportTotal, ...]


@dataclass(frozen=True, slots=True)
class ProfitAndLoss:
    """Income less expenses of a period, in each currency."""

    income: ReportSection
    expenses: ReportSection
    net_income: tuple[ReportTotal, ...]


def trial_balance(balances: Sequence[AccountBalance], presentation: Presentation | None) -> TrialBalance:
    """The report on accounts in the order of their names.

    Raises:
        Problem: FIELD_INVALID, a rate is missing or makes an amount too large; BALANCE_OVERFLOW.
    """
    _check_rates(balances, presentation)
    lines = tuple(_line(balance, presentation) for balance in balances)
    return TrialBalance(lines, _totals(balances, None, presentation))


def balance_sheet(balances: Sequence[AccountBalance], presentation: Presentation | None) -> BalanceSheet:
    """The report on accounts in the order of their names.

    Raises:
        Problem: FIELD_INVALID, a rate is missing or makes an amount too large; BALANCE_OVERFLOW.
    """
    _check_rates(balances, presentation)
    earnings = [balance for balance in balances if balance.account.type in {AccountType.INCOME, AccountType.EXPENSE}]
    equity = _of_type(balances, AccountType.EQUITY)
    return BalanceSheet(
        assets=_section(_of_type(balances, AccountType.ASSET), Side.DEBIT, presentation),
        liabilities=_section(_of_type(balances, AccountType.LIABILITY), Side.CREDIT, presentation),
        equity=_section(equity, Side.CREDIT, presentation, also=earnings),
        unallocated_earnings=_totals(earnings, Side.CREDIT, presentation),
    )


def profit_and_loss(balances: Sequence[AccountBalance], presentation: Presentation | None) -> ProfitAndLoss:
    """The report on income and expense accounts in the order of their names, with what a period added to each.

    Raises:
        Problem: FIELD_INVALID, a rate is missing or makes an amount too large; BALANCE_OVERFLOW.
    """
    _check_rates(balances, presentation)
    income, expenses = _of_type(balances, AccountType.INCOME), _of_type(balances, AccountType.EXPENSE)
    return ProfitAndLoss(
        income=_section(income, Side.CREDIT, presentation),
        expenses=_section(expenses, Side.DEBIT, presentation),
        net_income=_totals([*income, *expenses], Side.CREDIT, presentation),
    )


def presented_exactly(amount_minor: int, scale: int, currency: str, presentation: Presentation) -> Decimal:
    """What an amount is worth in minor units of the presentation currency, not rounded.

    Args:
        scale: decimals of the amount's currency.
    """
    if currency == presentation.currency:
        return _EXACT.scaleb(Decimal(amount_minor), presentation.scale - scale)
    worth = _EXACT.multiply(Decimal(amount_minor), presentation.rates[currency])
    return _EXACT.scaleb(worth, presentation.scale - scale)


def rounded_minor(exact_minor: Decimal) -> int:
    """Whole minor units, half to even.

    Raises:
        Problem: FIELD_INVALID, it is too large.
    """
    amount_minor = int(exact_minor.to_integral_value(ROUND_HALF_EVEN, _EXACT))
    if abs(amount_minor) > INT64_MAX:
        description = "make an amount larger than 64 bits hold: use a smaller unit of presentation"
        raise Problem(Reason.FIELD_INVALID, violations=[Violation("rates", description)])
    return amount_minor


def fitting_minor(amount_minor: int, currency: str) -> int:
    """The amount, when it fits in 64 bits.

    Raises:
        Problem: BALANCE_OVERFLOW.
    """
    if abs(amount_minor) > INT64_MAX:
        raise Problem(Reason.BALANCE_OVERFLOW, f"a sum in {currency} does not fit in 64 bits", currency=currency)
    return amount_minor


def _check_rates(balances: Iterable[AccountBalance], presentation: Presentation | None) -> None:
    if presentation is None:
        return
    currencies = {balance.account.currency for balance in balances}
    missing = sorted(currencies - presentation.rates.keys() - {presentation.currency})
    if missing:
        description = f"lack what one unit of {', '.join(missing)} is worth in {presentation.currency}: add it"
        raise Problem(Reason.FIELD_INVALID, violations=[Violation("rates", description)])


def _of_type(balances: Iterable[AccountBalance], type_: AccountType) -> list[AccountBalance]:
    return [balance for balance in balances if balance.account.type is type_]


def _debit_minor(balance: AccountBalance) -> int:
    is_debit = balance.account.type.normal_side is Side.DEBIT
    return balance.balance_minor if is_debit else -balance.balance_minor


def _line(balance: AccountBalance, presentation: Presentation | None) -> ReportLine:
    if presentation is None:
        return ReportLine(balance, None)
    account = balance.account
    exact_minor = presented_exactly(balance.balance_minor, account.scale, account.currency, presentation)
    return ReportLine(balance, rounded_minor(exact_minor))


def _section(
    balances: Sequence[AccountBalance],
    side: Side,
    presentation: Presentation | None,
    also: Sequence[AccountBalance] = (),
) -> ReportSection:
    """Lines of accounts; totals of them and of those that are `also` in the sum."""
    summed = [*balances, *also]
    presented_minor = None
    if presentation is not None:
        presented_minor = rounded_minor(_presented_sum(summed, side, presentation))
    lines = tuple(_line(balance, presentation) for balance in balances)
    return ReportSection(lines, _totals(summed, side, presentation), presented_minor)


def _totals(
    balances: Iterable[AccountBalance], side: Side | None, presentation: Presentation | None
) -> tuple[ReportTotal, ...]:
    """A total for each currency, in the order of their codes; `side` is the normal side of what is summed up."""
    by_currency: dict[str, list[AccountBalance]] = {}
    for balance in balances:
        by_currency.setdefault(balance.account.currency, []).append(balance)
    return tuple(_total(currency, by_currency[currency], side, presentation) for currency in sorted(by_currency))


def _total(
    currency: str, balances: Sequence[AccountBalance], side: Side | None, presentation: Presentation | None
) -> ReportTotal:
    debit_minor = fitting_minor(sum(balance.debit_minor for balance in balances), currency)
    credit_minor = fitting_minor(sum(balance.credit_minor for balance in balances), currency)
    presented_minor = None
    if presentation is not None:
        presented_minor = rounded_minor(_presented_sum(balances, side, presentation))
    balance_minor = None if side is None else _on_side(debit_minor - credit_minor, side)
    return ReportTotal(currency, debit_minor, credit_minor, balance_minor, presented_minor)


def _presented_sum(balances: Iterable[AccountBalance], side: Side | None, presentation: Presentation) -> Decimal:
    """The exact sum on a side; of the debits, when there is no side."""
    total = Decimal(0)
    for balance in balances:
        amount_minor = balance.debit_minor if side is None else _on_side(_debit_minor(balance), side)
        account = balance.account
        exact_minor = presented_exactly(amount_minor, account.scale, account.currency, presentation)
        total = _EXACT.add(total, exact_minor)
    return total


def _on_side(debit_minor: int, side: Side) -> int:
    return debit_minor if side is Side.DEBIT else -debit_minor
