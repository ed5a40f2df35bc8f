"""Statements of accounts, through the contract."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.errors import Reason
from mesh.pages import encode_page_token
from tests.harness import TestMesh
from tests.ledger.book import BANK, FEES, PAYER, Book, credit, debit, refusal
from tests.ledger.clock import SettableClock
from tests.ledger.past import (
    ACCOUNTS,
    BOOKS,
    START,
    Past,
    PastEntry,
    balance_of,
    compare_histories,
    sums_of,
)
from tests.ledger.teller import timestamp

DAY = timedelta(days=1)


@pytest.fixture
def book(timed_book: Book) -> Book:
    """The book of this test's tenant; all tests of this module share one service."""
    return timed_book


@pytest.fixture
async def used_book(book: Book, clock: SettableClock) -> Book:
    """A book with postings of 1, 2, 4, 8 and 16 on BANK that take effect on days 0, 1, 2, 1 and 0."""
    clock.now = START
    await book.open(BANK, PAYER)
    for number, effect in enumerate([None, None, None, START + DAY, START]):
        effective_time = None if effect is None else timestamp(effect)
        fields = {"description": f"number {number}", "source_id": f"pay_{number}"}
        await book.post(debit(BANK, 2**number), credit(PAYER, 2**number), effective_time=effective_time, **fields)
        if number < 2:
            clock.advance(DAY.total_seconds())
    return book


async def pages_of(book: Book, **fields: Any) -> list[pb2.GetStatementResponse]:
    """All pages of a statement."""
    request = pb2.GetStatementRequest(**({"account_name": BANK} | fields))
    pages = []
    while True:
        pages.append(await book.stub.GetStatement(request))
        request.page_token = pages[-1].next_page_token
        if not request.page_token:
            return pages


def lines_of(pages: list[pb2.GetStatementResponse]) -> list[tuple[int, int]]:
    """Sequence of each entry and the balance after it."""
    return [(line.entry.sequence, line.running_balance.amount_minor) for page in pages for line in page.lines]


def sums_told(page: pb2.GetStatementResponse) -> tuple[int, int, int, int]:
    """Opening and closing balance, debits and credits."""
    return (
        page.opening_balance.amount_minor,
        page.closing_balance.amount_minor,
        page.debits.amount_minor,
        page.credits.amount_minor,
    )


async def test_a_statement_of_a_random_history_is_that_of_all_its_entries(
    timed_ledger: TestMesh, clock: SettableClock
) -> None:
    async def compare(book: Book, past: Past, numbers: list[int]) -> None:
        times = past.times()
        for first, second in zip(numbers[::2], numbers[1::2], strict=True):
            start, end = sorted_period(times[first % len(times)], times[second % len(times)])
            known = times[(first + second) % len(times)]
            account, book_name = ACCOUNTS[first % len(ACCOUNTS)], BOOKS[second % 2]
            pages = await pages_of(
                book,
                account_name=account,
                book_name=book_name,
                start_time=timestamp(start),
                end_time=timestamp(end),
                booking_time=timestamp(known),
                page_size=1 + first % 3,
            )
            entries = [entry for entry in past.counted(book_name, known, None) if entry.account == account]
            compare_statement(pages, account, entries, start, end)

    await compare_histories(timed_ledger, clock, compare)


def sorted_period(first: datetime | None, second: datetime | None) -> tuple[datetime | None, datetime | None]:
    """The period between two times, which is open where one is None."""
    if first is not None and second is not None and first >= second:
        return (second, first) if first > second else (first, None)
    return first, second


def compare_statement(
    pages: list[pb2.GetStatementResponse],
    account: str,
    entries: list[PastEntry],
    start: datetime | None,
    end: datetime | None,
) -> None:
    """Compares a statement with the entries that are known."""
    before = [entry for entry in entries if start is not None and entry.effect < start]
    until = [entry for entry in entries if end is None or entry.effect < end]
    lines = sorted((entry for entry in until if entry not in before), key=lambda entry: (entry.effect, entry.sequence))
    opening = running = balance_of(account, *sums_of(before))
    expected = []
    for entry in lines:
        running += balance_of(account, *sums_of([entry]))
        expected.append((entry.sequence, running))
    assert lines_of(pages) == expected
    for page in pages:
        assert sums_told(page) == (opening, running, *sums_of(lines))


async def test_lines_stand_in_the_order_of_effect_with_the_balance_after_each(used_book: Book) -> None:
    (page,) = await pages_of(used_book)

    assert lines_of([page]) == [(1, 1), (9, 17), (3, 19), (7, 27), (5, 31)]
    assert sums_told(page) == (0, 31, 31, 0)
    assert page.account == await used_book.account(BANK)
    assert [(line.description, line.source_id) for line in page.lines[:2]] == [
        ("number 0", "pay_0"),
        ("number 4", "pay_4"),
    ]


async def test_a_period_holds_its_start_and_not_its_end(used_book: Book) -> None:
    (page,) = await pages_of(used_book, start_time=timestamp(START + DAY), end_time=timestamp(START + 2 * DAY))

    assert lines_of([page]) == [(3, 19), (7, 27)]
    assert sums_told(page) == (17, 27, 10, 0)


async def test_an_account_on_the_credit_side_grows_by_credits(used_book: Book) -> None:
    (page,) = await pages_of(used_book, account_name=PAYER, start_time=timestamp(START + DAY))

    assert lines_of([page]) == [(4, 19), (8, 27), (6, 31)]
    assert sums_told(page) == (17, 31, 0, 14)


