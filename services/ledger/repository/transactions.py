"""SQL that reads transactions. Every function runs in the caller's transaction, which is one tenant's.

Row-level security limits each statement to that tenant; statements name it as well where an index begins with it. It
also keeps every comparison out of an index that could betray a row of another tenant, which leaves plain comparisons
of columns: so what a statement computes is computed in a materialised part of it, and then compared as a column.
"""

# ruff: noqa: S608 - only constants and parameter numbers of this file are put into a statement, never a value

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from mesh.database import Connection, Row
from services.ledger.model.accounts import Side
from services.ledger.model.postings import Entry, HoldState, Kind, Transaction
from services.ledger.model.reading import TransactionFilter
from services.ledger.repository.arguments import Arguments
from services.ledger.repository.journals import Journal
from services.ledger.repository.planning import prefer_order
from services.ledger.repository.positions import position_at

# So much of the journal is read in one call at most, whatever is looked for in it.
MOST_LEAVES = 50_000
_NEAR_LEAVES = 2_000
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
) -> tuple[list[Transaction], int | None]:
    """Transactions in the order they were booked, and the leaf to go on after; None when there are no more.

    There may be fewer than the limit, or none, and more to come: one call reads only a stretch of the journal.
    """
    end = journal.tree_size
    if wanted.booked.last_time_before is not None:
        before = await position_at(connection, journal, wanted.booked.last_time_before)
        after_leaf_index = max(after_leaf_index, before.tree_size - 1)
    if wanted.booked.last_time is not None:
        end = (await position_at(connection, journal, wanted.booked.last_time)).tree_size
    stretch_end, leaves = end, None
    if wanted.metadata and not wanted.source_id:
        leaves = await find_leaves(connection, journal, wanted.metadata, (after_leaf_index, end), limit + 1)
        if len(leaves) > limit:
            stretch_end = leaves[-1] + 1
    elif not wanted.source_id and wanted.kind in {None, Kind.POSTING}:
        stretch_end = min(end, after_leaf_index + 1 + MOST_LEAVES)
    await prefer_order(connection)
    found = await _list_between(
        connection, journal, wanted, (after_leaf_index, stretch_end), leaves=leaves, limit=limit + 1
    )
    if len(found) > limit:
        return found[:limit], found[limit - 1].leaf_index
    return found, stretch_end - 1 if stretch_end < end else None


async def find_leaves(
    connection: Connection, journal: Journal, metadata: Mapping[str, str], leaf_range: tuple[int, int], limit: int
) -> list[int]:
    """The first transactions after one leaf and before another that have all of these metadata.

    What many transactions have is near; what is not, few have, and the index of metadata knows them.
    """
    after_leaf_index, until_leaf_index = leaf_range
    near_end = min(until_leaf_index, after_leaf_index + 1 + _NEAR_LEAVES)
    document = json.dumps(dict(metadata))
    rows = await connection.fetch(
        """
        SELECT leaf_index FROM transactions
        WHERE journal_key = $1 AND leaf_index > $2 AND leaf_index < $3 AND metadata @> $4::text::jsonb
        ORDER BY leaf_index LIMIT $5
        """,
        journal.journal_key,
        after_leaf_index,
        near_end,
        document,
        limit,
    )
    if len(rows) < limit and near_end < until_leaf_index:
        rows = await connection.fetch(
            "SELECT leaf_index FROM leaves_with_metadata($1::text::jsonb, $2, $3, $4) AS leaf_index",
            document,
            after_leaf_index,
            until_leaf_index,
            limit,
        )
    return [row["leaf_index"] for row in rows]


async def _list_between(
    connection: Connection,
    journal: Journal,
    wanted: TransactionFilter,
    leaf_range: tuple[int, int],
    *,
    leaves: Sequence[int] | None,
    limit: int,
) -> list[Transaction]:
    """The first transactions after one leaf and before another; of these leaves only, when they are given."""
    arguments = Arguments()
    conditions = [
        f"""transactions.book_key = (
                SELECT books.book_key FROM books
                WHERE books.tenant_id = {arguments.add(journal.tenant_id)}
                  AND books.book_name = {arguments.add(wanted.book_name)})""",
        f"transactions.leaf_index > {arguments.add(leaf_range[0])}",
        f"transactions.leaf_index < {arguments.add(leaf_range[1])}",
    ]
    if wanted.source_id:
        conditions.append(f"transactions.tenant_id = {arguments.add(journal.tenant_id)}")
        conditions.append(f"transactions.source_id = {arguments.add(wanted.source_id)}")
        # Said, because the index holds no others.
        conditions.append("transactions.source_id <> ''")
    else:
        conditions.append(f"transactions.journal_key = {arguments.add(journal.journal_key)}")
    if wanted.kind is not None:
        conditions.append(f"transactions.kind = {arguments.add(wanted.kind.value)}")
        if wanted.kind is not Kind.POSTING:
            conditions.append("transactions.kind <> 'posting'")
    if leaves is not None:
        conditions.append(f"transactions.leaf_index = ANY({arguments.add(leaves)}::bigint[])")
    elif wanted.metadata:
        conditions.append(f"transactions.metadata @> {arguments.add(json.dumps(dict(wanted.metadata)))}::text::jsonb")
    rows = await connection.fetch(
        f"""
        WITH found AS MATERIALIZED (
            SELECT {_FOUND_COLUMNS} FROM transactions
            WHERE {" AND ".join(conditions)}
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
