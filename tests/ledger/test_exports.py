"""Entries and reports as files of tables."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from typing import Any

import openpyxl
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from kente.common.v1.money_pb2 import Money
from kente.ledger.v1 import ledger_pb2, ledger_service_pb2

from mesh.errors import Reason
from mesh.ids import new_id
from tests.harness import TestMesh
from tests.ledger.book import BANK, FEES, PAYER, SCOPES, Book, credit, debit, new_request_id, refusal
from tests.ledger.files import Files, as_timestamp
from tests.ledger.rich_book import RichBook

PAST = "2025-06-30T12:00:00Z"


@pytest.fixture
def files(ledger: TestMesh, book: Book) -> Files:
    """Exports of this test's tenant."""
    return Files(ledger.client("ledger", book.tenant_id, SCOPES))


async def test_every_entry_is_a_row_in_the_order_of_booking(book: Book, files: Files) -> None:
    await RichBook(book, 4).fill(80)

    rows = await files.rows()

    entries = await book.entries(page_size=200)
    assert [int(row["sequence"]) for row in rows] == [entry.sequence for entry in entries]
    for row, entry in zip(rows, entries, strict=True):
        assert row["transaction_id"] == entry.transaction_id
        assert row["account_name"] == entry.account_name
        assert int(row["amount_minor"]) == entry.amount.amount_minor
        assert int(row["balance_after_minor"]) == entry.balance_after.amount_minor
        assert row["pending"] == ("true" if entry.pending else "false")
        assert row["effective_time"] == as_text(entry.effective_time)
        assert Decimal(row["amount"]).scaleb(int(row["scale"])) == entry.amount.amount_minor


def as_text(timestamp: Timestamp) -> str:
    """A time with all six decimals."""
    text = timestamp.ToJsonString()
    whole, _, decimals = text.removesuffix("Z").partition(".")
    return f"{whole}.{decimals:0<6}Z"


async def test_a_large_file_comes_in_parts_and_whole(open_book: Book, files: Files) -> None:
    transfers = [
        ledger_pb2.Transfer(
            transaction_id=new_id("txn"),
            debit_account_name=BANK,
            credit_account_name=PAYER,
            amount=Money(amount_minor=amount, currency="GHS"),
            description="d" * 100,
        )
        for amount in range(1, 1_501)
    ]
    await open_book.stub.CreateTransfers(
        ledger_service_pb2.CreateTransfersRequest(request_id=new_request_id(), transfers=transfers)
    )

    rows = await files.rows()

    assert [int(row["sequence"]) for row in rows] == list(range(1, 3_001))
    assert [int(row["amount_minor"]) for row in rows[::2]] == list(range(1, 1_501))
    assert len(await files.parts("CSV")) > 2
    assert (await files.export("HLEDGER")).count(b"; kind:posting") == 1_500


async def test_a_file_is_of_one_book(open_book: Book, files: Files) -> None:
    await open_book.open(BANK, PAYER, book_name="other")
    await open_book.post(debit(BANK, 1), credit(PAYER, 1))
    await open_book.post(debit(BANK, 2), credit(PAYER, 2), book_name="other")

    assert {row["amount_minor"] for row in await files.rows()} == {"1"}
    assert {row["amount_minor"] for row in await files.rows(book_name="other")} == {"2"}
    journal = await files.export("BEANCOUNT", book_name="other")
    assert b"0.02 GHS" in journal
    assert b"0.01 GHS" not in journal


async def test_texts_come_back_as_they_were_but_for_the_mark_of_a_text(open_book: Book, files: Files) -> None:
    description = '=HYPERLINK("http://example.test","pay, now")\r\n"second" line'
    await open_book.post(debit(BANK, 1), credit(PAYER, 1), description=description, source_id="-1+1")

    row = (await files.rows())[0]

    assert row["description"] == f"'{description}"
    assert row["source_id"] == "'-1+1"


