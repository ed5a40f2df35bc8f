"""One transaction, one tenant; and migrations that only go forward."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial

import asyncpg
import pytest
from google.protobuf.wrappers_pb2 import StringValue

import mesh.migrations
from mesh import outbox
from mesh.clock import utc_now
from mesh.database import UNAVAILABLE_ERRORS, Database, affected_rows, after_commit
from mesh.ids import new_id
from mesh.migrations import Migration, domains, migrate, migrations_of
from mesh.retention import Retention
from tests.harness import PASSWORD, Infrastructure, eventually

INSERT = "INSERT INTO inbox (consumer, event_id, tenant_id) VALUES ('test', $1, $2)"
SELECT = "SELECT event_id FROM inbox WHERE event_id = ANY($1) ORDER BY event_id"


@pytest.fixture
async def rows(database: Database, tenant_id: str) -> tuple[str, str, str]:
    """Another tenant, and the id of a row of this tenant's and of one of the other's."""
    other, own_row, other_row = f"{tenant_id}-other", new_id("evt"), new_id("evt")
    async with database.transaction(tenant_id) as connection:
        await connection.execute(INSERT, own_row, tenant_id)
    async with database.transaction(other) as connection:
        await connection.execute(INSERT, other_row, other)
    return other, own_row, other_row


async def test_a_tenant_sees_its_own_rows_only(database: Database, tenant_id: str, rows: tuple[str, str, str]) -> None:
    _, own_row, other_row = rows
    async with database.transaction(tenant_id) as connection:
        seen = [row["event_id"] for row in await connection.fetch(SELECT, [own_row, other_row])]

    assert seen == [own_row]


async def test_a_tenant_cannot_write_anothers_rows(
    database: Database, tenant_id: str, rows: tuple[str, str, str]
) -> None:
    other, own_row, other_row = rows
    async with database.transaction(tenant_id) as connection:
        updated = await connection.execute("UPDATE inbox SET consumer = 'stolen' WHERE event_id = $1", other_row)
        deleted = await connection.execute("DELETE FROM inbox WHERE event_id = $1", other_row)
    for statement, arguments in (
        (INSERT, (new_id("evt"), other)),
        ("UPDATE inbox SET tenant_id = $2 WHERE event_id = $1", (own_row, other)),
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with database.transaction(tenant_id) as connection:
                await connection.execute(statement, *arguments)

    assert (affected_rows(updated), affected_rows(deleted)) == (0, 0)
    async with database.transaction(other) as connection:
        assert await connection.fetchval("SELECT consumer FROM inbox WHERE event_id = $1", other_row) == "test"


async def test_the_mesh_itself_sees_every_tenant(database: Database, rows: tuple[str, str, str]) -> None:
    async with database.system_transaction() as connection:
        seen = [row["event_id"] for row in await connection.fetch(SELECT, list(rows[1:]))]

    assert seen == sorted(rows[1:])


async def test_without_a_transaction_of_ours_nothing_is_seen(database: Database, rows: tuple[str, str, str]) -> None:
    # Also on a connection that served a tenant, or all of them, before.
    async with database.system_transaction():
        pass
    for _ in range(database.pool.get_size()):
        assert await database.pool.fetch(SELECT, list(rows[1:])) == []


async def test_every_table_with_a_tenant_is_isolated(admin: asyncpg.Connection) -> None:
    open_tables = await admin.fetch(
        "SELECT table_schema, table_name FROM information_schema.columns"
        " JOIN pg_class ON pg_class.oid = format('%I.%I', table_schema, table_name)::regclass"
        " WHERE column_name = 'tenant_id' AND table_schema = ANY($1) AND relkind = 'r' AND NOT relrowsecurity",
        domains(),
    )

    assert [f"{row['table_schema']}.{row['table_name']}" for row in open_tables] == []


async def test_after_commit_runs_once_and_only_after_a_commit(database: Database, tenant_id: str) -> None:
    seen: list[int] = []

    async def write(*callbacks: int, then: str = "SELECT 1") -> None:
        async with database.transaction(tenant_id) as connection:
            await connection.execute(INSERT, new_id("evt"), tenant_id)
            for number in callbacks:
                after_commit(partial(seen.append, number))
            await connection.execute(then)
            assert seen in ([], [1, 2])

    await write(1, 2)
    assert seen == [1, 2]
    with pytest.raises(asyncpg.UndefinedTableError):
        await write(3, then="SELECT 1 FROM no_such_table")
    # The commit itself fails.
    with pytest.raises(UNAVAILABLE_ERRORS):
        await write(4, then="SELECT pg_terminate_backend(pg_backend_pid())")
    assert seen == [1, 2]
    with pytest.raises(LookupError):
        after_commit(lambda: None)


async def test_a_transaction_in_which_a_statement_failed_is_never_taken_for_committed(
    database: Database, tenant_id: str
) -> None:
    row = new_id("evt")
    told: list[str] = []

    async def fail_unnoticed() -> None:
        async with database.transaction(tenant_id) as connection:
            after_commit(lambda: told.append("committed"))
            await connection.execute(INSERT, row, tenant_id)
            with suppress(asyncpg.PostgresError):
                await connection.execute("SELECT 1 / 0")

    with pytest.raises(asyncpg.InFailedSQLTransactionError):
        await fail_unnoticed()
    async with database.transaction(tenant_id) as connection:
        assert await connection.fetch(SELECT, [row]) == []
    assert told == []


async def test_a_canceled_transaction_is_rolled_back_and_its_connection_is_free(
    database: Database, admin: asyncpg.Connection, tenant_id: str
) -> None:
    event_id = new_id("evt")

    async def write() -> None:
        async with database.transaction(tenant_id) as connection:
            await connection.execute(INSERT, event_id, tenant_id)
            await connection.execute("SELECT pg_sleep(60)")

    async def sleeps() -> bool:
        running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(60)'"
        return bool(await admin.fetchval(running))

    task = asyncio.create_task(write())
    # A server that has not begun a statement would not hear that it is to be canceled.
    await eventually(sleeps)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async with database.transaction(tenant_id) as connection:
        assert await connection.fetch(SELECT, [event_id]) == []
    assert database.pool.get_idle_size() == database.pool.get_size()


async def test_a_connection_that_the_server_ended_is_an_absence(
    database: Database, admin: asyncpg.Connection, tenant_id: str
) -> None:
    async def read() -> None:
        async with database.transaction(tenant_id) as connection:
            await admin.execute("SELECT pg_terminate_backend($1)", await connection.fetchval("SELECT pg_backend_pid()"))

            async def is_closed() -> bool:
                return connection.is_closed()

            await eventually(is_closed)
            await connection.fetchval("SELECT 1")

    with pytest.raises(UNAVAILABLE_ERRORS):
        await read()

    assert await database.is_reachable()


async def test_a_database_that_nobody_serves_is_an_absence_too() -> None:
    pool = asyncpg.create_pool("postgres://a:b@localhost:1/x", min_size=0)
    async with pool:
        database = Database(pool)

        with pytest.raises(ConnectionError):
            async with database.transaction("ten_1"):
                pass
        assert not await database.is_reachable()


async def test_an_event_that_could_not_be_published_is_not_written(database: Database, tenant_id: str) -> None:
    text = StringValue(value="x")
    for event in (
        outbox.Event("ledger.account", tenant_id, "a", text),
        outbox.Event("ledger.account.>", tenant_id, "a", text),
        outbox.Event("ledger.account.created", "", "a", text),
        outbox.Event("ledger.account.created", "*", "a", text),
        outbox.Event("ledger.account.created", "ten 1", "a", text),
        outbox.Event("ledger.account.created", tenant_id, "a", StringValue(value="x" * outbox.MAX_EVENT_BYTES)),
    ):
        with pytest.raises(ValueError, match=r"subject|too large"):
            async with database.transaction(tenant_id) as connection:
                await outbox.add(connection, event)


async def test_old_rows_are_forgotten_and_young_ones_kept(
    database: Database, admin: asyncpg.Connection, tenant_id: str
) -> None:
    ages = {f"{tenant_id}-{days}": days for days in (0, 29, 31, 39, 41)}
    for event_id, days in ages.items():
        created = utc_now() - timedelta(days=days)
        await admin.execute(
            "INSERT INTO inbox (consumer, event_id, tenant_id, create_time) VALUES ('test', $1, $2, $3)",
            event_id,
            tenant_id,
            created,
        )
        await admin.execute(
            "INSERT INTO idempotency (method, request_id, tenant_id, create_time, request_hash)"
            " VALUES ('test', $1, $2, $3, '')",
            event_id,
            tenant_id,
            created,
        )
    # More than are deleted at once.
    await admin.execute(
        "INSERT INTO pgqueuer_log (created, job_id, status, priority, entrypoint)"
        " SELECT now() - interval '8 days', number, 'queued', 0, $1 FROM generate_series(1, 2500) number",
        tenant_id,
    )
    await Retention(database).forget()

    inbox = await admin.fetch("SELECT event_id FROM inbox WHERE tenant_id = $1", tenant_id)
    answers = await admin.fetch("SELECT request_id FROM idempotency WHERE tenant_id = $1", tenant_id)
    assert {ages[row["event_id"]] for row in inbox} == {0, 29, 31, 39}
    assert {ages[row["request_id"]] for row in answers} == {0, 29}
    assert await admin.fetchval("SELECT count(*) FROM pgqueuer_log WHERE entrypoint = $1", tenant_id) == 0


@pytest.fixture
async def empty(infrastructure: Infrastructure) -> AsyncIterator[str]:
    """The administrator's address of a database that nobody has migrated."""
    admin = await asyncpg.connect(infrastructure.postgres.admin_url)
    name = f"migrations_{new_id('db')}"
    await admin.execute(f"CREATE DATABASE {name}")
    yield infrastructure.postgres.admin_url.rpartition("/")[0] + f"/{name}"
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