@pytest.mark.parametrize("page_size", [1, 2, 3, 4, 5])
async def test_pages_of_any_size_tell_the_same(used_book: Book, page_size: int) -> None:
    pages = await pages_of(used_book, page_size=page_size)

    assert lines_of(pages) == [(1, 1), (9, 17), (3, 19), (7, 27), (5, 31)]
    assert {sums_told(page) for page in pages} == {(0, 31, 31, 0)}


async def test_what_is_booked_between_two_pages_does_not_disturb_them(used_book: Book, clock: SettableClock) -> None:
    request = pb2.GetStatementRequest(account_name=BANK, page_size=2)
    first = await used_book.stub.GetStatement(request)
    # At the same time of booking, in the midst of what was read, and at the end.
    for effect in (None, START, START + DAY, clock.now):
        effective_time = None if effect is None else timestamp(effect)
        await used_book.post(debit(BANK, 100), credit(PAYER, 100), effective_time=effective_time)

    request.page_token = first.next_page_token
    second = await used_book.stub.GetStatement(request)
    request.page_token = second.next_page_token
    third = await used_book.stub.GetStatement(request)

    assert lines_of([first, second, third]) == [(1, 1), (9, 17), (3, 19), (7, 27), (5, 31)]
    assert sums_told(first) == sums_told(second) == sums_told(third) == (0, 31, 31, 0)
    assert third.next_page_token == ""


async def test_entries_that_are_held_are_in_no_statement(used_book: Book) -> None:
    await used_book.post(debit(BANK, 100), credit(PAYER, 100), pending=True)

    (page,) = await pages_of(used_book)

    assert sums_told(page) == (0, 31, 31, 0)
    assert page.account.pending_debits.amount_minor == 100


async def test_a_period_in_which_nothing_happened_is_empty(used_book: Book) -> None:
    (page,) = await pages_of(used_book, start_time=timestamp(START + 100 * DAY))

    assert lines_of([page]) == []
    assert sums_told(page) == (31, 31, 0, 0)


async def test_an_account_without_entries_has_an_empty_statement(book: Book) -> None:
    await book.open(FEES)

    (page,) = await pages_of(book, account_name=FEES)

    assert (lines_of([page]), sums_told(page)) == ([], (0, 0, 0, 0))


async def test_an_account_that_does_not_exist_has_no_statement(used_book: Book) -> None:
    for request in (
        pb2.GetStatementRequest(account_name="assets:nowhere"),
        pb2.GetStatementRequest(account_name=BANK, book_name="other"),
    ):
        assert (await refusal(used_book.stub.GetStatement(request))).reason is Reason.RESOURCE_NOT_FOUND


async def test_a_period_that_ends_before_it_starts_is_refused(used_book: Book) -> None:
    request = pb2.GetStatementRequest(account_name=BANK, start_time=timestamp(START), end_time=timestamp(START))

    problem = await refusal(used_book.stub.GetStatement(request))

    assert problem.reason is Reason.FIELD_INVALID
    assert problem.violations[0].field == "end_time"


@pytest.mark.parametrize(
    "changed",
    [
        {"tree_size": 0},
        {"tree_size": 4_000},
        {"sequence": -1},
        {"effect_micros": 2**62},
        {"effect_micros": "now"},
        {"debits_minor": -1},
        {"debits_minor": "1"},
    ],
)
async def test_a_forged_page_token_is_refused(used_book: Book, changed: dict[str, str | int]) -> None:
    place: dict[str, str | int] = {"tree_size": 5, "effect_micros": 0, "sequence": 1, "debits_minor": 31}
    arguments = {
        "list": "statement",
        "tenant_id": used_book.tenant_id,
        "book_name": "main",
        "account_name": BANK,
        "period": "Period(start_time=None, end_time=None)",
        "booking_time": "None",
    }
    good = pb2.GetStatementRequest(account_name=BANK, page_token=encode_page_token(place, arguments))
    bad = pb2.GetStatementRequest(account_name=BANK, page_token=encode_page_token(place | changed, arguments))

    assert (await used_book.stub.GetStatement(good)).debits.amount_minor == 31
    assert (await refusal(used_book.stub.GetStatement(bad))).reason is Reason.PAGE_TOKEN_INVALID


async def test_a_page_token_is_for_the_same_period_only(used_book: Book) -> None:
    page = await used_book.stub.GetStatement(pb2.GetStatementRequest(account_name=BANK, page_size=1))
    request = pb2.GetStatementRequest(
        account_name=BANK, page_token=page.next_page_token, end_time=timestamp(START + DAY)
    )

    assert (await refusal(used_book.stub.GetStatement(request))).reason is Reason.PAGE_TOKEN_INVALID


@pytest.mark.parametrize("page_size", [1, 2, 3])
async def test_a_page_may_end_at_an_entry_that_took_effect_after_what_was_booked_later(
    book: Book, clock: SettableClock, page_size: int
) -> None:
    clock.now = START
    await book.open(BANK, PAYER)
    await book.post(debit(BANK, 1), credit(PAYER, 1), effective_time=timestamp(START + timedelta(seconds=200)))
    for seconds in (1, 1, 300):
        clock.advance(seconds)
        await book.post(debit(BANK, 10), credit(PAYER, 10))

    pages = await pages_of(book, page_size=page_size)

    assert lines_of(pages) == [(3, 10), (5, 20), (1, 21), (7, 31)]
