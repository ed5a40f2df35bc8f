"""What the owner of the tables can do to them by SQL, and the check that finds it."""

# ruff: noqa: S608 - statements of these tests, made of nothing but their own constants

from __future__ import annotations

import re

import asyncpg

from services.ledger.model.merkle import Tree
from tests.ledger.auditor import POSITION
from tests.ledger.book import BANK, FEES

# Of the book that `auditor.fill` makes: cash in, back-dated with metadata, exchange of four legs, three holds with
# expiry, part of the first posted, the second voided, and the back-dated one reversed.
CASH, BACK_DATED, EXCHANGE, HOLD, HOLD_POSTING, REVERSAL = 0, 1, 2, 3, 6, 8
_OTHER_ACCOUNT = f"(SELECT account_key FROM accounts WHERE tenant_id = $1 AND account_name = '{POSITION}')"

# More microseconds than a time of a record has room for, or less than any. The first is the last one that there is.
ENDLESS = ["294276-12-31", "infinity", "-infinity"]
EDITED_TRANSACTIONS = [
    (CASH, "transaction_id = 'txn_00000000000000000000000000'", "record"),
    (CASH, "kind = 'hold'", "record"),
    (CASH, "description = 'Cash in'", "record"),
    (CASH, "source_id = ''", "record"),
    (CASH, 'metadata = \'{"a": "1"}\'', "record"),
    (CASH, "metadata = '[]'", "record"),
    (CASH, "metadata = (repeat('[', 3000) || repeat(']', 3000))::jsonb", "record"),
    (CASH, "metadata = jsonb_build_object('a', repeat('9', 5000)::numeric)", "record"),
    (BACK_DATED, "metadata = metadata - 'z'", "record"),
    (BACK_DATED, "metadata = metadata || '{\"n\": 7}'", "record"),
    (BACK_DATED, "metadata = metadata || '{\"z\": 1}'", "record"),
    (BACK_DATED, "effective_time = effective_time + interval '1 microsecond'", "record"),
    (BACK_DATED, "effective_time = NULL", "record"),
    (CASH, "effective_time = create_time", "record"),
    (HOLD, "expire_time = NULL", "record"),
    (HOLD, "expire_time = expire_time + interval '1 year'", "record"),
    (CASH, "create_time = create_time - interval '1 microsecond'", "record"),
    *((BACK_DATED, f"create_time = '{time}'", "record") for time in ENDLESS),
    *((BACK_DATED, f"effective_time = '{time}'", "record") for time in ENDLESS),
    *((HOLD, f"expire_time = '{time}'", "record") for time in ENDLESS),
    (HOLD_POSTING, "related_leaf_index = 5", "record"),
    (REVERSAL, "related_leaf_index = 0", "record"),
    (CASH, "first_sequence = first_sequence + 1", "record"),
    (EXCHANGE, "entry_count = 3", "record"),
    (CASH, "leaf_hash = sha256('x')", "tree"),
    (CASH, "leaf_index = 1000", "sequence"),
    (CASH, "tenant_id = 'ten_other'", "sequence"),
    (CASH, "book_key = (SELECT max(book_key) + 1 FROM books)", "record"),
]
EDITED_ENTRIES = [
    ("sequence = 1000", "sequence"),
    ("leaf_index = 1", "entry"),
    (f"account_key = {_OTHER_ACCOUNT}", "record"),
    ("account_key = 0", "account"),
    ("tenant_id = 'ten_other'", "sequence"),
    ("side = CASE side WHEN 'debit' THEN 'credit' ELSE 'debit' END", "sum"),
    ("pending = NOT pending", "record"),
    ("amount_minor = amount_minor + 1", "sum"),
    ("balance_after_minor = balance_after_minor + 1", "balance"),
    ("effective_time = create_time", "entry"),
    *((f"effective_time = '{time}'", "entry") for time in ENDLESS),
    ("create_time = create_time + interval '1 microsecond'", "entry"),
]
EDITED_ACCOUNTS = [
    ("debits_minor = debits_minor + 1", "account"),
    ("credits_minor = credits_minor + 1, debits_minor = debits_minor + 1", "account"),
    ("pending_debits_minor = pending_debits_minor + 1", "account"),
    ("pending_credits_minor = 0, pending_debits_minor = 0", "account"),
    ("account_name = 'liabilities:other'", "record"),
    ("currency = 'NGN'", "record"),
    ("type = 'asset'", "balance"),
    ("max_balance_minor = 0, update_time = create_time", "limit"),
    ("min_balance_minor = 100000, update_time = create_time", "limit"),
]
EDITED_OTHERS = [
    ("UPDATE journals SET frontier = sha256('x') || substr(frontier, 33)", "tree"),
    ("UPDATE journals SET last_create_time = last_create_time + interval '1 second'", "time"),
    ("UPDATE checkpoints SET note = replace(note, E'\\n4\\n', E'\\n5\\n')", "signature"),
    ("UPDATE checkpoints SET note = (SELECT max(note) FROM checkpoints WHERE tenant_id = $1)", "checkpoint"),
    ("UPDATE checkpoints SET note = 'x' WHERE tree_size = 3", "signature"),
    ("UPDATE checkpoints SET root_hash = sha256('x') WHERE tree_size = 3", "tree"),
    ("UPDATE checkpoints SET last_sequence = last_sequence + 1 WHERE tree_size = 3", "checkpoint"),
    ("UPDATE checkpoints SET create_time = create_time + interval '1 second' WHERE tree_size = 9", "checkpoint"),
    *((f"UPDATE checkpoints SET create_time = '{time}' WHERE tree_size = 9", "checkpoint") for time in ENDLESS),
    ("UPDATE checkpoints SET event_ids = '{}' WHERE tree_size = 3", "announcement"),
    ("UPDATE checkpoints SET tree_size = 1000 WHERE tree_size = 9", "checkpoint"),
    ("DELETE FROM checkpoints WHERE tree_size = 3", "checkpoint"),
    ("DELETE FROM checkpoints WHERE tree_size = 9", "checkpoint"),
    ("DELETE FROM checkpoints", "checkpoint"),
    ("DELETE FROM holds", "hold"),
    ("UPDATE holds SET state = 'posted' WHERE state = 'voided'", "hold"),
    ("UPDATE holds SET state = 'held', ended_by_leaf_index = NULL WHERE state = 'voided'", "hold"),
    ("UPDATE holds SET state = 'voided', ended_by_leaf_index = 0 WHERE state = 'held'", "hold"),
    ("DELETE FROM reversed_entries", "reversal"),
    ("UPDATE reversed_entries SET sequence = sequence + 100", "reversal"),
    ("DELETE FROM accounts", "account"),
    ("DELETE FROM transactions WHERE leaf_index = 0", "sequence"),
    ("DELETE FROM transactions", "sequence"),
    ("DELETE FROM entries WHERE sequence = 3", "sequence"),
    ("DELETE FROM entries", "sequence"),
]


