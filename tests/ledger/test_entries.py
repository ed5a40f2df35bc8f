"""Entries, through the contract."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1.ledger_service_pb2 import ListEntriesRequest

from mesh.errors import Reason
from mesh.pages import encode_page_token
from services.ledger.model.reading import EntryFilter
from services.ledger.repository import entries as entries_repository
from tests.ledger.book import BANK, FEES, PAYER, Book, credit, debit, refusal
from tests.ledger.chart import batch_request, draft
from tests.ledger.clock import SettableClock
from tests.ledger.past import MICROSECOND, START
from tests.ledger.teller import timestamp

DAY = timedelta(days=1)


@pytest.fixture
def book(timed_book: Book) -> Book:
    """The book of this test's tenant; all tests of this module share one service."""
    return timed_book


@pytest.fixture
async def used_book(book: Book, clock: SettableClock) -> Book:
    """A book with seven transactions from two sources, a day after each other, over the end of a month."""
    clock.now = START
    await book.open(BANK, PAYER, FEES)
    for number in range(1, 8):
        await book.post(
            debit(BANK, number),
            credit(PAYER if number % 2 else FEES, number),
            source_id=f"pay_{number % 3}",
            metadata={"order": str(number), "channel": "web"} if number % 2 else {"channel": "shop"},
        )
        clock.advance(DAY.total_seconds())
    return book


def time_of(number: int) -> datetime:
    """When the transaction of that number was booked, from 1."""
    return START + (number - 1) * DAY


async def sequences(book: Book, **filters: Any) -> list[int]:
    """Sequences of the entries that pass the filters, in pages of two."""
    return [entry.sequence for entry in await book.entries(page_size=2, **filters)]


async def test_entries_are_numbered_without_a_gap_in_the_order_they_were_booked(used_book: Book) -> None:
    entries = await used_book.entries()

    assert [entry.sequence for entry in entries] == list(range(1, 15))
    assert [entry.amount.amount_minor for entry in entries[::2]] == [1, 2, 3, 4, 5, 6, 7]
    times = [entry.create_time.ToNanoseconds() for entry in entries]
    assert times == sorted(times)


async def test_a_clock_set_back_does_not_reorder_the_book(used_book: Book, clock: SettableClock) -> None:
    before = await used_book.post(debit(BANK, 1), credit(PAYER, 1))
    clock.advance(-3600)
    after = await used_book.post(debit(BANK, 1), credit(PAYER, 1))

    assert after.create_time == before.create_time
    assert after.entries[0].sequence > before.entries[1].sequence


async def test_a_refused_posting_leaves_no_gap(used_book: Book) -> None:
    await refusal(used_book.post(debit(BANK, 1), credit("assets:nowhere", 1)))
    transaction = await used_book.post(debit(BANK, 1), credit(PAYER, 1))

    assert [entry.sequence for entry in transaction.entries] == [15, 16]


async def test_entries_say_what_their_transaction_says(used_book: Book) -> None:
    transaction = await used_book.post(
        debit(BANK, 1), credit(PAYER, 1), effective_time=timestamp(START - DAY), pending=True
    )

    assert (await used_book.entries())[-2:] == list(transaction.entries)
    assert transaction.entries[0].pending
    assert transaction.entries[0].effective_time == timestamp(START - DAY)


@pytest.mark.parametrize("page_size", [1, 3, 4, 14, 15])
async def test_pages_of_any_size_give_each_entry_once(used_book: Book, page_size: int) -> None:
    for filters in ({}, {"account_name": BANK}, {"account_name_prefix": "i"}, {"source_id": "pay_1"}):
        assert await used_book.entries(page_size=page_size, **filters) == await used_book.entries(**filters)


