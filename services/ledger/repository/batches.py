"""SQL of the write path: what a batch of postings reads, and the few statements that write it.

Every function runs in the batch's own transaction, under the lock of the tenant's journal.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mesh.database import Connection
from services.ledger.model.evaluation import Booked
from services.ledger.model.postings import HoldState, Kind
from services.ledger.model.running import Movement
from services.ledger.repository.journals import Journal

# The text is made an array once, and not for each row that is looked at.
_FIND_KNOWN = """
    SELECT transaction_id, request, answer, NULL::bytea AS status FROM transactions
    WHERE tenant_id = $1 AND transaction_id = ANY((SELECT $2::text::text[])::text[])
    UNION ALL
    SELECT transaction_id, request, NULL, status FROM refusals
    WHERE tenant_id = $1 AND transaction_id = ANY((SELECT $2::text::text[])::text[])
"""
_MOVE_ACCOUNTS = """
    UPDATE accounts
    SET debits_minor = accounts.debits_minor + movement.debits_minor,
        credits_minor = accounts.credits_minor + movement.credits_minor,
        pending_debits_minor = accounts.pending_debits_minor + movement.pending_debits_minor,
        pending_credits_minor = accounts.pending_credits_minor + movement.pending_credits_minor
    FROM unnest($1::text::bigint[], $2::text::bigint[], $3::text::bigint[], $4::text::bigint[], $5::text::bigint[])
         AS movement (account_key, debits_minor, credits_minor, pending_debits_minor, pending_credits_minor)
    WHERE accounts.account_key = movement.account_key
"""
# The triggers want a transaction and its entries from one statement.
_BOOK = """
    WITH head AS (
        UPDATE journals
        SET last_sequence = $3, tree_size = $4, frontier = $5, last_create_time = $6
        WHERE journal_key = $1
    ), signed AS (
        INSERT INTO checkpoints (journal_key, tenant_id, tree_size, last_sequence, root_hash, note, create_time,
                                 event_ids)
        VALUES ($1, $2, $4, $3, $7, $8, $6, $9)
    ), booked AS (
        INSERT INTO transactions (journal_key, tenant_id, create_time, leaf_index, book_key, transaction_id, kind,
                                  first_sequence, entry_count, description, source_id, metadata, related_leaf_index,
                                  effective_time, expire_time, leaf_hash, request, answer)
        SELECT $1, $2, $6, leaf_index, book_key, transaction_id, kind, first_sequence, entry_count,
               coalesce(description, ''), coalesce(source_id, ''), coalesce(metadata, '{}')::jsonb, related_leaf_index,
               effective_time, expire_time, leaf_hash, request, answer
        FROM unnest($10::text::bigint[], $11::text::bigint[], $12::text::text[], $13::text::text[],
                    $14::text::bigint[], $15::text::integer[], $16::text::bigint[], $17::text[], $18::text[],
                    $19::text[], $20::timestamptz[], $21::timestamptz[], $22::bytea[], $23::bytea[], $24::bytea[])
             AS booking (leaf_index, book_key, transaction_id, kind, first_sequence, entry_count, related_leaf_index,
                         description, source_id, metadata, effective_time, expire_time, leaf_hash, request, answer)
    )
    INSERT INTO entries (journal_key, tenant_id, create_time, sequence, leaf_index, account_key, side, pending,
                         amount_minor, balance_after_minor, effective_time)
    SELECT $1, $2, $6, sequence, leaf_index, account_key, side, pending, amount_minor, balance_after_minor,
           effective_time
    FROM unnest($25::text::bigint[], $26::text::bigint[], $27::text::bigint[], $28::text::text[],
                $29::text::boolean[], $30::text::bigint[], $31::text::bigint[], $32::timestamptz[])
         AS entering (sequence, leaf_index, account_key, side, pending, amount_minor, balance_after_minor,
                      effective_time)
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a posting ended before: `answer` when it was booked, else `status`."""

    request: bytes
    answer: bytes | None
    status: bytes | None


@dataclass(frozen=True, slots=True)
class Booking:
    """A transaction to write, with its leaf, and what to answer whoever asks again."""

    booked: Booked
    leaf_hash: bytes
    request: bytes | None
    answer: bytes | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A posting that is refused for ever."""

    transaction_id: str
    request: bytes
    status: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """What becomes of a journal by a batch.

    Attributes:
        nodes: full nodes of the tree: level, index, hash.
        event_ids: the events that announce the transactions of the batch.
    """

    last_sequence: int
    tree_size: int
    frontier: bytes
    root_hash: bytes
    note: str
    create_time: datetime
    nodes: Sequence[tuple[int, int, bytes]]
    event_ids: Sequence[str]


