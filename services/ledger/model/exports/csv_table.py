"""A table as comma-separated values (RFC 4180): CRLF, a header line, UTF-8, the same number of fields in each line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from services.ledger.model.exports.tables import (
    Row,
    Table,
    Value,
    cell_text,
    looks_like_formula,
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
    text = cell_text(value)
    # An apostrophe in front tells every spreadsheet that a text follows. What is no text can't be a formula.
    return f"'{text}" if isinstance(value, str) and looks_like_formula(text) else text
