"""Entries, through the contract."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from kente.ledger.v1.ledger_service_pb2 import ListEntriesRequest

from mesh.errors import Reason
from mesh.money import INT64_MAX
from mesh.pages import encode_page_token
from tests.ledger.book import BANK, FEES, PAYER, Book, credit, debit, refusal


@pytest.fixture
async def used_book(book: Book) -> Book:
    """A book with seven transactions from two sources."""
    await book.open(BANK, PAYER, FEES)
    for number in range(1, 8):
        await book.post(
            debit(BANK, number), credit(PAYER if number % 2 else FEES, number), source_id=f"pay_{number % 3}"
        )
    return book


async def test_entries_are_numbered_without_a_gap_in_the_order_they_were_booked(used_book: Book) -> None:
    entries = await used_book.entries()

    assert [entry.sequence for entry in entries] == list(range(1, 15))
    assert [entry.amount.amount_minor for entry in entries[::2]] == [1, 2, 3, 4, 5, 6, 7]
    times = [entry.create_time.ToNanoseconds() for entry in entries]
    assert times == sorted(times)


async def test_a_clock_set_back_does_not_reorder_the_book(used_book: Book, admin: asyncpg.Connection) -> None:
    ahead = datetime.now(UTC) + timedelta(hours=1)
    await admin.execute("UPDATE books SET last_create_time = $2 WHERE tenant_id = $1", used_book.tenant_id, ahead)

    transaction = await used_book.post(debit(BANK, 1), credit(PAYER, 1))

    assert transaction.create_time.ToDatetime(tzinfo=UTC) == ahead


async def test_a_refused_posting_leaves_no_gap(used_book: Book) -> None:
    await refusal(used_book.post(debit(BANK, 1), credit("assets:nowhere", 1)))
    transaction = await used_book.post(debit(BANK, 1), credit(PAYER, 1))

    assert [entry.sequence for entry in transaction.entries] == [15, 16]


@pytest.mark.parametrize("page_size", [1, 3, 4, 14, 15])
async def test_pages_of_any_size_give_each_entry_once(used_book: Book, page_size: int) -> None:
    assert await used_book.entries(page_size=page_size) == await used_book.entries()


async def test_entries_of_one_account_carry_its_running_balance(used_book: Book) -> None:
    entries = await used_book.entries(account_name=BANK, page_size=2)

    assert [entry.balance_after.amount_minor for entry in entries] == [1, 3, 6, 10, 15, 21, 28]
    assert {entry.account_name for entry in entries} == {BANK}


async def test_entries_of_one_source_are_those_of_its_transactions(used_book: Book) -> None:
    entries = await used_book.entries(source_id="pay_1", page_size=3)

    assert [(entry.sequence, entry.amount.amount_minor) for entry in entries] == [
        (1, 1),
        (2, 1),
        (7, 4),
        (8, 4),
        (13, 7),
        (14, 7),
    ]


async def test_both_filters_hold_together(used_book: Book) -> None:
    entries = await used_book.entries(source_id="pay_1", account_name=PAYER)

    assert [entry.sequence for entry in entries] == [2, 14]


async def test_a_new_entry_never_appears_before_a_page_already_read(used_book: Book) -> None:
    first = await used_book.stub.ListEntries(ListEntriesRequest(page_size=13))
    await used_book.post(debit(BANK, 1), credit(PAYER, 1))

    second = await used_book.stub.ListEntries(ListEntriesRequest(page_size=13, page_token=first.next_page_token))

    assert [entry.sequence for entry in second.entries] == [14, 15, 16]


@pytest.mark.parametrize("filters", [{"account_name": "assets:nowhere"}, {"source_id": "pay_9"}])
async def test_a_filter_that_nothing_passes_gives_an_empty_page(used_book: Book, filters: dict[str, str]) -> None:
    assert await used_book.entries(**filters) == []


async def test_a_tenant_without_a_book_has_no_entries(book: Book) -> None:
    assert await book.entries() == []
    assert await book.entries(account_name=BANK, source_id="pay_1") == []


async def test_a_page_token_is_for_the_same_filters_only(used_book: Book) -> None:
    page = await used_book.stub.ListEntries(ListEntriesRequest(page_size=1, account_name=BANK))

    for other in (
        ListEntriesRequest(page_token=page.next_page_token),
        ListEntriesRequest(page_token=page.next_page_token, account_name=PAYER),
        ListEntriesRequest(page_token=page.next_page_token, account_name=BANK, source_id="pay_1"),
    ):
        assert (await refusal(used_book.stub.ListEntries(other))).reason is Reason.PAGE_TOKEN_INVALID


@pytest.mark.parametrize("position", [{}, {"sequence": "1"}, {"sequence": -1}, {"sequence": INT64_MAX + 1}])
async def test_a_forged_page_token_is_refused(used_book: Book, position: dict[str, str | int]) -> None:
    arguments = {"list": "entries", "tenant_id": used_book.tenant_id, "account_name": "", "source_id": ""}
    page_token = encode_page_token(position, arguments)

    problem = await refusal(used_book.stub.ListEntries(ListEntriesRequest(page_token=page_token)))

    assert problem.reason is Reason.PAGE_TOKEN_INVALID


@pytest.mark.parametrize("filters", [{"account_name": "\x00"}, {"source_id": "\x00"}, {"source_id": "x" * 65}])
async def test_a_filter_that_can_hold_for_nothing_is_refused(book: Book, filters: dict[str, Any]) -> None:
    problem = await refusal(book.stub.ListEntries(ListEntriesRequest(**filters)))

    assert problem.reason is Reason.FIELD_INVALID
