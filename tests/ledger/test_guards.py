"""What the database itself refuses, whatever the service does: tried by raw SQL as the service's own role."""

from __future__ import annotations

import asyncpg
import pytest

from mesh.ids import new_id
from tests.harness import TestMesh
from tests.ledger.book import BANK, PAYER, SCOPES, Book, credit, debit

TENANT_TABLES = ("books", "accounts", "transactions", "entries")
NO_RIGHT = asyncpg.InsufficientPrivilegeError


@pytest.fixture
async def used_book(book: Book) -> Book:
    """A book with two accounts and one transaction."""
    await book.open(BANK, PAYER)
    await book.post(debit(BANK, 5), credit(PAYER, 5))
    return book


@pytest.fixture
async def neighbour(ledger: TestMesh) -> Book:
    """The book of another tenant, with the same names."""
    tenant_id = new_id("ten")
    book = Book(ledger.client("ledger", tenant_id, SCOPES), tenant_id)
    await book.open(BANK, PAYER)
    await book.post(debit(BANK, 9), credit(PAYER, 9))
    return book


async def act_for(connection: asyncpg.Connection, tenant_id: str) -> None:
    """Sets the tenant that row-level security lets through, for the session."""
    await connection.execute("SELECT set_config('kente.tenant', $1, false)", tenant_id)


async def write_transaction(
    connection: asyncpg.Connection, book: Book, legs: list[tuple[str, str, int]], *, entry_count: int | None = None
) -> None:
    """Writes a transaction as the service would, without its checks."""
    book_key = await connection.fetchval("SELECT book_key FROM books")
    last_sequence = await connection.fetchval("SELECT last_sequence FROM books")
    await connection.execute(
        "INSERT INTO transactions (book_key, first_sequence, last_sequence, tenant_id, transaction_id, description,"
        " source_id, create_time) VALUES ($1, $2, $3, $4, $5, '', '', now())",
        book_key,
        last_sequence + 1,
        last_sequence + (entry_count or len(legs)),
        book.tenant_id,
        new_id("txn"),
    )
    for number, leg in enumerate(legs, start=1):
        await write_entry(connection, book, (last_sequence + number, last_sequence + 1), leg)


async def write_entry(
    connection: asyncpg.Connection, book: Book, place: tuple[int, int], leg: tuple[str, str, int]
) -> None:
    """Writes one entry at (sequence, first_sequence)."""
    await connection.execute(
        "INSERT INTO entries (book_key, sequence, first_sequence, account_key, tenant_id, side, amount_minor,"
        " balance_after_minor, create_time) SELECT book_key, $2, $3, account_key, $1, $5, $6, 0, now()"
        " FROM accounts WHERE tenant_id = $1 AND account_name = $4",
        book.tenant_id,
        *place,
        *leg,
    )


async def test_every_table_with_a_tenant_has_row_level_security(admin: asyncpg.Connection) -> None:
    rows = await admin.fetch(
        "SELECT relname, relrowsecurity FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid"
        " WHERE relnamespace = 'ledger'::regnamespace AND relkind = 'r' AND attname = 'tenant_id'"
    )

    assert {row["relname"] for row in rows} >= set(TENANT_TABLES)
    assert [row["relname"] for row in rows if not row["relrowsecurity"]] == []


@pytest.mark.parametrize("table", TENANT_TABLES)
async def test_without_a_tenant_nothing_is_seen(used_book: Book, service_role: asyncpg.Connection, table: str) -> None:
    assert used_book.tenant_id
    assert await service_role.fetchval(f"SELECT count(*) FROM {table}") == 0  # noqa: S608 - a name of this file


@pytest.mark.parametrize("table", TENANT_TABLES)
async def test_another_tenants_rows_are_not_seen(
    used_book: Book, neighbour: Book, service_role: asyncpg.Connection, table: str
) -> None:
    await act_for(service_role, neighbour.tenant_id)

    seen = await service_role.fetch(f"SELECT DISTINCT tenant_id FROM {table}")  # noqa: S608 - a name of this file

    assert [row["tenant_id"] for row in seen] == [neighbour.tenant_id]
    assert used_book.tenant_id != neighbour.tenant_id


