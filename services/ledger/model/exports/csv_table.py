"""A table as comma-separated values (RFC 4180): CRLF, a header line, UTF-8, the same number of fields in each line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from datetime import datetime

from services.ledger.model.exports.tables import (
    Amount,
    Row,
    Table,
    Value,
    looks_like_formula,
    major_text,
    time_text,
)


class CsvWriter:
    """Writes a table piece by piece."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def begin(self) -> bytes:
        """The header line."""
        return _lines([[column.name for column in self._table.columns]])

    def rows(self, rows: Iterable[Row]) -> bytes:
        """The next lines."""
        return _lines([_cell(value) for value in row] for row in rows)

    def end(self) -> bytes:
        """Nothing: the last line is the end."""
        return b""


def _lines(rows: Iterable[list[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


def _cell(value: Value) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case Amount():
            return major_text(value.amount_minor, value.scale)
        case datetime():
            return time_text(value)
    # An apostrophe in front tells every spreadsheet that a text follows.
    return f"'{value}" if looks_like_formula(value) else value