async def find_known(connection: Connection, tenant_id: str, transaction_ids: Collection[str]) -> dict[str, Outcome]:
    """How those of the postings ended that were asked for before."""
    rows = await connection.fetch(_FIND_KNOWN, tenant_id, _literal(transaction_ids))
    return {row["transaction_id"]: Outcome(row["request"] or b"", row["answer"], row["status"]) for row in rows}


async def find_request_hashes(connection: Connection, tenant_id: str, request_ids: Collection[str]) -> dict[str, bytes]:
    """What those of the request ids were used for that were used before."""
    rows = await connection.fetch(
        "SELECT request_id::text, request_hash FROM requests WHERE tenant_id = $1 AND request_id = ANY($2::uuid[])",
        tenant_id,
        list(request_ids),
    )
    return {row["request_id"]: row["request_hash"] for row in rows}


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


async def write_movements(connection: Connection, movements: Sequence[Movement]) -> None:
    """Writes the net change of each account, once."""
    if movements:
        await connection.execute(
            _MOVE_ACCOUNTS,
            _literal(movement.account_key for movement in movements),
            _literal(movement.debits_minor for movement in movements),
            _literal(movement.credits_minor for movement in movements),
            _literal(movement.pending_debits_minor for movement in movements),
            _literal(movement.pending_credits_minor for movement in movements),
        )


async def write_bookings(
    connection: Connection,
    journal: Journal,
    head: Head,
    bookings: Sequence[Booking],
    *,
    book_keys: Mapping[str, int],
    related_leaf_indexes: Mapping[str, int],
) -> None:
    """Writes transactions with their entries, the head of the journal, and its checkpoint."""
    await connection.execute(
        _BOOK,
        journal.journal_key,
        journal.tenant_id,
        head.last_sequence,
        head.tree_size,
        head.frontier,
        head.create_time,
        head.root_hash,
        head.note,
        list(head.event_ids),
        *_transaction_columns(bookings, book_keys, related_leaf_indexes),
        *_entry_columns(bookings),
    )
    if head.nodes:
        await connection.execute(
            "INSERT INTO tree_nodes (journal_key, tenant_id, level, node_index, hash)"
            " SELECT $1, $2, level, node_index, hash FROM unnest($3::smallint[], $4::bigint[], $5::bytea[])"
            " AS node (level, node_index, hash)",
            journal.journal_key,
            journal.tenant_id,
            *_columns(head.nodes, 3),
        )


def _transaction_columns(
    bookings: Sequence[Booking], book_keys: Mapping[str, int], related_leaf_indexes: Mapping[str, int]
) -> list[Any]:
    transactions = [booking.booked.transaction for booking in bookings]
    return [
        _literal(one.leaf_index for one in transactions),
        _literal(book_keys[one.book_name] for one in transactions),
        _literal(one.transaction_id for one in transactions),
        _literal(one.kind for one in transactions),
        _literal(one.first_sequence for one in transactions),
        _literal(len(one.entries) for one in transactions),
        _literal(related_leaf_indexes[one.related_id] if one.related_id else "NULL" for one in transactions),
        _sparse([one.description for one in transactions]),
        _sparse([one.source_id for one in transactions]),
        _sparse([json.dumps(dict(one.metadata)) if one.metadata else None for one in transactions]),
        _sparse([one.effective_time for one in transactions]),
        _sparse([one.expire_time for one in transactions]),
        [booking.leaf_hash for booking in bookings],
        [booking.request for booking in bookings],
        [booking.answer for booking in bookings],
    ]


def _entry_columns(bookings: Sequence[Booking]) -> list[Any]:
    transactions = [booking.booked.transaction for booking in bookings]
    entries = [entry for one in transactions for entry in one.entries]
    return [
        _literal(entry.sequence for entry in entries),
        _literal(one.leaf_index for one in transactions for _ in one.entries),
        _literal(account_key for booking in bookings for account_key in booking.booked.account_keys),
        _literal(entry.side for entry in entries),
        _literal(entry.pending for entry in entries),
        _literal(entry.amount_minor for entry in entries),
        _literal(entry.balance_after_minor for entry in entries),
        _sparse([one.effective_time for one in transactions for _ in one.entries]),
    ]


