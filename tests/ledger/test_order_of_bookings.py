"""The order of what is booked, whatever the month, the clock, and the process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from kente.ledger.v1 import ledger_pb2

from mesh.ids import new_id
from tests.harness import Infrastructure, TestMesh
from tests.ledger.book import BANK, PAYER, SCOPES, Book
from tests.ledger.clock import SettableClock
from tests.ledger.desk import MakeBookkeeper, batches_of, booked, bookkeepers_on, posting, work

NEW_YEAR = datetime(2031, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)


@pytest.fixture
async def make_bookkeeper(infrastructure: Infrastructure) -> AsyncIterator[MakeBookkeeper]:
    """Makes bookkeepers."""
    async with bookkeepers_on(infrastructure, infrastructure.postgres.port) as make:
        yield make


async def test_two_processes_on_one_database_keep_one_order(
    open_book: Book, make_bookkeeper: MakeBookkeeper, admin: asyncpg.Connection
) -> None:
    bookkeepers = [await make_bookkeeper() for _ in range(2)]

    async def caller(number: int) -> list[ledger_pb2.Transaction]:
        answers = []
        for _ in range(10):
            call = work(open_book.tenant_id, posting(number + 1))
            answers.append(booked(await bookkeepers[number % 2].book(open_book.tenant_id, call)))
        return answers

    told = [answer for answers in await asyncio.gather(*map(caller, range(20))) for answer in answers]

    told.sort(key=lambda answer: answer.leaf_index)
    assert [answer.leaf_index for answer in told] == list(range(200))
    assert [entry.sequence for answer in told for entry in answer.entries] == list(range(1, 401))
    times = [answer.create_time.ToNanoseconds() for answer in told]
    assert times == sorted(times)
    sums = [sum(answer.entries[0].amount.amount_minor for answer in told[: number + 1]) for number in range(200)]
    assert [answer.entries[0].balance_after.amount_minor for answer in told] == sums
    assert await batches_of(admin, open_book) == sorted(set(await batches_of(admin, open_book)))


async def test_a_month_that_begins_gets_its_partition_when_it_is_booked_into(
    open_book: Book, make_bookkeeper: MakeBookkeeper, admin: asyncpg.Connection
) -> None:
    clock = SettableClock(NEW_YEAR)
    bookkeeper = await make_bookkeeper(clock)

    answers = []
    for seconds in (0.000001, 31 * 86_400, 60 * 86_400):
        answers.append(booked(await bookkeeper.book(open_book.tenant_id, work(open_book.tenant_id, posting()))))
        clock.advance(seconds)
    answers.append(booked(await bookkeeper.book(open_book.tenant_id, work(open_book.tenant_id, posting()))))

    rows = await admin.fetch(
        "SELECT DISTINCT tableoid::regclass::text AS name FROM entries WHERE tenant_id = $1 ORDER BY name",
        open_book.tenant_id,
    )
    assert [row["name"] for row in rows] == ["entries_2031_12", "entries_2032_01", "entries_2032_02", "entries_2032_04"]
    assert [await open_book.transaction(answer.transaction_id) for answer in answers] == answers
    assert [entry.sequence for entry in await open_book.entries()] == list(range(1, 9))


async def test_tenants_who_book_into_a_new_month_at_once_find_one_partition(
    ledger: TestMesh, make_bookkeeper: MakeBookkeeper
) -> None:
    books = []
    for _ in range(8):
        tenant_id = new_id("ten")
        books.append(Book(ledger.client("ledger", tenant_id, SCOPES), tenant_id))
        await books[-1].open(BANK, PAYER)
    clock = SettableClock(NEW_YEAR + timedelta(days=3_650))
    bookkeepers = [await make_bookkeeper(clock) for _ in range(2)]

    for _ in range(3):
        calls = [
            bookkeepers[number % 2].book(book.tenant_id, work(book.tenant_id, posting()))
            for number, book in enumerate(books)
        ]
        assert {len(results) for results in await asyncio.gather(*calls)} == {1}
        clock.advance(31 * 86_400)

    assert {await book.balance(BANK) for book in books} == {(15, 15, 0)}


async def test_a_clock_set_back_reorders_nothing(open_book: Book, make_bookkeeper: MakeBookkeeper) -> None:
    clock = SettableClock(NEW_YEAR)
    bookkeeper = await make_bookkeeper(clock)

    answers = []
    for seconds in (-3_600, 3_599, 2, 0):
        answers.append(booked(await bookkeeper.book(open_book.tenant_id, work(open_book.tenant_id, posting()))))
        clock.advance(seconds)

    times = [answer.create_time.ToDatetime(tzinfo=UTC) for answer in answers]
    assert times == [NEW_YEAR, NEW_YEAR, NEW_YEAR, NEW_YEAR + timedelta(seconds=1)]
    assert [answer.leaf_index for answer in answers] == [0, 1, 2, 3]