async def test_all_tables_hold_the_same(book: Book, files: Files) -> None:
    await RichBook(book, 5).fill(40)

    rows = await files.rows()
    document = json.loads(await files.export("JSON"))
    sheet = openpyxl.load_workbook(io.BytesIO(await files.export("XLSX")), read_only=True)["entries"]

    assert document["bookName"] == "main"
    header, *lines = sheet.iter_rows(values_only=True)
    assert list(rows[0]) == list(header)
    assert len(rows) == len(lines) == len(document["rows"])
    amount = list(header).index("amount")
    for row, line, entry in zip(rows, lines, document["rows"], strict=True):
        assert row["amount"] == entry["amount"]
        assert Decimal(str(line[amount])) == Decimal(row["amount"])
        assert row["transaction_id"] == entry["transactionId"]
        metadata = json.loads(row["metadata"]) if row["metadata"] else {}
        assert metadata == entry.get("metadata", {})


async def test_a_period_of_effect_and_a_time_of_booking_choose_entries(open_book: Book, files: Files) -> None:
    await open_book.post(debit(BANK, 1), credit(PAYER, 1), effective_time=as_timestamp(PAST))
    booked = await open_book.post(debit(BANK, 2), credit(PAYER, 2))
    await open_book.post(debit(BANK, 4), credit(PAYER, 4))

    async def amounts(**fields: Any) -> list[str]:
        return [row["amount_minor"] for row in await files.rows(**fields) if row["side"] == "debit"]

    assert await amounts() == ["1", "2", "4"]
    assert await amounts(end_time=as_timestamp(PAST)) == []
    assert await amounts(start_time=as_timestamp(PAST), end_time=as_timestamp("2025-07-01T00:00:00Z")) == ["1"]
    assert await amounts(start_time=as_timestamp("2025-07-01T00:00:00Z")) == ["2", "4"]
    assert await amounts(booking_time=booked.create_time) == ["1", "2"]


async def test_entries_are_shown_in_another_currency_as_well(open_book: Book, files: Files) -> None:
    await open_book.post(debit(BANK, 1_050), credit(PAYER, 1_050))

    row = (await files.rows(presentation_currency="USD", rates=[{"currency": "GHS", "rate": "0.0815"}]))[0]

    assert (row["presented"], row["presentation_currency"]) == ("0.86", "USD")


async def test_a_statement_runs_from_the_opening_to_the_closing_balance(open_book: Book, files: Files) -> None:
    await open_book.post(debit(BANK, 100), credit(PAYER, 100), effective_time=as_timestamp(PAST))
    for amount in range(1, 251):
        await open_book.post(debit(BANK, amount), credit(FEES, amount), description=f"sale {amount}")

    rows = await files.rows("STATEMENT", account_name=BANK, start_time=as_timestamp("2025-07-01T00:00:00Z"))

    first, *entries, last = rows
    assert (first["row"], first["running_balance"]) == ("opening", "1.00")
    assert [row["description"] for row in entries] == [f"sale {amount}" for amount in range(1, 251)]
    running = 100
    for row in entries:
        running += int(row["amount_minor"])
        assert int(row["running_balance_minor"]) == running
    assert (last["row"], int(last["running_balance_minor"])) == ("closing", running)


async def test_reports_say_what_their_rpcs_say(open_book: Book, files: Files) -> None:
    await open_book.post(debit(BANK, 900), credit(PAYER, 900))
    await open_book.post(debit(PAYER, 50), credit(FEES, 50))
    report = await open_book.stub.GetTrialBalance(ledger_service_pb2.GetTrialBalanceRequest())

    trial = await files.rows("TRIAL_BALANCE")
    sheet = await files.rows("BALANCE_SHEET")
    earned = await files.rows("PROFIT_AND_LOSS")

    assert {row["account_name"]: (row["debit_minor"], row["credit_minor"]) for row in trial if row["account_name"]} == {
        line.account_name: (str(line.debit.amount_minor), str(line.credit.amount_minor)) for line in report.lines
    }
    totals = [(row["section"], row["row"], row["balance"]) for row in sheet if row["row"] != "account"]
    assert totals == [
        ("assets", "total", "9.00"),
        ("liabilities", "total", "8.50"),
        ("equity", "unallocated_earnings", "0.50"),
        ("equity", "total", "0.50"),
    ]
    assert [(row["section"], row["balance"]) for row in earned if row["row"] == "total"] == [
        ("income", "0.50"),
        ("net_income", "0.50"),
    ]


