"""Forms of exports by themselves: exact, harmless to what opens them, and readable by others than their writer."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl.worksheet.worksheet import Worksheet

from services.ledger.model.accounts import AccountType
from services.ledger.model.exports.beancount import beancount_name
from services.ledger.model.exports.csv_table import CsvWriter
from services.ledger.model.exports.journals import distinct
from services.ledger.model.exports.json_table import JsonWriter
from services.ledger.model.exports.tables import Amount, Column, Kind, Row, Table, major_text, time_text
from services.ledger.model.exports.workbook import WorkbookWriter

TABLE = Table(
    "entries",
    (
        Column("account_name"),
        Column("sequence", Kind.INTEGER),
        Column("amount", Kind.AMOUNT),
        Column("pending", Kind.FLAG),
        Column("create_time", Kind.TIME),
        Column("metadata", Kind.MAP),
    ),
    (("book_name", "main"),),
)
TIME = datetime(2026, 1, 31, 18, 0, 0, 123456, tzinfo=UTC)
PLAIN: Row = ("assets:bank", 7, Amount(-1050, 2), False, TIME, {"b": "2", "a": "1"})
FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "＝1", "'text")  # noqa: RUF001 - meant
# Texts that a proto and PostgreSQL can hold.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def as_csv(*rows: Row) -> bytes:
    """The rows as a whole file."""
    writer = CsvWriter(TABLE)
    return writer.begin() + writer.rows(rows) + writer.end()


def as_sheet(folder: Path, *rows: Row, sheet_rows_max: int = 1_000) -> openpyxl.Workbook:
    """The rows as a workbook, read back by another library."""
    writer = WorkbookWriter(TABLE, folder, sheet_rows_max)
    writer.begin()
    writer.rows(rows)
    writer.end()
    return openpyxl.load_workbook(writer.path)


def sheet_of(workbook: openpyxl.Workbook, name: str) -> Worksheet:
    """One sheet."""
    sheet = workbook[name]
    assert isinstance(sheet, Worksheet)
    return sheet


def test_csv_has_a_header_and_ends_each_line_with_crlf() -> None:
    assert as_csv(PLAIN) == (
        b"account_name,sequence,amount,pending,create_time,metadata\r\n"
        b'assets:bank,7,-10.50,false,2026-01-31T18:00:00.123456Z,"{""a"": ""1"", ""b"": ""2""}"\r\n'
    )


@given(texts)
def test_csv_gives_every_text_back_and_never_as_a_formula(text: str) -> None:
    rows = list(csv.reader(io.StringIO(as_csv((text, 1, None, True, None, None)).decode(), newline="")))

    assert len(rows) == 2
    cell = rows[1][0]
    assert (cell.removeprefix("'")) == text
    assert not cell.lstrip().startswith(("=", "+", "-", "@"))


@pytest.mark.parametrize("text", FORMULAS)
def test_csv_marks_what_a_spreadsheet_would_evaluate_as_text(text: str) -> None:
    rows = list(csv.reader(io.StringIO(as_csv((text, 1, None, True, None, None)).decode(), newline="")))

    assert rows[1][0] == f"'{text}"


def test_csv_leaves_a_negative_amount_a_number() -> None:
    assert b",-10.50," in as_csv(PLAIN)


@given(texts, st.integers(-(2**63) + 1, 2**63 - 1))
def test_json_gives_every_value_back_exactly(text: str, number: int) -> None:
    writer = JsonWriter(TABLE)
    row: Row = (text, number, Amount(number, 18), True, TIME, {"name": text})

    document = json.loads(writer.begin() + writer.rows([row]) + writer.rows([PLAIN]) + writer.end())

    assert document["report"] == "entries"
    assert document["bookName"] == "main"
    first, second = document["rows"]
    assert first["accountName"] == text
    assert first["sequence"] == str(number)
    assert first["amount"] == major_text(number, 18)
    assert first["metadata"] == {"name": text}
    assert second["pending"] is False


def test_json_without_rows_is_json() -> None:
    writer = JsonWriter(TABLE)

    assert json.loads(writer.begin() + writer.rows([]) + writer.end())["rows"] == []


def test_a_workbook_holds_numbers_times_and_texts(tmp_path: Path) -> None:
    sheet = sheet_of(as_sheet(tmp_path, PLAIN), "entries")

    assert [cell.value for cell in sheet[1]] == [column.name for column in TABLE.columns]
    name, sequence, amount, pending, time, metadata = sheet[2]
    assert (name.value, sequence.value, amount.value, pending.value) == ("assets:bank", 7, -10.5, False)
    assert amount.number_format == "0.00"
    assert time.value == datetime(2026, 1, 31, 18, 0, 0, 123000)  # noqa: DTZ001 - workbooks know no zones
    assert metadata.value == '{"a": "1", "b": "2"}'


@pytest.mark.parametrize("text", [*FORMULAS, "http://example.test", "1e5", "=cmd|' /C calc'!A0"])
def test_a_workbook_evaluates_no_text(tmp_path: Path, text: str) -> None:
    cell = sheet_of(as_sheet(tmp_path, (text, 1, None, True, None, None)), "entries")["A2"]

    assert cell.data_type in {"s", "inlineStr"}
    assert cell.hyperlink is None
    assert str(cell.value).replace("_x000D_", "\r").strip() == text.strip()


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (Amount(999_999_999_999_999, 2), 9_999_999_999_999.99),
        (Amount(1_000_000_000_000_001, 2), "10000000000000.01"),
        (Amount(-(2**63) + 1, 0), "-9223372036854775807"),
        (Amount(1, 18), 1e-18),
    ],
)
def test_a_workbook_writes_as_text_what_a_number_would_round(tmp_path: Path, amount: Amount, shown: object) -> None:
    cell = sheet_of(as_sheet(tmp_path, ("a", 1, amount, True, None, None)), "entries")["C2"]

    assert cell.value == shown


def test_a_workbook_goes_on_in_another_sheet_when_one_is_full(tmp_path: Path) -> None:
    rows: list[Row] = [("a", number, None, True, None, None) for number in range(5)]

    workbook = as_sheet(tmp_path, *rows, sheet_rows_max=3)

    assert workbook.sheetnames == ["entries", "entries 2", "entries 3", "about"]
    numbers = [
        row[1].value
        for name in workbook.sheetnames[:-1]
        for row in sheet_of(workbook, name).iter_rows(min_row=2, max_row=3)
        if row[1].value is not None
    ]
    assert numbers == list(range(5))


def test_a_workbook_says_what_it_is_about(tmp_path: Path) -> None:
    about = sheet_of(as_sheet(tmp_path, PLAIN), "about")

    assert [(row[0].value, row[1].value) for row in about.iter_rows()] == [
        ("report", "entries"),
        ("book_name", "main"),
        ("times", "UTC"),
    ]


@pytest.mark.parametrize(
    ("amount_minor", "scale", "text"),
    [
        (0, 2, "0.00"),
        (-1, 2, "-0.01"),
        (1050, 2, "10.50"),
        (1050, 0, "1050"),
        (1050, 3, "1.050"),
        (2**63 - 1, 18, "9.223372036854775807"),
    ],
)
def test_amounts_in_major_units_have_all_their_decimals(amount_minor: int, scale: int, text: str) -> None:
    assert major_text(amount_minor, scale) == text


def test_times_of_early_years_have_four_digits() -> None:
    assert time_text(datetime(7, 1, 1, tzinfo=UTC)) == "0007-01-01T00:00:00.000000Z"


@pytest.mark.parametrize(
    ("name", "type_", "expected"),
    [
        ("assets:mtn_momo:ghs", AccountType.ASSET, "Assets:Mtn-momo:Ghs"),
        ("assets", AccountType.ASSET, "Assets:Assets"),
        ("bank:cash", AccountType.ASSET, "Assets:Bank:Cash"),
        ("assets:odd", AccountType.LIABILITY, "Liabilities:Assets:Odd"),
        ("revenue:2024.q1", AccountType.INCOME, "Income:2024-q1"),
    ],
)
def test_accounts_get_names_by_the_rules_of_beancount(name: str, type_: AccountType, expected: str) -> None:
    assert beancount_name(name, type_) == expected


@given(st.lists(st.text("ab._-", min_size=1, max_size=4), unique=True))
def test_no_two_names_get_the_same_shape_and_a_new_one_changes_none(names: list[str]) -> None:
    def shape(name: str) -> str:
        return name.replace("_", "-").replace(".", "-")

    shapes = distinct(names, shape)

    assert len(set(shapes.values())) == len(names)
    assert shapes == {name: found for name, found in distinct([*names, "new"], shape).items() if name in names}
