"""Statements and reports as tables: lines and totals in one table, told apart by their first columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from services.ledger.model.accounts import Account
from services.ledger.model.exports.entries import PRESENTED_COLUMNS, presented_cells
from services.ledger.model.exports.tables import Amount, Column, Kind, Row, Table
from services.ledger.model.reading import StatementLine
from services.ledger.model.reports import (
    BalanceSheet,
    Presentation,
    ProfitAndLoss,
    ReportLine,
    ReportTotal,
    TrialBalance,
)

Facts = tuple[tuple[str, str], ...]

_STATEMENT_COLUMNS = (
    Column("row"),
    Column("sequence", Kind.INTEGER),
    Column("transaction_id"),
    Column("effective_time", Kind.TIME),
    Column("create_time", Kind.TIME),
    Column("description"),
    Column("source_id"),
    Column("side"),
    Column("amount", Kind.AMOUNT),
    Column("amount_minor", Kind.INTEGER),
    Column("running_balance", Kind.AMOUNT),
    Column("running_balance_minor", Kind.INTEGER),
    Column("currency"),
)
_REPORT_COLUMNS = (
    Column("section"),
    Column("row"),
    Column("account_name"),
    Column("account_number"),
    Column("account_type"),
    Column("currency"),
    Column("debit", Kind.AMOUNT),
    Column("debit_minor", Kind.INTEGER),
    Column("credit", Kind.AMOUNT),
    Column("credit_minor", Kind.INTEGER),
    Column("balance", Kind.AMOUNT),
    Column("balance_minor", Kind.INTEGER),
)
_NO_AMOUNT: Row = (None, None)


@dataclass(frozen=True, slots=True)
class StatementRows:
    """Writes the rows of a statement, whose amounts are all in the account's currency."""

    account: Account
    presentation: Presentation | None

    def table(self, facts: Facts) -> Table:
        """The table before its rows. What is presented is the running balance."""
        return Table("statement", _STATEMENT_COLUMNS + (PRESENTED_COLUMNS if self.presentation else ()), facts)

    def edge(self, name: str, balance_minor: int) -> Row:
        """The row of the opening or of the closing balance."""
        return (name, *(None,) * 9, *self._balance(balance_minor))

    def lines(self, lines: Iterable[StatementLine]) -> Iterator[Row]:
        """A row for each entry."""
        for line in lines:
            booked, entry = line.booked, line.booked.entry
            yield (
                "entry",
                entry.sequence,
                booked.transaction_id,
                booked.effective_time or booked.create_time,
                booked.create_time,
                booked.description,
                booked.source_id,
                entry.side.value,
                Amount(entry.amount_minor, self.account.scale),
                entry.amount_minor,
                *self._balance(line.running_balance_minor),
            )

    def _balance(self, balance_minor: int) -> Row:
        account = self.account
        presented = presented_cells(balance_minor, account.scale, account.currency, self.presentation)
        return (Amount(balance_minor, account.scale), balance_minor, account.currency, *presented)


@dataclass(frozen=True, slots=True)
class ReportRows:
    """Writes the rows of reports.

    Attributes:
        scales: decimals of each currency of the book.
    """

    scales: Mapping[str, int]
    presentation: Presentation | None

    def table(self, title: str, facts: Facts) -> Table:
        """The table before its rows."""
        return Table(title, _REPORT_COLUMNS + (PRESENTED_COLUMNS if self.presentation else ()), facts)

    def trial_balance(self, report: TrialBalance) -> Iterator[Row]:
        """A row for each account, and a total for each currency."""
        yield from self._section("accounts", report.lines, report.totals, None)

    def balance_sheet(self, report: BalanceSheet) -> Iterator[Row]:
        """Sections of assets, of liabilities and of equity. The unallocated earnings are a part of equity's totals."""
        for name, section in (
            ("assets", report.assets),
            ("liabilities", report.liabilities),
            ("equity", report.equity),
        ):
            earnings = report.unallocated_earnings if name == "equity" else ()
            yield from (self._total(name, "unallocated_earnings", total) for total in earnings)
            yield from self._section(name, section.lines, section.totals, section.presented_minor)

    def profit_and_loss(self, report: ProfitAndLoss) -> Iterator[Row]:
        """Sections of income and of expenses, and what is left of one after the other."""
        for name, section in (("income", report.income), ("expenses", report.expenses)):
            yield from self._section(name, section.lines, section.totals, section.presented_minor)
        yield from (self._total("net_income", "total", total) for total in report.net_income)

    def _section(
        self, section: str, lines: Sequence[ReportLine], totals: Sequence[ReportTotal], presented_minor: int | None
    ) -> Iterator[Row]:
        for line in lines:
            balance, account = line.account_balance, line.account_balance.account
            yield (
                section,
                "account",
                account.account_name,
                account.account_number,
                account.type.value,
                account.currency,
                *_amount(balance.debit_minor, account.scale),
                *_amount(balance.credit_minor, account.scale),
                *_amount(balance.balance_minor, account.scale),
                *self._presented(line.presented_minor),
            )
        yield from (self._total(section, "total", total) for total in totals)
        if presented_minor is not None:
            yield (section, "sum", *(None,) * 10, *self._presented(presented_minor))

    def _total(self, section: str, row: str, total: ReportTotal) -> Row:
        scale = self.scales[total.currency]
        return (
            section,
            row,
            None,
            None,
            None,
            total.currency,
            *_amount(total.debit_minor, scale),
            *_amount(total.credit_minor, scale),
            *(_NO_AMOUNT if total.balance_minor is None else _amount(total.balance_minor, scale)),
            *self._presented(total.presented_minor),
        )

    def _presented(self, presented_minor: int | None) -> Row:
        if self.presentation is None:
            return ()
        if presented_minor is None:
            return (*_NO_AMOUNT, None)
        return (*_amount(presented_minor, self.presentation.scale), self.presentation.currency)


def _amount(amount_minor: int, scale: int) -> Row:
    return (Amount(amount_minor, scale), amount_minor)
