"""Balances of two axes of time, through the contract."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.errors import Reason
from mesh.money import INT64_MAX
from mesh.pages import encode_page_token
from tests.harness import TestMesh
from tests.ledger.book import BANK, PAYER, Book, credit, debit, refusal
from tests.ledger.clock import SettableClock
from tests.ledger.past import (
    ACCOUNTS,
    BOOKS,
    MICROSECOND,
    START,
    Past,
    PastEntry,
    balance_of,
    compare_histories,
    sums_of,
)
from tests.ledger.teller import timestamp


@pytest.fixture
def book(timed_book: Book) -> Book:
    """The book of this test's tenant; all tests of this module share one service."""
    return timed_book


async def test_a_balance_of_the_past_is_the_sum_of_the_entries_that_count(
    timed_ledger: TestMesh, clock: SettableClock
) -> None:
    async def compare(book: Book, past: Past, numbers: list[int]) -> None:
        times = past.times()
        for known, effect in zip(numbers[::2], numbers[1::2], strict=True):
            await compare_balances(
                book,
                past,
                clock.now,
                account=ACCOUNTS[known % len(ACCOUNTS)],
                known=times[known % len(times)],
                effect=times[effect % len(times)],
            )

    await compare_histories(timed_ledger, clock, compare)


async def compare_balances(
    book: Book, past: Past, now: datetime, *, account: str, known: datetime | None, effect: datetime | None
) -> None:
    """Asks for all balances of a moment."""
    known_time, effect_time = timestamp(known), timestamp(effect)
    seen = [entry.sequence for entry in past.entries if known is None or entry.booked <= known]
    for book_name in BOOKS:
        counted = past.counted(book_name, known, effect)
        expected = {name: expected_sums(counted, name) for name in sorted(ACCOUNTS)}
        page = await book.stub.ListBalances(
            pb2.ListBalancesRequest(book_name=book_name, booking_time=known_time, effective_time=effect_time)
        )
        assert {told.branch: sums_told(told) for told in page.balances} == expected
        answer = await book.stub.GetBalance(
            pb2.GetBalanceRequest(
                account_name=account, book_name=book_name, booking_time=known_time, effective_time=effect_time
            )
        )
        assert sums_told(answer) == expected[account]
        held = past.held(book_name, account, min(known or now, now), effect)
        assert (answer.pending_debits.amount_minor, answer.pending_credits.amount_minor) == held
        assert answer.sequence == max(seen, default=0)


def expected_sums(entries: Sequence[PastEntry], account: str) -> tuple[int, int, int]:
    """Balance, debits and credits of an account."""
    debits, credits_ = sums_of([entry for entry in entries if entry.account == account])
    return balance_of(account, debits, credits_), debits, credits_


def sums_told(told: Any) -> tuple[int, int, int]:
    """Balance, debits and credits as the service tells them."""
    return told.balance.amount_minor, told.debits.amount_minor, told.credits.amount_minor


async def balance_at(
    book: Book, account_name: str, *, booking: Timestamp | None = None, effective: Timestamp | None = None
) -> int:
    """The balance at a moment."""
    request = pb2.GetBalanceRequest(account_name=account_name, booking_time=booking, effective_time=effective)
    return int((await book.stub.GetBalance(request)).balance.amount_minor)


async def test_what_takes_effect_at_the_very_time_counts_and_a_microsecond_before_it_does_not(
    timed_book: Book, clock: SettableClock
) -> None:
    clock.now = START
    await timed_book.open(BANK, PAYER)
    effect = START - timedelta(days=3)
    await timed_book.post(debit(BANK, 5), credit(PAYER, 5), effective_time=timestamp(effect))

    assert await balance_at(timed_book, BANK, effective=timestamp(effect)) == 5
    assert await balance_at(timed_book, BANK, effective=timestamp(effect - MICROSECOND)) == 0
    assert await balance_at(timed_book, BANK, booking=timestamp(START)) == 5
    assert await balance_at(timed_book, BANK, booking=timestamp(START - MICROSECOND)) == 0