async def test_entries_of_one_account_carry_its_running_balance(used_book: Book) -> None:
    entries = await used_book.entries(account_name=BANK, page_size=2)

    assert [entry.balance_after.amount_minor for entry in entries] == [1, 3, 6, 10, 15, 21, 28]
    assert {entry.account_name for entry in entries} == {BANK}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"source_id": "pay_1"}, [1, 2, 7, 8, 13, 14]),
        ({"source_id": "pay_1", "account_name": PAYER}, [2, 14]),
        ({"account_name": FEES}, [4, 8, 12]),
        ({"account_name_prefix": "income"}, [4, 8, 12]),
        ({"account_name_prefix": "liabilities:p", "side": ledger_pb2.SIDE_CREDIT}, [2, 6, 10, 14]),
        ({"account_name_prefix": "income", "side": ledger_pb2.SIDE_DEBIT}, []),
        ({"account_name_prefix": ""}, list(range(1, 15))),
        ({"account_type": ledger_pb2.Account.TYPE_INCOME}, [4, 8, 12]),
        ({"account_type": ledger_pb2.Account.TYPE_ASSET, "min_amount_minor": 6}, [11, 13]),
        ({"account_type": ledger_pb2.Account.TYPE_INCOME, "account_name_prefix": "assets"}, []),
        ({"side": ledger_pb2.SIDE_CREDIT}, [2, 4, 6, 8, 10, 12, 14]),
        ({"min_amount_minor": 3, "max_amount_minor": 4}, [5, 6, 7, 8]),
        ({"max_amount_minor": 0}, []),
        ({"metadata": {"order": "3"}}, [5, 6]),
        ({"metadata": {"channel": "shop"}, "account_name": BANK}, [3, 7, 11]),
        ({"metadata": {"channel": "shop"}, "source_id": "pay_1"}, [7, 8]),
        ({"metadata": {"channel": "web", "order": "2"}}, []),
        ({"start_time": timestamp(time_of(6))}, [11, 12, 13, 14]),
        ({"start_time": timestamp(time_of(6) + MICROSECOND)}, [13, 14]),
        ({"end_time": timestamp(time_of(2))}, [1, 2]),
        ({"end_time": timestamp(time_of(2) + MICROSECOND)}, [1, 2, 3, 4]),
        ({"start_time": timestamp(time_of(2)), "end_time": timestamp(time_of(4)), "account_name": BANK}, [3, 5]),
        ({"start_time": timestamp(time_of(2)), "end_time": timestamp(time_of(5)), "source_id": "pay_1"}, [7, 8]),
        ({"account_name": "assets:nowhere"}, []),
        ({"account_name_prefix": "x"}, []),
        ({"source_id": "pay_9"}, []),
        ({"book_name": "other"}, []),
        ({"book_name": "other", "account_name": BANK}, []),
        ({"book_name": "other", "source_id": "pay_1"}, []),
    ],
)
async def test_filters_let_through_what_they_say(used_book: Book, filters: dict[str, Any], expected: list[int]) -> None:
    assert await sequences(used_book, **filters) == expected


async def test_filters_by_many_accounts_give_the_same_as_by_few(book: Book) -> None:
    names = [f"assets:{number:03}" for number in range(120)]
    await book.stub.BatchCreateAccounts(batch_request(*(draft(name) for name in [*names, PAYER])))
    for number in range(0, 120, 10):
        await book.post(debit(names[number], 1), credit(PAYER, 1))

    assert await sequences(book, account_name_prefix="assets:") == list(range(1, 25, 2))
    assert await sequences(book, account_name_prefix="assets:0") == list(range(1, 21, 2))
    assert await sequences(book, account_type=ledger_pb2.Account.TYPE_ASSET) == list(range(1, 25, 2))


async def test_entries_are_those_of_one_book(used_book: Book) -> None:
    await used_book.open(BANK, PAYER, book_name="other")
    await used_book.post(debit(BANK, 1), credit(PAYER, 1), book_name="other", source_id="pay_1")

    assert await sequences(used_book, book_name="other") == [15, 16]
    assert await sequences(used_book, book_name="other", source_id="pay_1") == [15, 16]
    assert await sequences(used_book, source_id="pay_1") == [1, 2, 7, 8, 13, 14]
    assert 15 not in await sequences(used_book)


