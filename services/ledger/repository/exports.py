"""SQL of exports. Every function runs in the caller's transaction, which is one tenant's.

Nothing that was booked ever changes, so an export is of one moment however many transactions it takes: it knows which
entry was the newest when it began, and looks at none that came later.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from mesh.database import Connection, Row
from services.ledger.model.accounts import AccountState, AccountType, Side
from services.ledger.model.exports.entries import ExportedEntry
from services.ledger.model.exports.journals import JournalAccount, JournalEntry, JournalTransaction
from services.ledger.model.postings import Kind
from services.ledger.model.reading import Period

# Statements that look at all entries of a book, and sort them.
_SCAN_SECONDS = 3600.0
_CURSOR_ROWS = 500

_ENTRIES = """
    SELECT entries.sequence, entries.leaf_index, transactions.transaction_id, transactions.kind,
           coalesce(entries.effective_time, entries.create_time) AS effective_time, entries.create_time,
           accounts.account_name, accounts.account_number, accounts.type AS account_type, entries.side, entries.pending,
           entries.amount_minor, accounts.currency, accounts.scale, entries.balance_after_minor,
           transactions.description, transactions.source_id,
           coalesce(related.transaction_id, '') AS related_transaction_id, transactions.metadata
    FROM entries
    JOIN accounts ON accounts.account_key = entries.account_key
    JOIN transactions ON transactions.journal_key = entries.journal_key
                     AND transactions.leaf_index = entries.leaf_index
    LEFT JOIN transactions AS related ON related.journal_key = transactions.journal_key
                                     AND related.leaf_index = transactions.related_leaf_index
    WHERE entries.journal_key = $1 AND entries.sequence > $2 AND entries.sequence <= $3
      AND entries.create_time >= $4 AND ($5::timestamptz IS NULL OR entries.create_time <= $5)
      AND transactions.book_key = $6
      AND ($7::timestamptz IS NULL OR coalesce(entries.effective_time, entries.create_time) >= $7)
      AND ($8::timestamptz IS NULL OR coalesce(entries.effective_time, entries.create_time) < $8)
    ORDER BY entries.sequence
"""
_JOURNAL = """
    SELECT transactions.leaf_index, transactions.transaction_id, transactions.kind, transactions.description,
           transactions.source_id, transactions.metadata,
           coalesce(transactions.effective_time, transactions.create_time) AS effective_time,
           transactions.create_time, coalesce(related.transaction_id, '') AS related_transaction_id,
           accounts.account_name, entries.side, entries.amount_minor, accounts.currency, accounts.scale
    FROM entries
    JOIN accounts ON accounts.account_key = entries.account_key
    JOIN transactions ON transactions.journal_key = entries.journal_key
                     AND transactions.leaf_index = entries.leaf_index
    LEFT JOIN transactions AS related ON related.journal_key = transactions.journal_key
                                     AND related.leaf_index = transactions.related_leaf_index
    WHERE entries.journal_key = $1 AND entries.sequence <= $2 AND NOT entries.pending
      AND ($3::timestamptz IS NULL OR entries.create_time <= $3) AND transactions.book_key = $4
      AND ($5::timestamptz IS NULL OR coalesce(entries.effective_time, entries.create_time) >= $5)
      AND ($6::timestamptz IS NULL OR coalesce(entries.effective_time, entries.create_time) < $6)
    ORDER BY coalesce(transactions.effective_time, transactions.create_time), transactions.leaf_index,
             entries.sequence
"""
_SUMS = """
    SELECT account_key,
           -- Debits and credits by themselves fit in bigint, so their difference does.
           coalesce(sum(signed_minor) FILTER (WHERE effective_time < $4), 0)::bigint AS opening_minor,
           sum(signed_minor)::bigint AS closing_minor,
           min(effective_time) FILTER (WHERE $4::timestamptz IS NULL OR effective_time >= $4) AS first_time
    FROM (
        SELECT account_key, coalesce(effective_time, create_time) AS effective_time,
               CASE side WHEN 'debit' THEN amount_minor ELSE -amount_minor END AS signed_minor
        FROM entries
        WHERE journal_key = $1 AND sequence <= $2 AND NOT pending
          AND ($3::timestamptz IS NULL OR create_time <= $3)
    ) AS posted
    WHERE $5::timestamptz IS NULL OR effective_time < $5
    GROUP BY account_key
"""
_ACCOUNTS = """
    SELECT account_key, account_name, coalesce(account_number, '') AS account_number, type, currency, scale,
           display_name, state, metadata
    FROM accounts WHERE book_key = $1
    ORDER BY account_key
