"""Between the contracts of reports and the model. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from kente.common.v1.money_pb2 import Money
from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.errors import Problem, Reason, Violation
from mesh.money import check_currency, exponent_of
from services.ledger.convert.common import TYPES_TO_PROTO, money_to_proto
from services.ledger.model.reports import (
    BalanceSheet,
    Presentation,
    ProfitAndLoss,
    ReportLine,
    ReportSection,
    ReportTotal,
    TrialBalance,
)


def presentation_from_proto(currency: str, rates: Sequence[ledger_pb2.Rate]) -> Presentation | None:
    """How to present the amounts of a report; None when no currency is asked for.

    Raises:
        Problem: FIELD_INVALID, the currency is unknown, or a rate is double, zero or for nothing.
    """
    if not currency:
        if rates:
            raise _invalid("rates", "are for a presentation_currency: name one, or leave them out")
        return None
    check_currency(currency, "presentation_currency")
    by_currency: dict[str, Decimal] = {}
    for index, rate in enumerate(rates):
        field = f"rates[{index}]"
        value = Decimal(rate.rate)
        if rate.currency in by_currency:
            raise _invalid(f"{field}.currency", f"{rate.currency} has a rate already: give one for each")
        if not value:
            raise _invalid(f"{field}.rate", "is zero: give what one unit is worth")
        if rate.currency == currency and value != 1:
            raise _invalid(f"{field}.rate", f"is of {currency} in itself: leave it out")
        by_currency[rate.currency] = value
    return Presentation(currency, exponent_of(currency), by_currency)


def trial_balance_to_proto(report: TrialBalance, presentation: Presentation | None) -> pb2.GetTrialBalanceResponse:
    """The report as callers see it."""
    return pb2.GetTrialBalanceResponse(
        lines=_lines_to_proto(report.lines, presentation), totals=_totals_to_proto(report.totals, presentation)
    )


def balance_sheet_to_proto(report: BalanceSheet, presentation: Presentation | None) -> pb2.GetBalanceSheetResponse:
    """The report as callers see it."""
    return pb2.GetBalanceSheetResponse(
        assets=_section_to_proto(report.assets, presentation),
        liabilities=_section_to_proto(report.liabilities, presentation),
        equity=_section_to_proto(report.equity, presentation),
        unallocated_earnings=_totals_to_proto(report.unallocated_earnings, presentation),
    )


def profit_and_loss_to_proto(report: ProfitAndLoss, presentation: Presentation | None) -> pb2.GetProfitAndLossResponse:
    """The report as callers see it."""
    return pb2.GetProfitAndLossResponse(
        income=_section_to_proto(report.income, presentation),
        expenses=_section_to_proto(report.expenses, presentation),
        net_income=_totals_to_proto(report.net_income, presentation),
    )


def _section_to_proto(section: ReportSection, presentation: Presentation | None) -> ledger_pb2.ReportSection:
    return ledger_pb2.ReportSection(
        lines=_lines_to_proto(section.lines, presentation),
        totals=_totals_to_proto(section.totals, presentation),
        presented=_presented(section.presented_minor, presentation),
    )


def _lines_to_proto(lines: Iterable[ReportLine], presentation: Presentation | None) -> list[ledger_pb2.ReportLine]:
    converted = []
    for line in lines:
        balance = line.account_balance
        account = balance.account
        converted.append(
            ledger_pb2.ReportLine(
                account_name=account.account_name,
                account_number=account.account_number or "",
                type=TYPES_TO_PROTO[account.type],
                debit=money_to_proto(balance.debit_minor, account.currency),
                credit=money_to_proto(balance.credit_minor, account.currency),
                balance=money_to_proto(balance.balance_minor, account.currency),
                presented=_presented(line.presented_minor, presentation),
            )
        )
    return converted


def _totals_to_proto(totals: Iterable[ReportTotal], presentation: Presentation | None) -> list[ledger_pb2.ReportTotal]:
    return [
        ledger_pb2.ReportTotal(
            debit=money_to_proto(total.debit_minor, total.currency),
            credit=money_to_proto(total.credit_minor, total.currency),
            balance=None if total.balance_minor is None else money_to_proto(total.balance_minor, total.currency),
            presented=_presented(total.presented_minor, presentation),
        )
        for total in totals
    ]


def _presented(presented_minor: int | None, presentation: Presentation | None) -> Money | None:
    if presented_minor is None or presentation is None:
        return None
    return money_to_proto(presented_minor, presentation.currency)


def _invalid(field: str, description: str) -> Problem:
    return Problem(Reason.FIELD_INVALID, violations=[Violation(field, description)])