async def change(admin: asyncpg.Connection, statement: str, tenant_id: str) -> None:
    """Changes the tables as their owner can: no trigger, no row-level security and no foreign key is in the way."""
    where = "AND" if re.search(r" WHERE (?!tenant_id)", statement) else "WHERE"
    async with admin.transaction():
        await admin.execute("SET LOCAL session_replication_role = replica")
        status = await admin.execute(f"{statement} {where} tenant_id = $1", tenant_id)
    assert int(status.rpartition(" ")[2]) > 0


async def cut_off_last(admin: asyncpg.Connection, tenant_id: str) -> None:
    """Deletes the rows of the last transaction, which is of two entries."""
    last = "SELECT max({0}) FROM {1} WHERE tenant_id = $1"
    await change(
        admin, f"DELETE FROM entries WHERE leaf_index = ({last.format('leaf_index', 'transactions')})", tenant_id
    )
    await change(
        admin, f"DELETE FROM transactions WHERE leaf_index = ({last.format('leaf_index', 'transactions')})", tenant_id
    )


async def set_head_back(admin: asyncpg.Connection, tenant_id: str, amount_minor: int) -> None:
    """Makes everything that hangs on the last transaction, from the bank to the fees, as it was before it."""
    await change(
        admin,
        "DELETE FROM checkpoints WHERE tree_size = (SELECT max(tree_size) FROM checkpoints WHERE tenant_id = $1)",
        tenant_id,
    )
    rows = await admin.fetch(
        "SELECT leaf_hash, create_time FROM transactions WHERE tenant_id = $1 ORDER BY leaf_index", tenant_id
    )
    growth = Tree().grow([row["leaf_hash"] for row in rows])
    await admin.execute(
        "UPDATE journals SET tree_size = $2, last_sequence = last_sequence - 2, frontier = $3, last_create_time = $4"
        " WHERE tenant_id = $1",
        tenant_id,
        growth.size,
        growth.frontier,
        rows[-1]["create_time"],
    )
    for account_name, column in ((BANK, "debits_minor"), (FEES, "credits_minor")):
        await change(
            admin,
            f"UPDATE accounts SET {column} = {column} - {amount_minor} WHERE account_name = '{account_name}'",
            tenant_id,
        )
