"""SQL that copies transactions and entries out in binary, for model/copied_rows.py and model/quick_check.py to read.

The order of columns is the one that is read there, and null is only where it is expected there.
"""

# ruff: noqa: S608 - only constants of this file are put into a statement, never a value

from __future__ import annotations

from io import BytesIO
from typing import NamedTuple

from mesh.database import Connection
from services.ledger.model.verification import Span

# A chunk of rows is much faster than this; a database that hangs must not hang who asks.
_COPY_SECONDS = 120.0
_RELATED_ID = """
    CASE WHEN transactions.related_leaf_index IS NULL THEN ''
         ELSE coalesce((SELECT related.transaction_id FROM transactions AS related
                        WHERE related.journal_key = transactions.journal_key
                          AND related.leaf_index = transactions.related_leaf_index), '') END
"""
_TRANSACTIONS = f"""
    SELECT transactions.leaf_index, transactions.first_sequence, transactions.create_time, transactions.entry_count,
           coalesce(books.book_name, ''), transactions.transaction_id, transactions.kind, transactions.description,
           transactions.source_id, {_RELATED_ID}, transactions.effective_time, transactions.expire_time,
           transactions.metadata::text, transactions.leaf_hash
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
# The six texts that lie side by side in a record, each after its length, with the leaf index among them: 6 * 4 + 4 + 8.
_QUICK_TRANSACTIONS = f"""
    SELECT 36 + octet_length(book_name) + octet_length(transaction_id) + octet_length(kind) + octet_length(description)
               + octet_length(source_id) + octet_length(related_id),
           first_sequence, entry_count, leaf_index, create_time, coalesce(effective_time, create_time),
           effective_time IS NULL, kind = 'hold', leaf_hash,
           book_name, leaf_index, transaction_id, kind, description, source_id, related_id, metadata::text, expire_time
    FROM (SELECT transactions.*, coalesce(books.book_name, '') AS book_name, {_RELATED_ID} AS related_id
          FROM transactions
          LEFT JOIN books ON books.book_key = transactions.book_key
          WHERE transactions.journal_key = $1 AND transactions.leaf_index >= $2 AND transactions.leaf_index < $3
    ) AS transactions
    ORDER BY leaf_index
"""
_QUICK_ENTRIES = """
    SELECT sequence, leaf_index, create_time, coalesce(effective_time, create_time), effective_time IS NULL, pending,
           account_key, CASE WHEN amount_minor > 0 THEN CASE side WHEN 'debit' THEN amount_minor
                                                                  WHEN 'credit' THEN -amount_minor END END,
           balance_after_minor
    FROM entries
    WHERE journal_key = $1 AND sequence >= $2 AND sequence < $3
    ORDER BY sequence
"""
# By their keys, however many accounts there are: the planner can't weigh what a sub-query will give.
_QUICK_ACCOUNTS = """
    SELECT account_key, coalesce(type IN ('asset', 'expense'), false), coalesce(account_name, ''),
           coalesce(currency, '')
    FROM accounts
    WHERE account_key = ANY(ARRAY(SELECT DISTINCT account_key FROM entries
                                  WHERE journal_key = $1 AND sequence >= $2 AND sequence < $3))
"""


class QuickCopies(NamedTuple):
    """What model/quick_check.py reads."""

    transactions: bytes
    entries: bytes
    accounts: bytes


async def copy_transactions(connection: Connection, journal_key: int, start_leaf: int, end_leaf: int) -> bytes:
    """The transactions from one leaf to before another, in their order."""
    return await _copy(connection, _TRANSACTIONS, journal_key, start_leaf, end_leaf)


async def copy_entries(connection: Connection, journal_key: int, start_sequence: int, end_sequence: int) -> bytes:
    """The entries from one sequence to before another, in their order."""
    return await _copy(connection, _ENTRIES, journal_key, start_sequence, end_sequence)


async def copy_quick(connection: Connection, journal_key: int, span: Span) -> QuickCopies:
    """The same of a span, and the accounts of its entries, in the form for the quick check."""
    sequences = span.start_sequence, span.end_sequence
    return QuickCopies(
        await _copy(connection, _QUICK_TRANSACTIONS, journal_key, span.start_leaf, span.end_leaf),
        await _copy(connection, _QUICK_ENTRIES, journal_key, *sequences),
        await _copy(connection, _QUICK_ACCOUNTS, journal_key, *sequences),
    )


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
    # Unlike a list of what came, it is not there twice when it is put together.
    copy = BytesIO()

    async def keep(part: bytes) -> None:
        copy.write(part)

    await connection.copy_from_query(query, *arguments, output=keep, format="binary", timeout=_COPY_SECONDS)
    return copy.getvalue()
