"""A table as one JSON document (RFC 8259): what it is about, then "rows", an object each, a line each.

Names are those of the contracts' JSON. Whole numbers and amounts are strings, as 64-bit integers are there: many
readers would make them a double and lose digits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from services.ledger.model.exports.tables import Row, Table, Value, cell_text


class JsonWriter:
    """Writes a table piece by piece."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._names = [_camel(column.name) for column in table.columns]
        self._first = True

    def begin(self) -> bytes:
        """The document up to its rows."""
        head = {"report": self._table.title} | {_camel(name): text for name, text in self._table.facts}
        return (json.dumps(head, ensure_ascii=False)[:-1] + ', "rows": [').encode()

    def rows(self, rows: Iterable[Row]) -> bytes:
        """The next rows. Cells that hold nothing are left out."""
        parts = []
        for row in rows:
            cells = {name: _cell(value) for name, value in zip(self._names, row, strict=True) if value is not None}
            parts.append(("\n" if self._first else ",\n") + json.dumps(cells, ensure_ascii=False))
            self._first = False
        return "".join(parts).encode()

    def end(self) -> bytes:
        """The end of the document."""
        return b"\n]}\n"


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(part.capitalize() for part in others)


def _cell(value: Value) -> str | bool | dict[str, str]:
    match value:
        case bool():
            return value
        case Mapping():
            return dict(value)
        case _:
            return cell_text(value)
