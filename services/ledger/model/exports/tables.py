"""What all tables have in common: columns, the values of their cells, and what is done to keep them harmless."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

# A programme that opens a table takes such a text for a formula, some also after blanks and in full-width form. The
# apostrophe is among them so that taking one away always gives the text as it was.
_FORMULA = re.compile(r"[\t\r\n]|\s*['=+\-@＝＋－＠]")  # noqa: RUF001 - these very characters


class Kind(enum.Enum):
    """What the cells of a column hold, which decides how each form writes them."""

    TEXT = enum.auto()
    INTEGER = enum.auto()
    AMOUNT = enum.auto()
    FLAG = enum.auto()
    TIME = enum.auto()
    MAP = enum.auto()


@dataclass(frozen=True, slots=True)
class Column:
    """One column; the name has the words of the contracts."""

    name: str
    kind: Kind = Kind.TEXT


@dataclass(frozen=True, slots=True)
class Amount:
    """An amount of a currency with so many decimals, written in major units."""

    amount_minor: int
    scale: int


Value = str | int | bool | datetime | Amount | Mapping[str, str] | None
Row = Sequence[Value]


@dataclass(frozen=True, slots=True)
class Table:
    """A table before its rows: what it is, and its columns.

    Attributes:
        title: what it shows, such as "entries".
        facts: what it is about, such as the book and the period, by name; values are texts.
    """

    title: str
    columns: tuple[Column, ...]
    facts: tuple[tuple[str, str], ...] = ()


def major_text(amount_minor: int, scale: int) -> str:
    """An amount in major units with exactly its decimals: 1050 with scale 2 is "10.50". By digits, so always exact."""
    digits = str(abs(amount_minor)).rjust(scale + 1, "0")
    sign = "-" if amount_minor < 0 else ""
    return f"{sign}{digits[:-scale]}.{digits[-scale:]}" if scale else f"{sign}{digits}"


def time_text(time: datetime) -> str:
    """A time in RFC 3339 with microseconds, in UTC."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


def map_text(names: Mapping[str, str]) -> str:
    """Names and their values as JSON, sorted; nothing when there are none."""
    return json.dumps(dict(names), ensure_ascii=False, sort_keys=True) if names else ""


def looks_like_formula(text: str) -> bool:
    """Whether a programme might evaluate a text instead of showing it."""
    return _FORMULA.match(text) is not None


def cell_text(value: Value) -> str:
    """Any value as a text; nothing is an empty text."""
    match value:
        case None:
            text = ""
        case bool():
            text = "true" if value else "false"
        case Amount():
            text = major_text(value.amount_minor, value.scale)
        case datetime():
            text = time_text(value)
        case Mapping():
            text = map_text(value)
        case int() | str():
            text = str(value)
    return text
