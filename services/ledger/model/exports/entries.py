"""Entries as a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from services.ledger.model.exports.tables import Amount, Column, Kind, Row, Table
from services.ledger.model.reports import Presentation, presented_exactly, rounded_minor

_COLUMNS = (
    Column("sequence", Kind.INTEGER),
    Column("leaf_index", Kind.INTEGER),
    Column("transaction_id"),
    Column("kind"),
    Column("effective_time", Kind.TIME),
    Column("create_time", Kind.TIME),
    Column("account_name"),
    Column("account_number"),
    Column("account_type"),
    Column("side"),
    Column("pending", Kind.FLAG),
    Column("amount", Kind.AMOUNT),
    Column("amount_minor", Kind.INTEGER),
    Column("currency"),
    Column("scale", Kind.INTEGER),
    Column("balance_after", Kind.AMOUNT),
    Column("balance_after_minor", Kind.INTEGER),
    Column("description"),
    Column("source_id"),
    Column("related_transaction_id"),
    Column("metadata", Kind.MAP),
)
PRESENTED_COLUMNS = (
    Column("presented", Kind.AMOUNT),
    Column("presented_minor", Kind.INTEGER),
    Column("presentation_currency"),
)


@dataclass(frozen=True, slots=True)
class ExportedEntry:
    """An entry with what its transaction and its account say, in the order in which it is read.

    Attributes:
        effective_time: when it took effect, whether the caller said so or not.
        related_transaction_id: empty when there is none.
    """

    sequence: int
    leaf_index: int
    transaction_id: str
    kind: str
    effective_time: datetime
    create_time: datetime
    account_name: str
    account_number: str | None
    account_type: str
    side: str
    pending: bool
    amount_minor: int
    currency: str
    scale: int
    balance_after_minor: int
    description: str
    source_id: str
    related_transaction_id: str
    metadata: Mapping[str, str]


def entries_table(facts: tuple[tuple[str, str], ...], presentation: Presentation | None) -> Table:
    """The table before its rows."""
    return Table("entries", _COLUMNS + (PRESENTED_COLUMNS if presentation else ()), facts)


def entry_rows(entries: Iterable[ExportedEntry], presentation: Presentation | None) -> Iterator[Row]:
    """Its rows.

    Raises:
        Problem: FIELD_INVALID, an amount is too large in the presentation currency.
    """
    for entry in entries:
        yield (
            entry.sequence,
            entry.leaf_index,
            entry.transaction_id,
            entry.kind,
            entry.effective_time,
            entry.create_time,
            entry.account_name,
            entry.account_number,
            entry.account_type,
            entry.side,
            entry.pending,
            Amount(entry.amount_minor, entry.scale),
            entry.amount_minor,
            entry.currency,
            entry.scale,
            Amount(entry.balance_after_minor, entry.scale),
            entry.balance_after_minor,
            entry.description,
            entry.source_id,
            entry.related_transaction_id,
            entry.metadata or None,
            *presented_cells(entry.amount_minor, entry.scale, entry.currency, presentation),
        )


def presented_cells(amount_minor: int, scale: int, currency: str, presentation: Presentation | None) -> Row:
    """Cells of PRESENTED_COLUMNS; none when nothing is presented."""
    if presentation is None:
        return ()
    presented_minor = rounded_minor(presented_exactly(amount_minor, scale, currency, presentation))
    return (Amount(presented_minor, presentation.scale), presented_minor, presentation.currency)
