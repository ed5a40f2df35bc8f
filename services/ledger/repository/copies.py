"""SQL that copies transactions and entries out in binary, for model/copied_rows.py to read."""

from __future__ import annotations

from mesh.database import Connection

# A chunk of rows is much faster than this; a database that hangs must not hang who asks.
_COPY_SECONDS = 120.0
# The order of columns is the one that model/copied_rows.py reads. Null only where it expects it.
_TRANSACTIONS = """
    SELECT transactions.leaf_index, transactions.first_sequence, transactions.create_time, transactions.entry_count,
           coalesce(books.book_name, ''), transactions.transaction_id, transactions.kind, transactions.description,
           transactions.source_id,
           CASE WHEN transactions.related_leaf_index IS NULL THEN ''
                ELSE coalesce((SELECT related.transaction_id FROM transactions AS related
                               WHERE related.journal_key = transactions.journal_key
                                 AND related.leaf_index = transactions.related_leaf_index), '') END,
           transactions.effective_time, transactions.expire_time, transactions.metadata::text, transactions.leaf_hash
    FROM transactions
    LEFT JOIN books ON books.book_key = transactions.book_key
    WHERE transactions.journal_key = $1 AND transactions.leaf_index >= $2 AND transactions.leaf_index < $3
    ORDER BY transactions.leaf_index
"""
_ENTRIES = """
    SELECT entries.sequence, entries.leaf_index, entries.account_key,
           coalesce(accounts.type IN ('asset', 'expense'), false), entries.create_time,
           coalesce(accounts.account_name, ''), entries.side, entries.pending, entries.amount_minor,
           coalesce(accounts.currency, ''), entries.balance_after_minor, entries.effective_time
    FROM entries
    LEFT JOIN accounts ON accounts.account_key = entries.account_key
    WHERE entries.journal_key = $1 AND entries.sequence >= $2 AND entries.sequence < $3
    ORDER BY entries.sequence
"""


async def copy_transactions(connection: Connection, journal_key: int, start_leaf: int, end_leaf: int) -> bytes:
    """The transactions from one leaf to before another, in their order."""
    return await _copy(connection, _TRANSACTIONS, journal_key, start_leaf, end_leaf)


async def copy_entries(connection: Connection, journal_key: int, start_sequence: int, end_sequence: int) -> bytes:
    """The entries from one sequence to before another, in their order."""
    return await _copy(connection, _ENTRIES, journal_key, start_sequence, end_sequence)


async def find_first_sequence(connection: Connection, journal_key: int, leaf_index: int) -> int | None:
    """The first sequence of the transaction at a leaf, or at the next that there is; None when there is none."""
    sequence: int | None = await connection.fetchval(
        "SELECT first_sequence FROM transactions WHERE journal_key = $1 AND leaf_index >= $2"
        " ORDER BY leaf_index LIMIT 1",
        journal_key,
        leaf_index,
    )
    return sequence


async def _copy(connection: Connection, query: str, *arguments: int) -> bytes:
    parts: list[bytes] = []

    async def keep(part: bytes) -> None:
        parts.append(part)

    await connection.copy_from_query(query, *arguments, output=keep, format="binary", timeout=_COPY_SECONDS)
    return b"".join(parts)