async def test_another_tenants_rows_are_not_changed(
    used_book: Book, neighbour: Book, service_role: asyncpg.Connection
) -> None:
    await act_for(service_role, neighbour.tenant_id)

    for statement in (
        "UPDATE accounts SET debits_minor = 1000 WHERE tenant_id = $1",
        "UPDATE books SET last_sequence = 1000 WHERE tenant_id = $1",
    ):
        assert await service_role.execute(statement, used_book.tenant_id) == "UPDATE 0"

    assert await used_book.balance(BANK) == (5, 5, 0)


@pytest.mark.parametrize("table", TENANT_TABLES)
async def test_nothing_is_written_in_another_tenants_name(
    used_book: Book, neighbour: Book, service_role: asyncpg.Connection, admin: asyncpg.Connection, table: str
) -> None:
    await act_for(service_role, neighbour.tenant_id)
    book_key = await admin.fetchval("SELECT book_key FROM books WHERE tenant_id = $1", used_book.tenant_id)
    values = {
        "books": "(tenant_id) SELECT $1 WHERE $2::bigint > 0",
        "accounts": "(tenant_id, book_key, account_name, type, currency, display_name, request_id)"
        " VALUES ($1, $2, 'x', 'asset', 'GHS', '', 'x')",
        "transactions": "(tenant_id, book_key, first_sequence, last_sequence, transaction_id, description, source_id,"
        " create_time) VALUES ($1, $2, 99, 100, 'x', '', '', now())",
        "entries": "(tenant_id, book_key, sequence, first_sequence, account_key, side, amount_minor,"
        " balance_after_minor, create_time) VALUES ($1, $2, 99, 99, 1, 'debit', 1, 1, now())",
    }

    with pytest.raises(NO_RIGHT, match="row-level security"):
        await service_role.execute(f"INSERT INTO {table} {values[table]}", used_book.tenant_id, book_key)


async def test_an_account_is_not_hung_on_another_tenants_book(
    used_book: Book, neighbour: Book, service_role: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    await act_for(service_role, neighbour.tenant_id)
    book_key = await admin.fetchval("SELECT book_key FROM books WHERE tenant_id = $1", used_book.tenant_id)

    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await service_role.execute(
            "INSERT INTO accounts (tenant_id, book_key, account_name, type, currency, display_name, request_id)"
            " VALUES ($1, $2, 'x', 'asset', 'GHS', '', 'x')",
            neighbour.tenant_id,
            book_key,
        )


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET amount_minor = 1",
        "DELETE FROM entries",
        "TRUNCATE entries",
        "UPDATE transactions SET description = ''",
        "DELETE FROM transactions",
        "TRUNCATE transactions",
        "DELETE FROM accounts",
        "UPDATE accounts SET currency = 'KES'",
        "UPDATE accounts SET tenant_id = 'ten_other'",
        "DELETE FROM books",
        "UPDATE books SET tenant_id = 'ten_other'",
        "ALTER TABLE entries DISABLE TRIGGER ALL",
        "ALTER TABLE entries DISABLE ROW LEVEL SECURITY",
        "DROP TABLE entries",
    ],
)
async def test_the_service_can_add_to_the_book_but_not_change_it(
    used_book: Book, service_role: asyncpg.Connection, statement: str
) -> None:
    await act_for(service_role, used_book.tenant_id)

    with pytest.raises(NO_RIGHT):
        await service_role.execute(statement)