async def test_a_new_entry_never_appears_before_a_page_already_read(used_book: Book) -> None:
    first = await used_book.stub.ListEntries(ListEntriesRequest(page_size=13))
    await used_book.post(debit(BANK, 1), credit(PAYER, 1))

    second = await used_book.stub.ListEntries(ListEntriesRequest(page_size=13, page_token=first.next_page_token))

    assert [entry.sequence for entry in second.entries] == [14, 15, 16]


async def test_a_tenant_without_a_book_has_no_entries(book: Book) -> None:
    assert await book.entries() == []
    assert await book.entries(account_name=BANK, source_id="pay_1") == []


async def test_a_page_token_is_for_the_same_filters_only(used_book: Book) -> None:
    page = await used_book.stub.ListEntries(ListEntriesRequest(page_size=1, account_name=BANK))

    for other in (
        ListEntriesRequest(page_token=page.next_page_token),
        ListEntriesRequest(page_token=page.next_page_token, account_name=PAYER),
        ListEntriesRequest(page_token=page.next_page_token, account_name=BANK, source_id="pay_1"),
        ListEntriesRequest(page_token=page.next_page_token, account_name=BANK, min_amount_minor=0),
        ListEntriesRequest(page_token=page.next_page_token, account_name=BANK, metadata={"a": "b"}),
    ):
        assert (await refusal(used_book.stub.ListEntries(other))).reason is Reason.PAGE_TOKEN_INVALID


@pytest.mark.parametrize(
    "changed",
    [
        {"sequence": "1"},
        {"sequence": -1},
        {"leaf_index": -1},
        {"create_time_micros": "1"},
        {"create_time_micros": 2**62},
        {"create_time_micros": -(2**62)},
    ],
)
async def test_a_forged_page_token_is_refused(used_book: Book, changed: dict[str, str | int]) -> None:
    place: dict[str, str | int] = {"sequence": 12, "leaf_index": 5, "create_time_micros": 0}
    arguments = {
        "list": "entries",
        "tenant_id": used_book.tenant_id,
        "wanted": repr(EntryFilter(book_name="main")),
    }
    good = ListEntriesRequest(page_token=encode_page_token(place, arguments))
    bad = ListEntriesRequest(page_token=encode_page_token(place | changed, arguments))

    assert [entry.sequence for entry in (await used_book.stub.ListEntries(good)).entries] == [13, 14]
    assert (await refusal(used_book.stub.ListEntries(bad))).reason is Reason.PAGE_TOKEN_INVALID


@pytest.mark.parametrize(
    "filters",
    [
        {"account_name": "\x00"},
        {"source_id": "\x00"},
        {"source_id": "x" * 65},
        {"min_amount_minor": -1},
        {"metadata": {"a": "\x00"}},
        {"start_time": timestamp(START), "end_time": timestamp(START)},
    ],
)
async def test_a_filter_that_can_hold_for_nothing_is_refused(book: Book, filters: dict[str, Any]) -> None:
    problem = await refusal(book.stub.ListEntries(ListEntriesRequest(**filters)))

    assert problem.reason is Reason.FIELD_INVALID


async def test_a_long_search_goes_on_in_the_next_page(used_book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries_repository, "MOST_SEQUENCES", 3)

    first = await used_book.stub.ListEntries(ListEntriesRequest(min_amount_minor=7))

    assert (list(first.entries), bool(first.next_page_token)) == ([], True)
    assert await sequences(used_book, min_amount_minor=7) == [13, 14]
    assert await sequences(used_book) == list(range(1, 15))
    assert await sequences(used_book, start_time=timestamp(time_of(6)), side=ledger_pb2.SIDE_DEBIT) == [11, 13]
