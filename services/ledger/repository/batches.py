"""SQL of the write path: what a batch of postings reads.

All of it runs in the batch's own transaction, under the lock of the tenant's journal.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from mesh.database import Connection
from services.ledger.repository.arguments import literal
from services.ledger.repository.journals import JOURNAL_COLUMNS, Journal, journal_of

# All that is read by what the calls name themselves, in one row. The text is made an array once, and not for each row
# that is looked at.
_FIND_STATE = f"""
    SELECT
        (SELECT ROW({JOURNAL_COLUMNS}) FROM journals WHERE tenant_id = $1) AS journal,
        ARRAY(SELECT ROW(transaction_id, request, answer, NULL::bytea) FROM transactions
              WHERE tenant_id = $1 AND transaction_id = ANY((SELECT $2::text::text[])::text[])
              UNION ALL
              SELECT ROW(transaction_id, request, NULL::bytea, status) FROM refusals
              WHERE tenant_id = $1 AND transaction_id = ANY((SELECT $2::text::text[])::text[])) AS outcomes,
        ARRAY(SELECT ROW(request_id::text, request_hash) FROM requests
              WHERE tenant_id = $1 AND request_id = ANY((SELECT $3::text::uuid[])::uuid[])) AS requests,
        ARRAY(SELECT ROW(book_name, book_key, closed_time) FROM books
              WHERE tenant_id = $1 AND book_name = ANY($4::text[])) AS books
"""  # noqa: S608 - only a constant is put into it


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a posting ended before: `answer` when it was booked, else `status`."""

    request: bytes
    answer: bytes | None
    status: bytes | None


@dataclass(frozen=True, slots=True)
class State:
    """What a batch finds under the lock of what its calls name.

    Attributes:
        outcomes: of those of the postings that were asked for before, by transaction id.
        request_hashes: what those of the request ids were used for that were used before.
        books: key and closed time by name.
    """

    journal: Journal
    outcomes: Mapping[str, Outcome]
    request_hashes: Mapping[str, bytes]
    books: Mapping[str, tuple[int, datetime | None]]


async def find_state(
    connection: Connection,
    tenant_id: str,
    *,
    transaction_ids: Collection[str],
    request_ids: Collection[str],
    book_names: Collection[str],
) -> State:
    """What is known of what a batch names, in a transaction that began with LOCK_FIRST."""
    row = await connection.fetchrow(
        _FIND_STATE, tenant_id, literal(transaction_ids), literal(request_ids), list(book_names)
    )
    if row is None or row["journal"] is None:
        raise LookupError("the journal that was locked is not there")
    return State(
        journal_of(row["journal"]),
        {
            transaction_id: Outcome(request or b"", answer, status)
            for transaction_id, request, answer, status in row["outcomes"]
        },
        dict(row["requests"]),
        {book_name: (book_key, closed_time) for book_name, book_key, closed_time in row["books"]},
    )


async def find_due_holds(connection: Connection, journal: Journal, now: datetime) -> list[str]:
    """Ids of the transactions whose hold is over, in the order in which they end."""
    rows = await connection.fetch(
        "SELECT transactions.transaction_id FROM holds"
        " JOIN transactions USING (journal_key, leaf_index)"
        " WHERE holds.journal_key = $1 AND holds.state = 'held' AND holds.expire_time <= $2"
        " ORDER BY holds.expire_time, holds.leaf_index",
        journal.journal_key,
        now,
    )
    return [row["transaction_id"] for row in rows]


async def find_reversed(connection: Connection, journal: Journal, leaf_indexes: Collection[int]) -> dict[int, str]:
    """Which entries of the transactions were reversed: by sequence, the id of the reversal."""
    rows = await connection.fetch(
        "SELECT reversed_entries.sequence, transactions.transaction_id FROM reversed_entries"
        " JOIN transactions ON transactions.journal_key = reversed_entries.journal_key"
        " AND transactions.leaf_index = reversed_entries.reversal_leaf_index"
        " WHERE reversed_entries.journal_key = $1 AND reversed_entries.leaf_index = ANY($2)",
        journal.journal_key,
        list(leaf_indexes),
    )
    return {row["sequence"]: row["transaction_id"] for row in rows}


async def find_books(
    connection: Connection, tenant_id: str, book_names: Collection[str]
) -> dict[str, tuple[int, datetime | None]]:
    """Key and closed time of books by name."""
    rows = await connection.fetch(
        "SELECT book_name, book_key, closed_time FROM books WHERE tenant_id = $1 AND book_name = ANY($2)",
        tenant_id,
        list(book_names),
    )
    return {row["book_name"]: (row["book_key"], row["closed_time"]) for row in rows}


async def ensure_partition(connection: Connection, moment: datetime) -> None:
    """Makes the partition that entries of a time go into."""
    await connection.execute("SELECT ensure_entries_partition($1)", moment)