async def test_a_back_dated_posting_changes_the_past_as_it_is_known_now_and_not_as_it_was_known_then(
    timed_book: Book, clock: SettableClock
) -> None:
    clock.now = START
    await timed_book.open(BANK, PAYER)
    await timed_book.post(debit(BANK, 5), credit(PAYER, 5))
    clock.advance(3600)
    await timed_book.post(debit(BANK, 7), credit(PAYER, 7), effective_time=timestamp(START - timedelta(days=1)))

    assert await balance_at(timed_book, BANK, effective=timestamp(START)) == 12
    assert await balance_at(timed_book, BANK, booking=timestamp(START)) == 5
    assert await balance_at(timed_book, BANK, booking=timestamp(START), effective=timestamp(START)) == 5
    entries = await timed_book.entries(account_name=BANK)
    assert [entry.balance_after.amount_minor for entry in entries] == [5, 12]


async def test_a_balance_now_knows_what_is_held_and_what_is_available(book: Book) -> None:
    await book.open(BANK)
    await book.open(PAYER, limits=ledger_pb2.AccountLimits(min_balance_minor=0))
    await book.post(debit(BANK, 10), credit(PAYER, 10))
    await book.post(debit(PAYER, 4), credit(BANK, 4), pending=True)

    balance = await book.stub.GetBalance(pb2.GetBalanceRequest(account_name=PAYER))

    assert (balance.balance.amount_minor, balance.debits.amount_minor, balance.credits.amount_minor) == (10, 0, 10)
    assert (balance.pending_debits.amount_minor, balance.pending_credits.amount_minor) == (4, 0)
    assert balance.available.amount_minor == 6
    assert balance.sequence == 4


async def test_a_balance_of_the_past_tells_of_no_available_amount(book: Book) -> None:
    await book.open(BANK, PAYER, limits=ledger_pb2.AccountLimits(min_balance_minor=0))
    posted = await book.post(debit(BANK, 10), credit(PAYER, 10))

    request = pb2.GetBalanceRequest(account_name=PAYER, booking_time=posted.create_time)

    assert not (await book.stub.GetBalance(request)).HasField("available")


async def test_an_account_without_a_lowest_balance_has_no_available_amount(open_book: Book) -> None:
    assert not (await open_book.stub.GetBalance(pb2.GetBalanceRequest(account_name=BANK))).HasField("available")


@pytest.mark.parametrize("fields", [{}, {"booking_time": timestamp(START)}, {"effective_time": timestamp(START)}])
async def test_an_account_that_does_not_exist_has_no_balance(open_book: Book, fields: dict[str, Timestamp]) -> None:
    request = pb2.GetBalanceRequest(account_name="assets:nowhere", **fields)  # type: ignore[arg-type]  # times

    problem = await refusal(open_book.stub.GetBalance(request))

    assert problem.reason is Reason.RESOURCE_NOT_FOUND
    assert problem.metadata == {"book_name": "main", "account_name": "assets:nowhere"}


async def test_a_time_that_is_none_is_refused(open_book: Book) -> None:
    request = pb2.GetBalanceRequest(account_name=BANK, effective_time=Timestamp(seconds=-(10**12)))

    problem = await refusal(open_book.stub.GetBalance(request))

    assert problem.reason is Reason.FIELD_INVALID
    assert problem.violations[0].field == "effective_time"


@pytest.mark.parametrize("seconds", [-62135596800, 253402300799])
async def test_the_first_and_the_last_second_that_there_are_can_be_asked_for(open_book: Book, seconds: int) -> None:
    await open_book.post(debit(BANK, 5), credit(PAYER, 5))
    time = Timestamp(seconds=seconds)

    for fields in ({"booking": time}, {"effective": time}, {"booking": time, "effective": time}):
        assert await balance_at(open_book, BANK, **fields) == (5 if seconds > 0 else 0)


# Branches


@pytest.fixture
async def chart(book: Book, clock: SettableClock) -> Book:
    """A book with a hierarchy whose byte order is not that of its parts."""
    await book.open("assets:bank", "assets:bank:gcb", "assets:bank-old", "assets:bank:gcb:main", "income:fees")
    await book.open("assets:bank:usd", currency="USD")
    await book.open("assets:till", type=ledger_pb2.Account.TYPE_EXPENSE)
    names = ("assets:bank", "assets:bank:gcb", "assets:bank-old", "assets:bank:gcb:main", "assets:till")
    for number, name in enumerate(names):
        clock.advance(1)
        await book.post(debit(name, 10**number), credit("income:fees", 10**number))
    return book