async def test_migrating_twice_does_nothing_the_second_time(empty: str) -> None:
    first = await migrate(empty, {})

    assert [name for name in first if name.startswith("ledger/")][:2] == [
        "ledger/mesh/0001_mesh",
        "ledger/mesh/0002_relay_order_and_fixed_audit",
    ]
    assert {name.partition("/")[0] for name in first} == set(domains())
    assert await migrate(empty, {}) == []


async def test_two_who_migrate_at_once_apply_each_migration_once(empty: str) -> None:
    one, other = await asyncio.gather(migrate(empty, {}), migrate(empty, {}))

    assert sorted([len(one), len(other)]) == [0, len(one) + len(other)]


async def test_a_migration_that_changed_after_it_was_applied_is_refused(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate(empty, {})

    def changed(domain: str) -> Iterator[Migration]:
        for migration in migrations_of(domain):
            yield Migration(migration.name, migration.sql + (" " if migration.name == "0001_book" else ""))

    monkeypatch.setattr(mesh.migrations, "migrations_of", changed)

    with pytest.raises(SystemExit, match="ledger/0001_book was changed after it was applied"):
        await migrate(empty, {})


async def test_a_migration_that_fails_leaves_nothing_of_itself(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(domain: str) -> Iterator[Migration]:
        yield from migrations_of(domain)
        if domain == "ledger":
            yield Migration("9999_broken", "CREATE TABLE half (a int); SELECT no_such_function()")

    with monkeypatch.context() as patched:
        patched.setattr(mesh.migrations, "migrations_of", broken)
        with pytest.raises(asyncpg.UndefinedFunctionError):
            await migrate(empty, {})
    connection = await asyncpg.connect(empty)
    half = await connection.fetchval("SELECT to_regclass('ledger.half')")
    await connection.close()

    assert half is None
    assert not any(name.startswith("ledger/") for name in await migrate(empty, {}))


async def test_a_server_that_is_away_is_one_line_without_its_password() -> None:
    with pytest.raises(SystemExit, match=r"^KENTE_DATABASE_URL: the database can't be reached") as raised:
        await migrate("postgres://kente:hidden@127.0.0.1:1/kente", {})

    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE idempotency ADD COLUMN more text",
        "ALTER TABLE idempotency DISABLE ROW LEVEL SECURITY",
        "DROP POLICY tenant ON idempotency",
        "DROP TABLE inbox",
        "CREATE TABLE more (a int)",
        "CREATE TABLE public.more (a int)",
        "UPDATE schema_migrations SET checksum = ''",
        "SELECT * FROM payments.idempotency",
        "CREATE ROLE more",
        "SET ROLE postgres",
        "ALTER ROLE kente_ledger BYPASSRLS",
        "ALTER SYSTEM SET fsync = off",
        "COPY inbox TO PROGRAM 'cat'",
    ],
)
async def test_the_role_of_a_service_may_read_and_write_its_rows_and_no_more(
    infrastructure: Infrastructure, statement: str
) -> None:
    connection = await asyncpg.connect(infrastructure.postgres.url("kente_ledger", PASSWORD))
    try:
        with pytest.raises(
            (asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedTableError, asyncpg.InvalidParameterValueError)
        ):
            await connection.execute(statement)
    finally:
        await connection.close()