def _literal(values: Iterable[object]) -> str:
    """An array as text, of values that need no quotes: the driver takes several times as long for each of an array."""
    return f"{{{','.join(map(str, values))}}}"


def _sparse(values: Sequence[Any]) -> Sequence[Any]:
    """The values, or none where all are empty: unnest fills up the shorter arrays."""
    return values if any(values) else ()


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[Sequence[Any]]:
    return list(zip(*rows, strict=True)) if rows else [()] * width


async def write_holds(
    connection: Connection, journal: Journal, bookings: Sequence[Booking], ends: Mapping[int, tuple[HoldState, int]]
) -> None:
    """Writes new holds, and what became of holds.

    Args:
        ends: by leaf index of the hold, its state and the leaf index of what ended it.
    """
    new = [
        (booking.booked.transaction.leaf_index, booking.booked.transaction.expire_time)
        for booking in bookings
        if booking.booked.transaction.kind is Kind.HOLD
    ]
    if new:
        await connection.execute(
            "INSERT INTO holds (journal_key, tenant_id, leaf_index, expire_time)"
            " SELECT $1, $2, leaf_index, expire_time FROM unnest($3::bigint[], $4::timestamptz[])"
            " AS hold (leaf_index, expire_time)",
            journal.journal_key,
            journal.tenant_id,
            *_columns(new, 2),
        )
    if ends:
        await connection.execute(
            "UPDATE holds SET state = ended.state, ended_by_leaf_index = ended.ended_by_leaf_index"
            " FROM unnest($2::bigint[], $3::text[], $4::bigint[]) AS ended (leaf_index, state, ended_by_leaf_index)"
            " WHERE holds.journal_key = $1 AND holds.leaf_index = ended.leaf_index",
            journal.journal_key,
            list(ends),
            [state for state, _ in ends.values()],
            [leaf_index for _, leaf_index in ends.values()],
        )
    if new or ends:
        await connection.execute(
            "UPDATE journals SET next_expire_time ="
            " (SELECT min(expire_time) FROM holds WHERE journal_key = $1 AND state = 'held')"
            " WHERE journal_key = $1",
            journal.journal_key,
        )


async def write_reversed(
    connection: Connection, journal: Journal, reversed_entries: Sequence[tuple[int, int, int]]
) -> None:
    """Writes which entries were reversed: sequence, its leaf index, and the leaf index of the reversal."""
    if reversed_entries:
        await connection.execute(
            "INSERT INTO reversed_entries (journal_key, tenant_id, sequence, leaf_index, reversal_leaf_index)"
            " SELECT $1, $2, sequence, leaf_index, reversal_leaf_index"
            " FROM unnest($3::bigint[], $4::bigint[], $5::bigint[])"
            " AS reversed (sequence, leaf_index, reversal_leaf_index)",
            journal.journal_key,
            journal.tenant_id,
            *_columns(reversed_entries, 3),
        )


async def write_refusals(
    connection: Connection, tenant_id: str, refusals: Sequence[Refusal], create_time: datetime
) -> None:
    """Writes what was refused."""
    if refusals:
        await connection.execute(
            "INSERT INTO refusals (tenant_id, create_time, transaction_id, request, status)"
            " SELECT $1, $2, transaction_id, request, status FROM unnest($3::text[], $4::bytea[], $5::bytea[])"
            " AS refused (transaction_id, request, status)",
            tenant_id,
            create_time,
            *_columns([(refusal.transaction_id, refusal.request, refusal.status) for refusal in refusals], 3),
        )


async def write_requests(
    connection: Connection, tenant_id: str, hashes: Mapping[str, bytes], create_time: datetime
) -> None:
    """Writes what request ids were used for."""
    if hashes:
        await connection.execute(
            "INSERT INTO requests (tenant_id, create_time, request_id, request_hash)"
            " SELECT $1, $2, request_id, request_hash FROM unnest($3::uuid[], $4::bytea[])"
            " AS asked (request_id, request_hash)",
            tenant_id,
            create_time,
            list(hashes),
            list(hashes.values()),
        )
