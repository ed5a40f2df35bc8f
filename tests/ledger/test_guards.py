"""What the database itself refuses to the service's own role, tried by raw SQL: rows of others, and changes."""

from __future__ import annotations

import asyncpg
import pytest

from mesh.clock import utc_now
from tests.harness import TestMesh
from tests.ledger.book import BANK, Book
from tests.ledger.intruder import act_for, filled_book

TENANT_TABLES = (
    "journals",
    "books",
    "accounts",
    "transactions",
    "entries",
    "holds",
    "reversed_entries",
    "refusals",
    "requests",
    "checkpoints",
    "tree_nodes",
)


NO_RIGHT = asyncpg.InsufficientPrivilegeError


@pytest.fixture(scope="module")
async def used_book(ledger: TestMesh) -> Book:
    """A book with something in every table: a hold, a reversal, a refusal, and a full node of the tree."""
    return await filled_book(ledger)


@pytest.fixture(scope="module")
async def neighbour(ledger: TestMesh) -> Book:
    """The book of another tenant, with the same names."""
    return await filled_book(ledger)


async def test_every_table_with_a_tenant_has_row_level_security(used_book: Book, admin: asyncpg.Connection) -> None:
    rows = await admin.fetch(
        "SELECT relname, relrowsecurity, relispartition FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid"
        " WHERE relnamespace = 'ledger'::regnamespace AND relkind IN ('r', 'p') AND attname = 'tenant_id'"
    )

    assert used_book
    assert {row["relname"] for row in rows} >= set(TENANT_TABLES)
    assert [row["relname"] for row in rows if row["relispartition"]] != []
    assert [row["relname"] for row in rows if not row["relrowsecurity"]] == []


async def test_the_services_role_owns_nothing_and_can_not_look_around_its_policies(admin: asyncpg.Connection) -> None:
    role = "SELECT oid FROM pg_roles WHERE rolname = 'kente_ledger' AND NOT rolsuper AND NOT rolbypassrls"

    assert await admin.fetchval(role)
    assert await admin.fetchval(f"SELECT count(*) FROM pg_class WHERE relowner = ({role})") == 0  # noqa: S608 - the words above
    assert await admin.fetchval(f"SELECT count(*) FROM pg_proc WHERE proowner = ({role})") == 0  # noqa: S608 - the words above


@pytest.mark.parametrize("table", TENANT_TABLES)
async def test_without_a_tenant_nothing_is_seen(
    used_book: Book, service_role: asyncpg.Connection, admin: asyncpg.Connection, table: str
) -> None:
    count = f"SELECT count(*) FROM {table}"  # noqa: S608 - a name of this file

    assert await service_role.fetchval(count) == 0
    assert await admin.fetchval(f"{count} WHERE tenant_id = $1", used_book.tenant_id) > 0


@pytest.mark.parametrize("table", TENANT_TABLES)
async def test_another_tenants_rows_are_not_seen(
    used_book: Book, neighbour: Book, service_role: asyncpg.Connection, table: str
) -> None:
    await act_for(service_role, neighbour.tenant_id)

    seen = await service_role.fetch(f"SELECT DISTINCT tenant_id FROM {table}")  # noqa: S608 - a name of this file

    assert [row["tenant_id"] for row in seen] == [neighbour.tenant_id]
    assert used_book.tenant_id != neighbour.tenant_id


async def test_a_partition_is_reached_through_its_table_only(
    used_book: Book, service_role: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    """Named directly, the policies of the whole table would not apply to it."""
    rows = await admin.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'entries'::regclass"
    )
    await act_for(service_role, used_book.tenant_id)

    assert rows
    for statement in ("SELECT FROM {}", "INSERT INTO {} DEFAULT VALUES", "DELETE FROM {}", "UPDATE {} SET side = ''"):
        for row in rows:
            with pytest.raises(NO_RIGHT):
                await service_role.execute(statement.format(row["name"]))