async def branches(book: Book, **fields: Any) -> list[tuple[str, str, int, int]]:
    """Name, currency, balance and number of accounts of all branches, page by page."""
    found: list[tuple[str, str, int, int]] = []
    request = pb2.ListBalancesRequest(**fields)
    while True:
        answer = await book.stub.ListBalances(request)
        found += [
            (each.branch, each.balance.currency, each.balance.amount_minor, each.account_count)
            for each in answer.balances
        ]
        request.page_token = answer.next_page_token
        if not request.page_token:
            return found


@pytest.mark.parametrize("page_size", [0, 1, 2, 3])
async def test_balances_roll_up_by_type_and_currency_to_as_many_parts_as_asked(chart: Book, page_size: int) -> None:
    assert await branches(chart, depth=1, page_size=page_size) == [
        ("assets", "GHS", 1111, 4),
        ("assets", "USD", 0, 1),
        ("assets", "GHS", 10000, 1),
        ("income", "GHS", 11111, 1),
    ]
    assert await branches(chart, depth=2, page_size=page_size) == [
        ("assets:bank", "GHS", 1011, 3),
        ("assets:bank", "USD", 0, 1),
        ("assets:bank-old", "GHS", 100, 1),
        ("assets:till", "GHS", 10000, 1),
        ("income:fees", "GHS", 11111, 1),
    ]


@pytest.mark.parametrize("page_size", [0, 2])
@pytest.mark.parametrize("depth", [0, 100])
async def test_each_account_by_itself_in_the_order_of_names(chart: Book, page_size: int, depth: int) -> None:
    assert [name for name, *_ in await branches(chart, depth=depth, page_size=page_size)] == [
        "assets:bank",
        "assets:bank-old",
        "assets:bank:gcb",
        "assets:bank:gcb:main",
        "assets:bank:usd",
        "assets:till",
        "income:fees",
    ]


async def test_a_branch_is_an_account_and_all_below_it(chart: Book) -> None:
    assert [name for name, *_ in await branches(chart, branch="assets:bank")] == [
        "assets:bank",
        "assets:bank:gcb",
        "assets:bank:gcb:main",
        "assets:bank:usd",
    ]
    assert await branches(chart, branch="assets:bank:gcb", depth=3) == [("assets:bank:gcb", "GHS", 1010, 2)]
    assert await branches(chart, branch="assets:ban") == []


async def test_branches_of_the_past_hold_what_counted_then(chart: Book) -> None:
    third = (await chart.entries(account_name="assets:bank-old"))[0]

    assert await branches(chart, depth=2, booking_time=third.create_time) == [
        ("assets:bank", "GHS", 11, 3),
        ("assets:bank", "USD", 0, 1),
        ("assets:bank-old", "GHS", 100, 1),
        ("assets:till", "GHS", 0, 1),
        ("income:fees", "GHS", 111, 1),
    ]


async def test_a_sum_that_does_not_fit_is_refused(book: Book) -> None:
    await book.open(BANK, "assets:till", PAYER, "liabilities:other")
    await book.post(debit(BANK, INT64_MAX), credit(PAYER, INT64_MAX))
    await book.post(debit("assets:till", 1), credit("liabilities:other", 1))

    problem = await refusal(book.stub.ListBalances(pb2.ListBalancesRequest(depth=1)))

    assert problem.reason is Reason.BALANCE_OVERFLOW


async def test_a_book_that_does_not_exist_has_no_balances(open_book: Book) -> None:
    assert await branches(open_book, book_name="nowhere") == []


async def test_a_page_token_of_balances_is_for_the_same_arguments_only(open_book: Book) -> None:
    page = await open_book.stub.ListBalances(pb2.ListBalancesRequest(page_size=1))

    for other in (
        pb2.ListBalancesRequest(page_token=page.next_page_token, depth=1),
        pb2.ListBalancesRequest(page_token=page.next_page_token, branch=BANK),
        pb2.ListBalancesRequest(page_token=page.next_page_token, book_name="other"),
        pb2.ListBalancesRequest(page_token=page.next_page_token, booking_time=timestamp(START)),
        pb2.ListBalancesRequest(page_token=encode_page_token({"branch": 1}, {})),
    ):
        assert (await refusal(open_book.stub.ListBalances(other))).reason is Reason.PAGE_TOKEN_INVALID
