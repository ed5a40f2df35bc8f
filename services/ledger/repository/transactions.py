"""SQL that reads transactions. Every function runs in the caller's transaction, which is one tenant's.

Row-level security limits each statement to that tenant; statements name it as well where an index begins with it. It
also keeps every comparison out of an index that could betray a row of another tenant, which leaves plain comparisons
of columns: so what a statement computes is computed in a materialised part of it, and then compared as a column.
"""

# ruff: noqa: S608 - only constants and parameter numbers of this file are put into a statement, never a value

from __future__ import annotations

import json
from collections.abc import Sequence

from mesh.database import Connection, Row
from services.ledger.model.accounts import Side
from services.ledger.model.postings import Entry, HoldState, Kind, Transaction
from services.ledger.model.reading import TransactionFilter
from services.ledger.repository.arguments import Arguments
from services.ledger.repository.journals import Journal
from services.ledger.repository.positions import position_at

# Of rows found in `transactions`.
_FOUND_COLUMNS = """
    transactions.journal_key, transactions.leaf_index, transactions.book_key, transactions.transaction_id,
    transactions.kind, transactions.first_sequence,
    transactions.first_sequence + transactions.entry_count AS end_sequence, transactions.description,
    transactions.source_id, transactions.metadata, transactions.related_leaf_index, transactions.effective_time,
    transactions.expire_time, transactions.create_time
"""
# All that belongs to the transactions that a part named `found` gives. The time of booking leads to the one partition
# that the entries are in.
_SELECT_FOUND = """
    SELECT found.transaction_id, found.kind, books.book_name, found.leaf_index, found.first_sequence,
           found.description, found.source_id, found.metadata, found.effective_time, found.expire_time,
           found.create_time, coalesce(related.transaction_id, '') AS related_id, holds.state AS hold_state,
           booked.*, later.later_ids
    FROM found
    JOIN books ON books.book_key = found.book_key
    LEFT JOIN transactions AS related ON related.journal_key = found.journal_key
                                     AND related.leaf_index = found.related_leaf_index
    LEFT JOIN holds ON holds.journal_key = found.journal_key AND holds.leaf_index = found.leaf_index
    CROSS JOIN LATERAL (
        SELECT array_agg(entries.sequence ORDER BY entries.sequence) AS sequences,
               array_agg(accounts.account_name ORDER BY entries.sequence) AS account_names,
               array_agg(entries.side ORDER BY entries.sequence) AS sides,
               array_agg(entries.pending ORDER BY entries.sequence) AS pendings,
               array_agg(entries.amount_minor ORDER BY entries.sequence) AS amounts_minor,
               array_agg(accounts.currency ORDER BY entries.sequence) AS currencies,
               array_agg(entries.balance_after_minor ORDER BY entries.sequence) AS balances_after_minor
        FROM entries
        JOIN accounts ON accounts.account_key = entries.account_key
        WHERE entries.journal_key = found.journal_key AND entries.create_time = found.create_time
          AND entries.sequence >= found.first_sequence AND entries.sequence < found.end_sequence
    ) AS booked
    CROSS JOIN LATERAL (
        SELECT array_agg(transactions.transaction_id ORDER BY transactions.leaf_index) AS later_ids
        FROM transactions
        WHERE transactions.journal_key = found.journal_key AND transactions.related_leaf_index = found.leaf_index
    ) AS later
    ORDER BY found.leaf_index
"""


async def find_transactions(
    connection: Connection, tenant_id: str, transaction_ids: Sequence[str]
) -> dict[str, Transaction]:
    """Those of the transactions that exist, by id, with their entries and with what became of them since."""
    rows = await connection.fetch(
        f"""
        WITH found AS MATERIALIZED (
            SELECT {_FOUND_COLUMNS} FROM transactions WHERE tenant_id = $1 AND transaction_id = ANY($2::text[])
        )
        {_SELECT_FOUND}
        """,
        tenant_id,
        transaction_ids,
    )
    return {row["transaction_id"]: _transaction(row) for row in rows}