async def test_a_partition_is_made_as_safe_as_the_others_by_the_services_role(
    service_role: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    await service_role.execute("SELECT ensure_entries_partition('2091-12-31T23:59:59.999999Z')")
    await service_role.execute("SELECT ensure_entries_partition('2091-12-01T00:00:00Z')")

    made = await admin.fetch(
        "SELECT relrowsecurity, pg_get_expr(relpartbound, oid) AS bounds FROM pg_class"
        " WHERE relname = 'entries_2091_12'"
    )
    await admin.execute("DROP TABLE entries_2091_12")
    assert [row["relrowsecurity"] for row in made] == [True]
    assert made[0]["bounds"] == "FOR VALUES FROM ('2091-12-01 00:00:00+00') TO ('2092-01-01 00:00:00+00')"


async def test_another_tenants_rows_are_not_changed(
    used_book: Book, neighbour: Book, service_role: asyncpg.Connection
) -> None:
    before = await used_book.balance(BANK)
    await act_for(service_role, neighbour.tenant_id)

    for statement in (
        "UPDATE accounts SET debits_minor = 1000 WHERE tenant_id = $1",
        "UPDATE journals SET last_sequence = 1000 WHERE tenant_id = $1",
        "UPDATE books SET closed_time = now() WHERE tenant_id = $1",
        "UPDATE holds SET state = 'voided', ended_by_leaf_index = 0 WHERE tenant_id = $1",
    ):
        assert await service_role.execute(statement, used_book.tenant_id) == "UPDATE 0"

    assert await used_book.balance(BANK) == before


@pytest.mark.parametrize("table", TENANT_TABLES)
async def test_nothing_is_written_in_another_tenants_name(
    used_book: Book, neighbour: Book, service_role: asyncpg.Connection, admin: asyncpg.Connection, table: str
) -> None:
    """Not even a row that is there already, under a tenant who does not see it."""
    columns = await admin.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND attidentity = ''",
        table,
    )
    names = ", ".join(row["attname"] for row in columns)
    row = await admin.fetchval(
        f"SELECT to_jsonb(found)::text FROM {table} AS found WHERE tenant_id = $1 LIMIT 1",  # noqa: S608 - a name of this file
        used_book.tenant_id,
    )
    await act_for(service_role, neighbour.tenant_id)

    with pytest.raises(NO_RIGHT, match="row-level security"):
        await service_role.execute(
            f"INSERT INTO {table} ({names}) SELECT {names} FROM jsonb_populate_record(NULL::{table}, $1::jsonb)",  # noqa: S608 - names of the schema
            row,
        )


async def test_an_account_is_not_hung_on_another_tenants_book(
    used_book: Book, neighbour: Book, service_role: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    await act_for(service_role, neighbour.tenant_id)
    (book,) = await admin.fetch("SELECT book_key, journal_key FROM books WHERE tenant_id = $1", used_book.tenant_id)

    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await service_role.execute(
            "INSERT INTO accounts (tenant_id, book_key, journal_key, account_name, type, currency, scale, display_name,"
            " request_id, create_time, update_time)"
            " VALUES ($1, $2, $3, 'x', 'asset', 'GHS', 2, '', 'x', now(), now())",
            neighbour.tenant_id,
            *book,
        )


@pytest.mark.parametrize(
    "statement",
    [
        *(f"{verb} {table}" for verb in ("DELETE FROM", "TRUNCATE") for table in (*TENANT_TABLES, "checkpoint_keys")),
        "UPDATE entries SET amount_minor = 1",
        "UPDATE entries SET balance_after_minor = 1",
        "UPDATE transactions SET description = ''",
        "UPDATE transactions SET answer = NULL",
        "UPDATE reversed_entries SET sequence = 1",
        "UPDATE refusals SET status = ''",
        "UPDATE requests SET request_hash = ''",
        "UPDATE checkpoints SET root_hash = ''",
        "UPDATE tree_nodes SET hash = ''",
        "UPDATE checkpoint_keys SET verifier_key = ''",
        "UPDATE holds SET expire_time = now()",
        "UPDATE accounts SET currency = 'KES'",
        "UPDATE accounts SET scale = 3",
        "UPDATE accounts SET type = 'income'",
        "UPDATE accounts SET tenant_id = 'ten_other'",
        "UPDATE books SET tenant_id = 'ten_other'",
        "UPDATE journals SET tenant_id = 'ten_other'",
        "ALTER TABLE entries DISABLE TRIGGER ALL",
        "ALTER TABLE entries DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE entries DETACH PARTITION entries_{month}",
        "DROP TABLE entries",
        "DROP TABLE entries_{month}",
        "CREATE TABLE entries_2000_01 PARTITION OF entries FOR VALUES FROM ('2000-01-01') TO ('2000-02-01')",
        "CREATE OR REPLACE FUNCTION check_entries() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "SET session_replication_role = 'replica'",
    ],
)
async def test_the_service_can_add_to_the_book_but_not_change_it(
    used_book: Book, service_role: asyncpg.Connection, statement: str
) -> None:
    await act_for(service_role, used_book.tenant_id)

    with pytest.raises(NO_RIGHT):
        await service_role.execute(statement.format(month=f"{utc_now():%Y_%m}"))
