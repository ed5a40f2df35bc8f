"""SQL of a check of a tenant's books: everything is read from one snapshot, beside whatever is booked meanwhile."""

# ruff: noqa: S608 - only constants of other files are put into a statement, never a value

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from mesh.database import TENANT_SETTING, Connection, Database
from services.ledger.model.accounts import Account, Side
from services.ledger.model.books_check import HeldSums
from services.ledger.model.verification import FAULTS_MAX, CheckpointRow, Fault
from services.ledger.repository.accounts import ACCOUNT_COLUMNS, account_of
from services.ledger.repository.journals import Journal
from services.ledger.repository.proofs import CHECKPOINT_TIME

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ACCOUNT_PAGE = 2_000
# For statements over all that is held or reversed.
_SCAN_SECONDS = 600.0

# Of every hold, and of everything that says that it ended one.
_WRONG_HOLDS = """
    SELECT transactions.transaction_id, 'its state is not what became of it'
    FROM holds
    LEFT JOIN transactions USING (journal_key, leaf_index)
    LEFT JOIN transactions AS ended
           ON ended.journal_key = holds.journal_key AND ended.leaf_index = holds.ended_by_leaf_index
    WHERE holds.journal_key = $1
      AND (transactions.kind IS DISTINCT FROM 'hold'
           OR transactions.expire_time IS DISTINCT FROM holds.expire_time
           OR holds.state <> CASE ended.kind WHEN 'hold_posting' THEN 'posted' WHEN 'hold_void' THEN 'voided'
                                             WHEN 'hold_expiry' THEN 'expired' ELSE 'held' END
           OR ended.related_leaf_index <> holds.leaf_index)
    UNION ALL
    SELECT transactions.transaction_id, 'ended a hold that does not know of it'
    FROM transactions
    LEFT JOIN holds ON holds.journal_key = transactions.journal_key
                   AND holds.leaf_index = transactions.related_leaf_index
    WHERE transactions.journal_key = $1 AND transactions.kind IN ('hold_posting', 'hold_void', 'hold_expiry')
      AND transactions.related_leaf_index IS NOT NULL
      AND holds.ended_by_leaf_index IS DISTINCT FROM transactions.leaf_index
    LIMIT $2
"""
_WRONG_REVERSALS = """
    SELECT reversal.transaction_id, format('the entry %s that it is said to reverse is none of its', marks.sequence)
    FROM reversed_entries AS marks
    LEFT JOIN transactions AS reversal
           ON reversal.journal_key = marks.journal_key AND reversal.leaf_index = marks.reversal_leaf_index
    LEFT JOIN transactions AS reversed
           ON reversed.journal_key = marks.journal_key AND reversed.leaf_index = marks.leaf_index
    WHERE marks.journal_key = $1
      AND (reversal.kind IS DISTINCT FROM 'reversal' OR reversal.related_leaf_index <> marks.leaf_index
           OR reversed.leaf_index IS NULL
           OR marks.sequence NOT BETWEEN reversed.first_sequence
                                     AND reversed.first_sequence + reversed.entry_count - 1)
    UNION ALL
    SELECT reversal.transaction_id, 'not every entry that it reverses is marked'
    FROM transactions AS reversal
    LEFT JOIN LATERAL (
        SELECT count(*) AS mark_count FROM transactions AS reversed
        JOIN reversed_entries AS marks
          ON marks.journal_key = reversed.journal_key AND marks.leaf_index = reversed.leaf_index
         AND marks.reversal_leaf_index = reversal.leaf_index
        WHERE reversed.journal_key = reversal.journal_key AND reversed.leaf_index = reversal.related_leaf_index
    ) AS marked ON true
    WHERE reversal.journal_key = $1 AND reversal.kind = 'reversal' AND reversal.related_leaf_index IS NOT NULL
      AND marked.mark_count <> reversal.entry_count
    LIMIT $2
"""
_HELD = """
    SELECT entries.account_key,
           coalesce(sum(entries.amount_minor) FILTER (WHERE entries.side = 'debit'), 0)::numeric AS debits_minor,
           coalesce(sum(entries.amount_minor) FILTER (WHERE entries.side = 'credit'), 0)::numeric AS credits_minor
    FROM holds
    JOIN transactions USING (journal_key, leaf_index)
    JOIN entries ON entries.journal_key = transactions.journal_key AND entries.create_time = transactions.create_time
                AND entries.sequence BETWEEN transactions.first_sequence
                                         AND transactions.first_sequence + transactions.entry_count - 1
    WHERE holds.journal_key = $1 AND holds.state = 'held'
    GROUP BY entries.account_key
"""
# A hold that is posted moves what was set aside long before.
_MOVED_SINCE = """
    SELECT EXISTS (
        SELECT FROM entries JOIN transactions USING (journal_key, leaf_index)
        WHERE entries.account_key = $1 AND entries.create_time > $2 AND transactions.kind <> 'hold_posting'
        GROUP BY transactions.leaf_index
        HAVING sum(CASE entries.side WHEN $3 THEN entries.amount_minor::numeric ELSE -entries.amount_minor END) > 0
    )
"""
_BEYOND = """
    SELECT (SELECT count(*) FROM transactions WHERE journal_key = $1 AND leaf_index >= $2),
           (SELECT count(*) FROM entries WHERE journal_key = $1 AND (sequence > $3 OR sequence < 1)),
           (SELECT count(*) FROM checkpoints WHERE journal_key = $1 AND tree_size > $2)
"""


