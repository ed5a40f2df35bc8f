"""A table as a workbook (Office Open XML). Rows go to disk as they come, so memory does not grow with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import xlsxwriter
from xlsxwriter.format import Format
from xlsxwriter.worksheet import Worksheet

from services.ledger.model.exports.tables import (
    Amount,
    Kind,
    Row,
    Table,
    Value,
    looks_like_formula,
    major_text,
    map_text,
    time_text,
)

SHEET_ROWS_MAX = 1_048_576
# A cell's number is a double: up to so many digits it is exactly what was written.
_EXACT_DIGITS = 15
# Times before are no times to a workbook.
_FIRST_TIME = datetime(1900, 3, 1, tzinfo=UTC)
_CHARACTERS = {Kind.TEXT: 28, Kind.INTEGER: 12, Kind.AMOUNT: 18, Kind.FLAG: 9, Kind.TIME: 24, Kind.MAP: 28}


class WorkbookWriter:
    """Writes a table into a file, sheet after sheet. Not for several threads at a time.

    Args:
        folder: for the workbook and what is needed while it is made; whoever gives it removes it.
        sheet_rows_max: rows of a sheet, the header among them; what does not fit goes on in the next sheet.
    """

    def __init__(self, table: Table, folder: Path, sheet_rows_max: int = SHEET_ROWS_MAX) -> None:
        self.path = folder / "report.xlsx"
        self._table = table
        self._sheet_rows_max = sheet_rows_max
        options = {
            "constant_memory": True,
            "tmpdir": str(folder),
            # Texts are written as texts in any case; this is what else could make something else of them.
            "strings_to_formulas": False,
            "strings_to_numbers": False,
            "strings_to_urls": False,
            "default_date_format": "yyyy-mm-dd hh:mm:ss.000",
        }
        self._workbook = xlsxwriter.Workbook(str(self.path), options)
        self._heading = self._workbook.add_format({"bold": True, "bottom": 1})
        # Stays a text also when somebody edits the cell.
        self._quoted = self._workbook.add_format({"quote_prefix": True})
        self._whole = self._workbook.add_format({"num_format": "0"})
        self._decimals: dict[int, Format] = {}
        self._sheet: Worksheet
        self._sheets = 0
        self._next_row = 0

    def begin(self) -> None:
        """Begins the first sheet."""
        self._sheets += 1
        title = self._table.title if self._sheets == 1 else f"{self._table.title} {self._sheets}"
        self._sheet = self._workbook.add_worksheet(title)
        self._sheet.freeze_panes(1, 0)
        for index, column in enumerate(self._table.columns):
            self._sheet.set_column(index, index, _CHARACTERS[column.kind])
            self._sheet.write_string(0, index, column.name, self._heading)
        self._next_row = 1

    def rows(self, rows: Iterable[Row]) -> None:
        """Writes the next rows."""
        for row in rows:
            if self._next_row == self._sheet_rows_max:
                self.begin()
            for index, value in enumerate(row):
                self._write(index, value)
            self._next_row += 1

    def end(self) -> None:
        """Adds a sheet that says what this is, and completes the file."""
        about = self._workbook.add_worksheet("about")
        about.set_column(0, 1, 40)
        facts = (("report", self._table.title), *self._table.facts, ("times", "UTC"))
        for index, (name, text) in enumerate(facts):
            about.write_string(index, 0, name, self._heading)
            about.write_string(index, 1, text)
        self._workbook.close()

    def _write(self, index: int, value: Value) -> None:
        row, sheet = self._next_row, self._sheet
        match value:
            case None | "":
                return
            case bool():
                sheet.write_boolean(row, index, value)
            case int():
                self._write_number(index, Amount(value, 0))
            case Amount():
                self._write_number(index, value)
            case datetime() if value >= _FIRST_TIME:
                sheet.write_datetime(row, index, value.astimezone(UTC).replace(tzinfo=None))
            case datetime():
                sheet.write_string(row, index, time_text(value))
            case Mapping():
                sheet.write_string(row, index, map_text(value))
            case str():
                sheet.write_string(row, index, value, self._quoted if looks_like_formula(value) else None)

    def _write_number(self, index: int, amount: Amount) -> None:
        """Writes a number, or a text where a number would lose digits."""
        text = major_text(amount.amount_minor, amount.scale)
        if len(str(abs(amount.amount_minor))) > _EXACT_DIGITS:
            self._sheet.write_string(self._next_row, index, text)
        else:
            self._sheet.write_number(self._next_row, index, float(text), self._format_of(amount.scale))

    def _format_of(self, scale: int) -> Format:
        if not scale:
            return self._whole
        if scale not in self._decimals:
            self._decimals[scale] = self._workbook.add_format({"num_format": "0." + "0" * scale})
        return self._decimals[scale]
