"""What a process remembers of its tenants' books: how much, and how it notices that they were changed by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import pytest
from kente.ledger.v1 import ledger_pb2

from mesh.clock import utc_now
from mesh.ids import new_id
from services.ledger.model.accounts import AccountLimits, AccountState, AccountType, PostableAccount
from services.ledger.repository.journals import Journal
from services.ledger.use_cases.booking import Bookkeeper
from services.ledger.use_cases.memory import Memory, RememberedBooks
from tests.harness import PASSWORD, Infrastructure, eventually
from tests.ledger.book import PAYER, Book
from tests.ledger.desk import MakeBookkeeper, ahead_outcomes, batches_of, booked, bookkeepers_on, posting, work


@pytest.fixture
async def make_bookkeeper(infrastructure: Infrastructure) -> AsyncIterator[MakeBookkeeper]:
    """Makes bookkeepers."""
    async with bookkeepers_on(infrastructure, infrastructure.postgres.port) as make:
        yield make


def test_two_journals_begin_alike_and_are_not_the_same() -> None:
    """A tenant whose first journal was taken back gets another."""
    newcomer = Journal(1, new_id("ten"), 0, 0, b"", datetime(1, 1, 1, tzinfo=UTC), None, None)

    assert newcomer.has_same_books(replace(newcomer, next_expire_time=utc_now()))
    assert not newcomer.has_same_books(replace(newcomer, journal_key=2))


async def book_twice(bookkeeper: Bookkeeper, book: Book) -> None:
    """Books so often that the accounts are remembered, and nobody else is thought to book."""
    for _ in range(2):
        await bookkeeper.book(book.tenant_id, work(book.tenant_id, posting()))


async def book_while_one_is_written(
    bookkeeper: Bookkeeper, book: Book, admin: asyncpg.Connection
) -> list[ledger_pb2.Transaction]:
    """Books one posting, and ten more while that one is being written."""
    tenant_id = book.tenant_id
    slow = work(tenant_id, posting())

    async def is_writing() -> bool:
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'kente_ledger' AND wait_event = 'transactionid'"
        )
        await admin.execute("SELECT pg_stat_clear_snapshot()")
        return bool(await admin.fetchval(waiting))

    async with admin.transaction():
        # Whoever writes the same request waits to see what becomes of this one.
        await admin.execute("INSERT INTO requests VALUES ($1, $2, '', now())", tenant_id, slow.request.key)
        first = asyncio.create_task(bookkeeper.book(tenant_id, slow))
        await eventually(is_writing)
        others = [asyncio.create_task(bookkeeper.book(tenant_id, work(tenant_id, posting()))) for _ in range(10)]
        await asyncio.sleep(0)
        await admin.execute("DELETE FROM requests WHERE tenant_id = $1 AND request_hash = ''", tenant_id)
    return [booked(await task) for task in (first, *others)]


async def test_a_large_batch_is_decided_while_the_one_before_is_being_written(
    open_book: Book, make_bookkeeper: MakeBookkeeper, admin: asyncpg.Connection
) -> None:
    bookkeeper = await make_bookkeeper(ahead_postings=10)
    await book_twice(bookkeeper, open_book)
    before = ahead_outcomes()

    answers = await book_while_one_is_written(bookkeeper, open_book, admin)

    assert [answer.leaf_index for answer in answers] == list(range(2, 13))
    assert [answer.entries[-1].balance_after.amount_minor for answer in answers] == list(range(15, 70, 5))
    assert await batches_of(admin, open_book) == [1, 2, 3, 13]
    assert ahead_outcomes() == (before[0] + 1, before[1])


async def test_what_was_decided_ahead_on_sums_that_are_changed_meanwhile_is_decided_again(
    open_book: Book, make_bookkeeper: MakeBookkeeper, admin: asyncpg.Connection
) -> None:
    """A trigger of an operator corrects a sum within the very batch before."""
    bookkeeper = await make_bookkeeper(ahead_postings=10)
    await book_twice(bookkeeper, open_book)
    before = ahead_outcomes()
    await admin.execute(
        f"""
        CREATE FUNCTION correct() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger AS $$
        BEGIN
            UPDATE accounts SET credits_minor = 1000 WHERE tenant_id = NEW.tenant_id AND account_name = '{PAYER}';
            RETURN NULL;
        END $$;
        CREATE TRIGGER corrects AFTER INSERT ON transactions FOR EACH ROW
            WHEN (NEW.tenant_id = '{open_book.tenant_id}' AND NEW.leaf_index = 2) EXECUTE FUNCTION correct();
        """  # noqa: S608 - only ids of this test
    )
    try:
        answers = await book_while_one_is_written(bookkeeper, open_book, admin)
    finally:
        await admin.execute("DROP TRIGGER corrects ON transactions; DROP FUNCTION correct()")

    assert ahead_outcomes() == (before[0] + 1, before[1])
    assert [answer.entries[-1].balance_after.amount_minor for answer in answers[1:]] == list(range(1_005, 1_055, 5))
    assert await open_book.balance(PAYER) == (1_050, 0, 1_050)


@pytest.mark.parametrize("role", ["kente_ledger", "admin"])
async def test_sums_that_were_changed_by_hand_are_noticed_whoever_did_it(
    open_book: Book, make_bookkeeper: MakeBookkeeper, infrastructure: Infrastructure, role: str
) -> None:
    bookkeeper = await make_bookkeeper()
    tenant_id = open_book.tenant_id
    await book_twice(bookkeeper, open_book)
    url = infrastructure.postgres.url(role, PASSWORD) if role == "kente_ledger" else infrastructure.postgres.admin_url
    connection = await asyncpg.connect(url)
    async with connection.transaction():
        await connection.execute("SELECT set_config('kente.tenant', $1, true)", tenant_id)
        await connection.execute(
            "UPDATE ledger.accounts SET credits_minor = 1000 WHERE account_name = $1 AND tenant_id = $2",
            PAYER,
            tenant_id,
        )
    await connection.close()

    answer = booked(await bookkeeper.book(tenant_id, work(tenant_id, posting())))

    assert answer.entries[-1].balance_after.amount_minor == 1_005
    assert await open_book.balance(PAYER) == (1_005, 0, 1_005)


async def test_who_changes_accounts_by_hand_does_not_wait_in_a_circle_with_a_batch(
    open_book: Book, make_bookkeeper: MakeBookkeeper, admin: asyncpg.Connection
) -> None:
    bookkeeper = await make_bookkeeper()
    tenant_id = open_book.tenant_id

    async def is_waiting() -> bool:
        await admin.execute("SELECT pg_stat_clear_snapshot()")
        return bool(
            await admin.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE usename = 'kente_ledger' AND wait_event_type = 'Lock'"
            )
        )

    async with admin.transaction():
        await admin.execute("SELECT FROM accounts WHERE tenant_id = $1 FOR UPDATE", tenant_id)
        call = asyncio.create_task(bookkeeper.book(tenant_id, work(tenant_id, posting())))
        await eventually(is_waiting)
        # The batch has the journal, and waits for the accounts.
        await admin.execute("SET LOCAL lock_timeout = '5s'")
        await admin.execute("UPDATE accounts SET max_balance_minor = 100 WHERE tenant_id = $1", tenant_id)

    assert booked(await call).leaf_index == 0


def remembered(*account_names: str) -> RememberedBooks:
    """Books of which accounts are remembered."""
    books = RememberedBooks(Journal(1, "ten_1", 0, 0, b"", datetime(1, 1, 1, tzinfo=UTC), None, None))
    sums = (0, 0, 0, 0)
    books.add(
        PostableAccount(1, "main", name, AccountType.ASSET, "GHS", AccountState.OPENED, AccountLimits(), *sums)
        for name in account_names
    )
    return books


def test_who_works_with_remembered_books_has_them_alone() -> None:
    memory = Memory(2)
    memory.give_back("a", remembered("x"))

    assert memory.take("a")
    assert memory.take("a") is None


def test_those_that_were_not_used_for_longest_are_forgotten_first() -> None:
    memory = Memory(5)
    memory.give_back("a", remembered("x"))
    memory.give_back("b", remembered("x", "y"))
    memory.give_back("a", remembered("x", "y"))

    assert memory.take("b") is None
    assert memory.take("a")


def test_tenants_without_accounts_are_not_remembered_without_end() -> None:
    memory = Memory(2)
    for tenant_id in "abc":
        memory.give_back(tenant_id, remembered())

    assert [bool(memory.take(tenant_id)) for tenant_id in "abc"] == [False, True, True]


def test_a_tenant_with_more_accounts_than_can_be_remembered_is_not() -> None:
    memory = Memory(3)
    memory.give_back("a", remembered("x"))
    memory.give_back("b", remembered("x", "y", "z"))

    assert memory.take("b") is None
    assert memory.take("a")