async def test_reports_are_shown_in_another_currency_as_well(open_book: Book, files: Files) -> None:
    await open_book.post(debit(BANK, 900), credit(PAYER, 900))
    presentation = {"presentation_currency": "USD", "rates": [{"currency": "GHS", "rate": "0.5"}]}

    for kind in ("TRIAL_BALANCE", "BALANCE_SHEET"):
        rows = await files.rows(kind, **presentation)
        assert {row["account_name"]: row["presented"] for row in rows if row["row"] == "account"}[BANK] == "4.50"


@pytest.mark.parametrize("form", ["HLEDGER", "BEANCOUNT"])
@pytest.mark.parametrize("kind", ["STATEMENT", "TRIAL_BALANCE", "BALANCE_SHEET", "PROFIT_AND_LOSS"])
@pytest.mark.usefixtures("open_book")
async def test_a_journal_shows_no_report(files: Files, form: str, kind: str) -> None:
    problem = await refusal(files.export(form, kind, account_name=BANK if kind == "STATEMENT" else ""))

    assert problem.reason is Reason.FIELD_INVALID
    assert [violation.field for violation in problem.violations] == ["format"]


@pytest.mark.parametrize(
    ("kind", "fields", "field"),
    [
        ("STATEMENT", {}, "account_name"),
        ("ENTRIES", {"account_name": BANK}, "account_name"),
        ("ENTRIES", {"presentation_currency": "USD"}, "rates"),
        ("TRIAL_BALANCE", {"presentation_currency": "USD"}, "rates"),
        ("STATEMENT", {"account_name": BANK, "presentation_currency": "USD"}, "rates"),
        ("TRIAL_BALANCE", {"start_time": as_timestamp(PAST)}, "start_time"),
        ("ENTRIES", {"start_time": as_timestamp(PAST), "end_time": as_timestamp(PAST)}, "end_time"),
    ],
)
async def test_what_does_not_go_together_is_named(
    open_book: Book, files: Files, kind: str, fields: dict[str, object], field: str
) -> None:
    await open_book.post(debit(BANK, 900), credit(PAYER, 900))

    problem = await refusal(files.export("CSV", kind, **fields))

    assert problem.reason is Reason.FIELD_INVALID
    assert [violation.field for violation in problem.violations] == [field]


@pytest.mark.parametrize("kind", ["ENTRIES", "TRIAL_BALANCE", "BALANCE_SHEET", "PROFIT_AND_LOSS"])
@pytest.mark.parametrize("form", ["CSV", "XLSX"])
@pytest.mark.usefixtures("open_book")
async def test_a_book_that_is_not_there_is_told(files: Files, kind: str, form: str) -> None:
    problem = await refusal(files.export(form, kind, book_name="other"))

    assert problem.reason is Reason.RESOURCE_NOT_FOUND
    assert problem.metadata == {"book_name": "other"}


async def test_another_tenants_entries_are_in_no_file(open_book: Book, ledger: TestMesh, files: Files) -> None:
    await open_book.post(debit(BANK, 1), credit(PAYER, 1))
    other = Book(ledger.client("ledger", other_id := new_id("ten"), SCOPES), other_id)
    await other.open(BANK, PAYER)
    await other.post(debit(BANK, 2), credit(PAYER, 2))

    assert {row["amount_minor"] for row in await files.rows()} == {"1"}


async def test_a_file_needs_the_scope_to_read(open_book: Book, ledger: TestMesh) -> None:
    stranger = Files(ledger.client("ledger", open_book.tenant_id, ["payments:read"]))

    assert (await refusal(stranger.export("CSV"))).reason is Reason.SCOPE_MISSING