async def list_transactions(
    connection: Connection, journal: Journal, wanted: TransactionFilter, *, after_leaf_index: int, limit: int
) -> list[Transaction]:
    """Transactions in the order they were booked."""
    arguments = Arguments()
    conditions = [
        f"""transactions.book_key = (
                SELECT books.book_key FROM books
                WHERE books.tenant_id = {arguments.add(journal.tenant_id)}
                  AND books.book_name = {arguments.add(wanted.book_name)})"""
    ]
    if wanted.source_id:
        conditions.append(f"transactions.tenant_id = {arguments.add(journal.tenant_id)}")
        conditions.append(
            f"transactions.source_id = {arguments.add(wanted.source_id)} AND transactions.source_id <> ''"
        )
    else:
        conditions.append(f"transactions.journal_key = {arguments.add(journal.journal_key)}")
    if wanted.kind is not None:
        conditions.append(f"transactions.kind = {arguments.add(wanted.kind.value)}")
    if wanted.metadata:
        conditions.append(f"transactions.metadata @> {arguments.add(json.dumps(dict(wanted.metadata)))}::text::jsonb")
    if wanted.booked.last_time_before is not None:
        before = await position_at(connection, journal, wanted.booked.last_time_before)
        after_leaf_index = max(after_leaf_index, before.tree_size - 1)
    if wanted.booked.last_time is not None:
        until = await position_at(connection, journal, wanted.booked.last_time)
        conditions.append(f"transactions.leaf_index < {arguments.add(until.tree_size)}")
    rows = await connection.fetch(
        f"""
        WITH found AS MATERIALIZED (
            SELECT {_FOUND_COLUMNS} FROM transactions
            WHERE {" AND ".join(conditions)} AND transactions.leaf_index > {arguments.add(after_leaf_index)}
            ORDER BY transactions.leaf_index LIMIT {arguments.add(limit)}
        )
        {_SELECT_FOUND}
        """,
        *arguments,
    )
    return [_transaction(row) for row in rows]


async def list_journal(
    connection: Connection, journal: Journal, *, from_leaf_index: int, limit: int
) -> list[Transaction]:
    """Transactions of all books in the order they were booked, from a leaf on."""
    rows = await connection.fetch(
        f"""
        WITH found AS MATERIALIZED (
            SELECT {_FOUND_COLUMNS} FROM transactions WHERE journal_key = $1 AND leaf_index >= $2
            ORDER BY leaf_index LIMIT $3
        )
        {_SELECT_FOUND}
        """,
        journal.journal_key,
        from_leaf_index,
        limit,
    )
    return [_transaction(row) for row in rows]


def _transaction(row: Row) -> Transaction:
    hold_state = row["hold_state"]
    return Transaction(
        transaction_id=row["transaction_id"],
        kind=Kind(row["kind"]),
        book_name=row["book_name"],
        leaf_index=row["leaf_index"],
        first_sequence=row["first_sequence"],
        entries=_entries(row),
        description=row["description"],
        source_id=row["source_id"],
        metadata=json.loads(row["metadata"]),
        effective_time=row["effective_time"],
        expire_time=row["expire_time"],
        related_id=row["related_id"],
        create_time=row["create_time"],
        hold_state=None if hold_state is None else HoldState(hold_state),
        later_ids=tuple(row["later_ids"] or ()),
    )


def _entries(row: Row) -> tuple[Entry, ...]:
    # A void or an expiry has none.
    if row["sequences"] is None:
        return ()
    columns = zip(
        row["sequences"],
        row["account_names"],
        row["sides"],
        row["pendings"],
        row["amounts_minor"],
        row["currencies"],
        row["balances_after_minor"],
        strict=True,
    )
    return tuple(
        Entry(sequence, account_name, Side(side), pending, amount_minor, currency, balance_after_minor)
        for sequence, account_name, side, pending, amount_minor, currency, balance_after_minor in columns
    )
