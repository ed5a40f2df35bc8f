"""What the database itself refuses, whatever the service does: tried by raw SQL as the service's own role."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
from kente.common.v1.money_pb2 import Money
from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.clock import utc_now
from mesh.ids import new_id
from tests.harness import TestMesh
from tests.ledger.book import BANK, PAYER, SCOPES, Book, credit, debit, new_request_id, refusal

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
LEAVES_OF_ONE_NODE = 256
# The service writes a transaction and its entries by one statement, because the triggers look at each by itself.
WRITE = """
    WITH booked AS (
        INSERT INTO transactions (journal_key, tenant_id, create_time, leaf_index, book_key, transaction_id, kind,
                                  first_sequence, entry_count, description, source_id, metadata, leaf_hash)
        SELECT $1, $2, now(), $3, $4, $5, 'posting', $6, $7, '', '', '{}', '' WHERE $7 > 0
    )
    INSERT INTO entries (journal_key, tenant_id, create_time, leaf_index, sequence, account_key, side, pending,
                         amount_minor, balance_after_minor)
    SELECT $1, $2, now(), $3, sequence, account_key, side, false, amount_minor, 0
    FROM unnest($8::bigint[], $9::bigint[], $10::text[], $11::bigint[])
         AS leg (sequence, account_key, side, amount_minor)