@asynccontextmanager
async def snapshot(database: Database, tenant_id: str) -> AsyncIterator[Connection]:
    """A transaction that reads the tenant's rows as they are now, however long it takes."""
    # Database.transaction reads what was committed before each statement, and can't be told otherwise.
    async with (
        database.pool.acquire() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        await connection.execute("SELECT set_config($1, $2, true)", TENANT_SETTING, tenant_id)
        yield connection


async def list_checkpoint_rows(
    connection: Connection, journal_key: int, after_size: int, up_to_size: int
) -> list[CheckpointRow]:
    """Checkpoints of more leaves than the first size, and no more than the second."""
    rows = await connection.fetch(
        f"SELECT tree_size, last_sequence, root_hash, note, {CHECKPOINT_TIME}, cardinality(event_ids)"
        " FROM checkpoints WHERE journal_key = $1 AND tree_size > $2 AND tree_size <= $3 ORDER BY tree_size",
        journal_key,
        after_size,
        up_to_size,
    )
    return [
        CheckpointRow(size, last, root, note, microseconds(time), events)
        for size, last, root, note, time, events in rows
    ]


async def find_stored_nodes(
    connection: Connection, journal_key: int, *, level: int, start_index: int, end_index: int
) -> dict[tuple[int, int], bytes]:
    """Stored nodes of a level, from one index to before another, by level and index."""
    rows = await connection.fetch(
        "SELECT level, node_index, hash FROM tree_nodes"
        " WHERE journal_key = $1 AND level = $2 AND node_index >= $3 AND node_index < $4",
        journal_key,
        level,
        start_index,
        end_index,
    )
    return {(level, node_index): hash_ for level, node_index, hash_ in rows}


async def find_higher_nodes(connection: Connection, journal_key: int, level: int) -> dict[tuple[int, int], bytes]:
    """Stored nodes above a level, by level and index."""
    rows = await connection.fetch(
        "SELECT level, node_index, hash FROM tree_nodes WHERE journal_key = $1 AND level > $2", journal_key, level
    )
    return {(level, node_index): hash_ for level, node_index, hash_ in rows}


async def count_nodes(connection: Connection, journal_key: int) -> int:
    """Number of stored nodes."""
    count: int = await connection.fetchval(
        "SELECT count(*) FROM tree_nodes WHERE journal_key = $1", journal_key, timeout=_SCAN_SECONDS
    )
    return count


async def count_holds(connection: Connection, journal_key: int) -> int:
    """Of how many holds it is kept what became of them."""
    count: int = await connection.fetchval(
        "SELECT count(*) FROM holds WHERE journal_key = $1", journal_key, timeout=_SCAN_SECONDS
    )
    return count


async def count_beyond(connection: Connection, journal: Journal) -> tuple[int, int, int]:
    """Transactions, entries and checkpoints that lie beyond the head of the journal."""
    row = await connection.fetchrow(
        _BEYOND, journal.journal_key, journal.tree_size, journal.last_sequence, timeout=_SCAN_SECONDS
    )
    return (row[0], row[1], row[2]) if row else (0, 0, 0)


async def find_held_sums(connection: Connection, journal_key: int) -> dict[int, HeldSums]:
    """What is held, by the key of the account."""
    rows = await connection.fetch(_HELD, journal_key, timeout=_SCAN_SECONDS)
    return {key: HeldSums(int(debits), int(credits_)) for key, debits, credits_ in rows}


async def find_wrong_links(connection: Connection, journal_key: int) -> list[Fault]:
    """Holds and reversals that do not agree with the transactions that they name."""
    holds = await connection.fetch(_WRONG_HOLDS, journal_key, FAULTS_MAX, timeout=_SCAN_SECONDS)
    reversals = await connection.fetch(_WRONG_REVERSALS, journal_key, FAULTS_MAX, timeout=_SCAN_SECONDS)
    return [
        *(Fault("hold", detail, transaction_id or "") for transaction_id, detail in holds),
        *(Fault("reversal", detail, transaction_id or "") for transaction_id, detail in reversals),
    ]


async def list_all_accounts(connection: Connection, journal_key: int) -> AsyncIterator[list[Account]]:
    """All accounts of all books, some at a time."""
    after_key = 0
    while True:
        rows = await connection.fetch(
            f"SELECT {ACCOUNT_COLUMNS} FROM accounts JOIN books ON books.book_key = accounts.book_key"
            " WHERE accounts.journal_key = $1 AND accounts.account_key > $2 ORDER BY accounts.account_key LIMIT $3",
            journal_key,
            after_key,
            _ACCOUNT_PAGE,
        )
        if not rows:
            return
        accounts = [account_of(row) for row in rows]
        yield accounts
        after_key = accounts[-1].account_key


async def was_moved_since(connection: Connection, account: Account, side: Side) -> bool:
    """Whether something was booked or held on a side of an account since its limits were last changed."""
    moved: bool = await connection.fetchval(_MOVED_SINCE, account.account_key, account.update_time, side.value)
    return moved


def microseconds(time: datetime) -> int:
    """A time in microseconds since 1970."""
    return (time - EPOCH) // _MICROSECOND