"""


@dataclass(frozen=True, slots=True)
class ExportScope:
    """What to export: entries of one book that were there when the export began.

    Attributes:
        last_sequence: of the newest entry then.
        last_create_time: when that was booked.
        period: when they took effect.
        booking_time: only what was booked by then; None means all of it.
    """

    journal_key: int
    book_key: int
    book_name: str
    book_create_time: datetime
    last_sequence: int
    last_create_time: datetime
    period: Period
    booking_time: datetime | None


async def find_scope(
    connection: Connection, tenant_id: str, book_name: str, period: Period, booking_time: datetime | None
) -> ExportScope | None:
    """What there is now; None when there is no such book."""
    row = await connection.fetchrow(
        "SELECT journals.journal_key, books.book_key, books.book_name, books.create_time AS book_create_time,"
        " journals.last_sequence, journals.last_create_time"
        " FROM books JOIN journals ON journals.journal_key = books.journal_key"
        " WHERE books.tenant_id = $1 AND books.book_name = $2",
        tenant_id,
        book_name,
    )
    return ExportScope(**row, period=period, booking_time=booking_time) if row else None


async def find_scales(connection: Connection, tenant_id: str, book_name: str) -> dict[str, int]:
    """Decimals of every currency of a book."""
    rows = await connection.fetch(
        "SELECT DISTINCT accounts.currency, accounts.scale"
        " FROM books JOIN accounts ON accounts.book_key = books.book_key"
        " WHERE books.tenant_id = $1 AND books.book_name = $2",
        tenant_id,
        book_name,
    )
    return dict(map(tuple, rows))


async def list_entries_between(
    connection: Connection, scope: ExportScope, after_sequence: int, up_to_sequence: int, not_before: datetime
) -> list[ExportedEntry]:
    """Entries with these numbers, in their order.

    Args:
        not_before: none of them was booked before; it leads past the partitions of earlier months.
    """
    rows = await connection.fetch(
        _ENTRIES,
        scope.journal_key,
        after_sequence,
        min(up_to_sequence, scope.last_sequence),
        not_before,
        scope.booking_time,
        scope.book_key,
        scope.period.start_time,
        scope.period.end_time,
    )
    return [_exported_entry(row) for row in rows]


async def list_journal_accounts(
    connection: Connection, scope: ExportScope
) -> tuple[tuple[JournalAccount, ...], date | None]:
    """All accounts of the book in the order of their creation, and the first day on which anything took effect.

    The day is None when nothing did.
    """
    # Put together here: a planner that does not know the tables well yet would look through all sums for each account.
    sums = await connection.fetch(
        _SUMS,
        scope.journal_key,
        scope.last_sequence,
        scope.booking_time,
        scope.period.start_time,
        scope.period.end_time,
        timeout=_SCAN_SECONDS,
    )
    by_key = {row["account_key"]: row for row in sums}
    rows = await connection.fetch(_ACCOUNTS, scope.book_key, timeout=_SCAN_SECONDS)
    accounts = tuple(_journal_account(row, by_key.get(row["account_key"])) for row in rows)
    found = (by_key[row["account_key"]]["first_time"] for row in rows if row["account_key"] in by_key)
    first_time = min((time for time in found if time is not None), default=None)
    return accounts, None if first_time is None else first_time.astimezone(UTC).date()


async def read_journal(connection: Connection, scope: ExportScope) -> AsyncIterator[list[JournalTransaction]]:
    """Transactions that moved amounts, in the order of effect, some at a time; the database sorts."""
    transactions: list[JournalTransaction] = []
    rows: list[Row] = []
    query = connection.cursor(
        _JOURNAL,
        scope.journal_key,
        scope.last_sequence,
        scope.booking_time,
        scope.book_key,
        scope.period.start_time,
        scope.period.end_time,
        prefetch=_CURSOR_ROWS,
        timeout=_SCAN_SECONDS,
    )
    async for row in query:
        if rows and rows[0]["leaf_index"] != row["leaf_index"]:
            transactions.append(_journal_transaction(rows))
            rows = []
            if len(transactions) == _CURSOR_ROWS:
                yield transactions
                transactions = []
        rows.append(row)
    if rows:
        transactions.append(_journal_transaction(rows))
        yield transactions


def _journal_account(row: Row, sums: Row | None) -> JournalAccount:
    return JournalAccount(
        account_name=row["account_name"],
        account_number=row["account_number"],
        type=AccountType(row["type"]),
        currency=row["currency"],
        scale=row["scale"],
        display_name=row["display_name"],
        state=AccountState(row["state"]),
        metadata=json.loads(row["metadata"]),
        opening_minor=sums["opening_minor"] if sums else 0,
        closing_minor=sums["closing_minor"] if sums else 0,
        is_used=sums is not None,
    )


def _journal_transaction(rows: list[Row]) -> JournalTransaction:
    row = rows[0]
    return JournalTransaction(
        transaction_id=row["transaction_id"],
        kind=Kind(row["kind"]),
        description=row["description"],
        source_id=row["source_id"],
        related_id=row["related_transaction_id"],
        metadata=json.loads(row["metadata"]),
        effective_time=row["effective_time"],
        create_time=row["create_time"],
        entries=[
            JournalEntry(
                entry["account_name"],
                entry["amount_minor"] if entry["side"] == Side.DEBIT else -entry["amount_minor"],
                entry["currency"],
                entry["scale"],
            )
            for entry in rows
        ],
    )


def _exported_entry(row: Row) -> ExportedEntry:
    values: list[Any] = list(row)
    values[-1] = {} if values[-1] == "{}" else json.loads(values[-1])
    return ExportedEntry(*values)