"""


@dataclass(frozen=True)
class Attack:
    """A transaction as somebody inside the service could try to write it.

    Attributes:
        legs: account (its name, or its key), side, amount in minor units.
        entry_count: as the transaction says; 0 writes no transaction at all.
        sequences: places of the entries, from the first free one.
        leaf_index: from the first free one.
    """

    legs: Sequence[tuple[Any, str, int]]
    entry_count: int = 2
    sequences: Sequence[int] = field(default_factory=lambda: range(100))
    leaf_index: int = 0


@pytest.fixture(scope="module")
async def used_book(ledger: TestMesh) -> Book:
    """A book with something in every table: a hold, a reversal, a refusal, and a full node of the tree."""
    return await filled_book(ledger)


@pytest.fixture(scope="module")
async def neighbour(ledger: TestMesh) -> Book:
    """The book of another tenant, with the same names."""
    return await filled_book(ledger)


async def filled_book(ledger: TestMesh) -> Book:
    """Books something of each kind, for a tenant of its own."""
    tenant_id = new_id("ten")
    book = Book(ledger.client("ledger", tenant_id, SCOPES), tenant_id)
    await book.open(BANK, PAYER)
    await book.open("assets:kes", currency="KES")
    transfers = [
        ledger_pb2.Transfer(
            transaction_id=new_id("txn"),
            debit_account_name=BANK,
            credit_account_name=PAYER,
            amount=Money(amount_minor=5, currency="GHS"),
        )
        for _ in range(LEAVES_OF_ONE_NODE)
    ]
    await book.stub.CreateTransfers(pb2.CreateTransfersRequest(request_id=new_request_id(), transfers=transfers))
    await book.post(debit(BANK, 7), credit(PAYER, 7), pending=True)
    await book.stub.ReverseTransaction(
        pb2.ReverseTransactionRequest(
            request_id=new_request_id(),
            transaction_id=new_id("txn"),
            reversed_transaction_id=transfers[0].transaction_id,
        )
    )
    await refusal(book.post(debit(BANK, 5), credit(PAYER, 6)))
    return book


async def act_for(connection: asyncpg.Connection, tenant_id: str) -> None:
    """Sets the tenant that row-level security lets through, for the session."""
    await connection.execute("SELECT set_config('kente.tenant', $1, false)", tenant_id)


async def write(connection: asyncpg.Connection, admin: asyncpg.Connection, book: Book, attack: Attack) -> None:
    """Writes a transaction as the service would, without its checks."""
    (journal,) = await admin.fetch("SELECT * FROM journals WHERE tenant_id = $1", book.tenant_id)
    accounts = await admin.fetch("SELECT tenant_id, account_name, account_key FROM accounts")
    keys = {(row["tenant_id"], row["account_name"]): row["account_key"] for row in accounts}
    await connection.execute(
        WRITE,
        journal["journal_key"],
        book.tenant_id,
        journal["tree_size"] + attack.leaf_index,
        await admin.fetchval("SELECT book_key FROM books WHERE tenant_id = $1", book.tenant_id),
        new_id("txn"),
        journal["last_sequence"] + 1,
        attack.entry_count,
        [journal["last_sequence"] + 1 + sequence for sequence, _ in zip(attack.sequences, attack.legs, strict=False)],
        [keys.get((book.tenant_id, account_name), account_name) for account_name, _, _ in attack.legs],
        [side for _, side, _ in attack.legs],
        [amount_minor for _, _, amount_minor in attack.legs],
    )


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


@pytest.mark.parametrize(
    ("attack", "constraint"),
    [
        (Attack([(BANK, "debit", 5), (PAYER, "credit", 4)]), "transaction_balanced"),
        (Attack([(BANK, "debit", 5), (PAYER, "debit", 5)]), "transaction_balanced"),
        (Attack([(BANK, "debit", 5), ("assets:kes", "credit", 5)]), "transaction_balanced"),
        (Attack([(BANK, "debit", 5), (PAYER, "credit", 5)], entry_count=3), "transaction_complete"),
        (Attack([]), "transaction_complete"),
        (Attack([(BANK, "debit", 5)]), "transaction_complete"),
        (Attack([(BANK, "debit", 5), (PAYER, "credit", 3), (PAYER, "credit", 2)]), "transaction_complete"),
        (Attack([(BANK, "debit", 5), (PAYER, "credit", 5)], entry_count=0), "transaction_complete"),
        (Attack([(BANK, "debit", 5), (PAYER, "credit", 5)], sequences=[0, 2]), "transaction_complete"),
        (Attack([(BANK, "debit", 5), (PAYER, "credit", 5)], sequences=[1, 2]), "transaction_complete"),
        (Attack([(BANK, "debit", 0), (PAYER, "credit", 0)]), "entries_amount_minor_check"),
        (Attack([(BANK, "debit", -5), (PAYER, "credit", -5)]), "entries_amount_minor_check"),
        (Attack([(BANK, "left", 5), (PAYER, "right", 5)]), "entries_side_check"),
        (Attack([(BANK, "debit", 5)], entry_count=1), "transaction_has_entries"),
    ],
)
async def test_only_whole_and_balanced_transactions_are_written(
    used_book: Book, service_role: asyncpg.Connection, admin: asyncpg.Connection, attack: Attack, constraint: str
) -> None:
    await act_for(service_role, used_book.tenant_id)

    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await write(service_role, admin, used_book, attack)

    assert refused.value.constraint_name == constraint


async def test_what_the_guards_let_through_is_a_balanced_transaction(
    open_book: Book, service_role: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    """Else the tests above would show nothing."""
    await open_book.post(debit(BANK, 5), credit(PAYER, 5))
    await act_for(service_role, open_book.tenant_id)

    await write(service_role, admin, open_book, Attack([(BANK, "debit", 6), (PAYER, "credit", 6)]))

    assert await service_role.fetchval("SELECT count(*) FROM transactions") == 2
    assert await service_role.fetchval("SELECT sum(amount_minor) FROM entries") == 22


async def test_looking_away_does_not_help(
    used_book: Book, neighbour: Book, service_role: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    """The triggers see all rows, whatever the tenant of the session is by then."""
    unbalanced = Attack([(BANK, "debit", 5), (PAYER, "credit", 4)])
    await act_for(service_role, "*")
    with pytest.raises(asyncpg.CheckViolationError, match="not balanced in GHS"):
        await write(service_role, admin, used_book, unbalanced)

    await act_for(service_role, neighbour.tenant_id)
    with pytest.raises(NO_RIGHT, match="row-level security"):
        await write(service_role, admin, used_book, unbalanced)


@pytest.mark.parametrize("sequences", [[0, 1], [-2, -1]])
async def test_nothing_is_added_to_a_committed_transaction(
    used_book: Book, service_role: asyncpg.Connection, admin: asyncpg.Connection, sequences: list[int]
) -> None:
    await act_for(service_role, used_book.tenant_id)
    legs = [(BANK, "debit", 5), (PAYER, "credit", 5)]

    for leaf_index in (-1, -3):
        with pytest.raises((asyncpg.CheckViolationError, asyncpg.UniqueViolationError)):
            await write(
                service_role, admin, used_book, Attack(legs, entry_count=0, sequences=sequences, leaf_index=leaf_index)
            )


async def test_a_transaction_does_not_take_the_place_of_another(
    used_book: Book, service_role: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    await act_for(service_role, used_book.tenant_id)
    legs = [(BANK, "debit", 5), (PAYER, "credit", 5)]

    with pytest.raises(asyncpg.UniqueViolationError):
        await write(service_role, admin, used_book, Attack(legs, leaf_index=-1))


async def test_no_entry_lands_on_another_tenants_account(
    used_book: Book, neighbour: Book, service_role: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    stolen = await admin.fetchval(
        "SELECT account_key FROM accounts WHERE tenant_id = $1 AND account_name = $2", neighbour.tenant_id, BANK
    )
    await act_for(service_role, used_book.tenant_id)

    for other in (PAYER, stolen):
        with pytest.raises(asyncpg.CheckViolationError) as refused:
            await write(service_role, admin, used_book, Attack([(stolen, "debit", 5), (other, "credit", 5)]))
        assert refused.value.constraint_name == "transaction_balanced"


async def test_a_sum_that_does_not_fit_in_64_bits_is_refused(used_book: Book, service_role: asyncpg.Connection) -> None:
    await act_for(service_role, used_book.tenant_id)

    for column in ("debits_minor", "pending_credits_minor"):
        with pytest.raises(asyncpg.NumericValueOutOfRangeError):
            await service_role.execute(f"UPDATE accounts SET {column} = 9223372036854775807 + {column} + 1")  # noqa: S608 - a name of this file
        with pytest.raises(asyncpg.CheckViolationError):
            await service_role.execute(f"UPDATE accounts SET {column} = {column} - 1000000")  # noqa: S608 - a name of this file


async def test_an_entry_is_reversed_once(
    used_book: Book, service_role: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    (row,) = await admin.fetch("SELECT * FROM reversed_entries WHERE tenant_id = $1 LIMIT 1", used_book.tenant_id)
    await act_for(service_role, used_book.tenant_id)

    with pytest.raises(asyncpg.UniqueViolationError):
        await service_role.execute("INSERT INTO reversed_entries VALUES ($1, $2, $3, $4, $5)", *row.values())
