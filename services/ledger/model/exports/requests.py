"""What callers ask to be exported."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from mesh.errors import Problem, Reason, Violation
from services.ledger.model.exports.tables import time_text
from services.ledger.model.reading import Period
from services.ledger.model.reports import Presentation


class ReportKind(enum.StrEnum):
    """What a file shows."""

    ENTRIES = "entries"
    STATEMENT = "statement"
    TRIAL_BALANCE = "trial_balance"
    BALANCE_SHEET = "balance_sheet"
    PROFIT_AND_LOSS = "profit_and_loss"


class ReportFormat(enum.StrEnum):
    """How a file shows it."""

    CSV = "csv"
    XLSX = "xlsx"
    JSON = "json"
    HLEDGER = "hledger"
    BEANCOUNT = "beancount"

    @property
    def is_journal(self) -> bool:
        """Whether it is the journal of another tool, which shows entries and nothing else."""
        return self in {ReportFormat.HLEDGER, ReportFormat.BEANCOUNT}


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """A file to make.

    Attributes:
        account_name: of a statement; empty for all others.
        period: of effect.
        booking_time: only what was booked by then; None means all there is.
    """

    book_name: str
    kind: ReportKind
    format: ReportFormat
    account_name: str
    period: Period
    booking_time: datetime | None
    presentation: Presentation | None

    def check(self) -> None:
        """Checks that the parts go together.

        Raises:
            Problem: FIELD_INVALID.
        """
        if self.format.is_journal and self.kind is not ReportKind.ENTRIES:
            raise _invalid("format", f"{self.format} shows only entries: use csv, xlsx or json for reports")
        if (self.kind is ReportKind.STATEMENT) != bool(self.account_name):
            wanted = "is needed for a statement" if not self.account_name else "is only for a statement"
            raise _invalid("account_name", wanted)
        if self.kind in {ReportKind.TRIAL_BALANCE, ReportKind.BALANCE_SHEET} and self.period.start_time is not None:
            raise _invalid("start_time", "is not for balances, which are as of a time: give end_time alone")

    def check_rates(self, currencies: Iterable[str]) -> None:
        """Checks that everything in these currencies can be presented.

        Raises:
            Problem: FIELD_INVALID, a rate is missing.
        """
        if self.presentation is None:
            return
        presented = self.presentation.currency
        missing = sorted(set(currencies) - self.presentation.rates.keys() - {presented})
        if missing:
            raise _invalid("rates", f"lack what one unit of {', '.join(missing)} is worth in {presented}: add it")

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """What the file says of itself, by name."""
        facts = (
            ("book_name", self.book_name),
            ("account_name", self.account_name),
            ("start_time", _time(self.period.start_time)),
            ("end_time", _time(self.period.end_time)),
            ("booking_time", _time(self.booking_time)),
            ("presentation_currency", self.presentation.currency if self.presentation else ""),
        )
        return tuple((name, text) for name, text in facts if text)


def _time(time: datetime | None) -> str:
    return "" if time is None else time_text(time)


def _invalid(field: str, description: str) -> Problem:
    return Problem(Reason.FIELD_INVALID, violations=[Violation(field, description)])