@pytest.mark.parametrize(
    ("legs", "entry_count", "constraint"),
    [
        ([(BANK, "debit", 5), (PAYER, "credit", 4)], 2, "transaction_balanced"),
        ([(BANK, "debit", 5), (PAYER, "debit", 5)], 2, "transaction_balanced"),
        ([(BANK, "debit", 5), ("assets:kes", "credit", 5)], 2, "transaction_balanced"),
        ([(BANK, "debit", 5), (PAYER, "credit", 5)], 3, "transaction_complete"),
        ([], 2, "transaction_complete"),
        ([(BANK, "debit", 5), (PAYER, "credit", 5), (PAYER, "credit", 5)], 2, "entry_in_transaction"),
        ([(BANK, "debit", 0), (PAYER, "credit", 0)], 2, "entries_amount_minor_check"),
        ([(BANK, "left", 5), (PAYER, "right", 5)], 2, "entries_side_check"),
        ([(BANK, "debit", 5)], 1, "transaction_has_two_entries"),
    ],
)
async def test_only_whole_and_balanced_transactions_are_committed(
    used_book: Book,
    service_role: asyncpg.Connection,
    legs: list[tuple[str, str, int]],
    entry_count: int,
    constraint: str,
) -> None:
    await used_book.open("assets:kes", currency="KES")
    await act_for(service_role, used_book.tenant_id)

    with pytest.raises(asyncpg.CheckViolationError) as refused:
        async with service_role.transaction():
            await write_transaction(service_role, used_book, legs, entry_count=entry_count)

    assert refused.value.constraint_name == constraint
    assert len(await used_book.entries()) == 2


async def test_looking_away_before_the_commit_does_not_help(used_book: Book, service_role: asyncpg.Connection) -> None:
    await act_for(service_role, used_book.tenant_id)
    transaction = service_role.transaction()
    await transaction.start()
    await write_transaction(service_role, used_book, [(BANK, "debit", 5), (PAYER, "credit", 4)])
    await act_for(service_role, "ten_nobody")

    with pytest.raises(asyncpg.CheckViolationError, match="not balanced in GHS"):
        await transaction.commit()


async def test_nothing_is_added_to_a_committed_transaction(used_book: Book, service_role: asyncpg.Connection) -> None:
    await act_for(service_role, used_book.tenant_id)

    for leg in ((BANK, "debit", 5), (PAYER, "credit", 5)):
        with pytest.raises(asyncpg.CheckViolationError, match="outside of its transaction"):
            await write_entry(service_role, used_book, (3, 1), leg)
    with pytest.raises(asyncpg.UniqueViolationError):
        await write_entry(service_role, used_book, (2, 1), (BANK, "debit", 5))


async def test_no_entry_lands_on_another_tenants_account(
    used_book: Book, neighbour: Book, service_role: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    stolen_key = await admin.fetchval(
        "SELECT account_key FROM accounts WHERE tenant_id = $1 AND account_name = $2", neighbour.tenant_id, BANK
    )
    await act_for(service_role, used_book.tenant_id)
    transaction = service_role.transaction()
    await transaction.start()
    await write_transaction(service_role, used_book, [(PAYER, "debit", 5)], entry_count=2)
    await service_role.execute(
        "INSERT INTO entries (book_key, sequence, first_sequence, account_key, tenant_id, side, amount_minor,"
        " balance_after_minor, create_time) SELECT book_key, 4, 3, $1, tenant_id, 'credit', 5, 0, now() FROM books",
        stolen_key,
    )

    with pytest.raises(asyncpg.CheckViolationError):
        await transaction.commit()


async def test_a_sum_that_does_not_fit_in_64_bits_is_refused(used_book: Book, service_role: asyncpg.Connection) -> None:
    await act_for(service_role, used_book.tenant_id)

    with pytest.raises(asyncpg.NumericValueOutOfRangeError):
        await service_role.execute("UPDATE accounts SET debits_minor = debits_minor + 9223372036854775807")
    with pytest.raises(asyncpg.CheckViolationError):
        await service_role.execute("UPDATE accounts SET credits_minor = credits_minor - 100")
