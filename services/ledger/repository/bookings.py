"""SQL of the write path: the few statements that write a batch of postings.

All of it runs in the batch's own transaction, under the lock of the tenant's journal. The functions give statements, so
that those of the batch go to the database together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from mesh.statements import Statement
from services.ledger.model.evaluation import Booked
from services.ledger.model.postings import HoldState, Kind
from services.ledger.model.running import Movement
from services.ledger.repository.arguments import literal
from services.ledger.repository.journals import Journal

_ADD_REQUESTS = """
    INSERT INTO requests (tenant_id, create_time, request_id, request_hash)
    SELECT $1, $2, request_id, request_hash
    FROM unnest($3::text::uuid[], $4::bytea[]) AS asked (request_id, request_hash)
"""
_ADD_REFUSALS = """
    INSERT INTO refusals (tenant_id, create_time, transaction_id, request, status)
    SELECT $1, $2, transaction_id, request, status
    FROM unnest($3::text[], $4::bytea[], $5::bytea[]) AS refused (transaction_id, request, status)
"""
# An account whose sums are not what the batch was decided on gets none, which its column refuses.
_MOVE_ACCOUNTS = """
    UPDATE accounts
    SET debits_minor = CASE WHEN accounts.debits_minor = coalesce(debits_before, 0)
                             AND accounts.credits_minor = coalesce(credits_before, 0)
                             AND accounts.pending_debits_minor = coalesce(pending_debits_before, 0)
                             AND accounts.pending_credits_minor = coalesce(pending_credits_before, 0)
                            THEN coalesce(debits_after, 0) END,
        credits_minor = coalesce(credits_after, 0),
        pending_debits_minor = coalesce(pending_debits_after, 0),
        pending_credits_minor = coalesce(pending_credits_after, 0)
    FROM unnest($1::text::bigint[], $2::text::bigint[], $3::text::bigint[], $4::text::bigint[], $5::text::bigint[],
                $6::text::bigint[], $7::text::bigint[], $8::text::bigint[], $9::text::bigint[])
         AS movement (account_key, debits_before, credits_before, pending_debits_before, pending_credits_before,
                      debits_after, credits_after, pending_debits_after, pending_credits_after)
    WHERE accounts.account_key = movement.account_key
"""
_MOVE_HEAD = """
    UPDATE journals SET last_sequence = $2, tree_size = $3, frontier = $4, last_create_time = $5
    WHERE journal_key = $1
"""
_ADD_CHECKPOINT = """
    INSERT INTO checkpoints (journal_key, tenant_id, tree_size, last_sequence, root_hash, note, create_time, event_ids)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""
_ADD_NODES = """
    INSERT INTO tree_nodes (journal_key, tenant_id, level, node_index, hash)
    SELECT $1, $2, level, node_index, hash
    FROM unnest($3::smallint[], $4::bigint[], $5::bytea[]) AS node (level, node_index, hash)
"""
_ADD_TRANSACTIONS = """
    INSERT INTO transactions (journal_key, tenant_id, create_time, leaf_index, book_key, transaction_id, kind,
                              first_sequence, entry_count, description, source_id, metadata, related_leaf_index,
                              effective_time, expire_time, leaf_hash, request, answer)
    SELECT $1, $2, $3, leaf_index, book_key, transaction_id, kind, first_sequence, entry_count,
           coalesce(description, ''), coalesce(source_id, ''), coalesce(metadata, '{}')::jsonb, related_leaf_index,
           effective_time, expire_time, leaf_hash, request, answer
    FROM unnest($4::text::bigint[], $5::text::bigint[], $6::text::text[], $7::text::text[], $8::text::bigint[],
                $9::text::integer[], $10::text::bigint[], $11::text[], $12::text[], $13::text[], $14::timestamptz[],
                $15::timestamptz[], $16::bytea[], $17::bytea[], $18::bytea[])
         AS booking (leaf_index, book_key, transaction_id, kind, first_sequence, entry_count, related_leaf_index,
                     description, source_id, metadata, effective_time, expire_time, leaf_hash, request, answer)
"""
_ADD_ENTRIES = """
    INSERT INTO entries (journal_key, tenant_id, create_time, sequence, leaf_index, account_key, side, pending,
                         amount_minor, balance_after_minor, effective_time)
    SELECT $1, $2, $3, sequence, leaf_index, account_key, side, pending, amount_minor, balance_after_minor,
           effective_time
    FROM unnest($4::text::bigint[], $5::text::bigint[], $6::text::bigint[], $7::text::text[], $8::text::boolean[],
                $9::text::bigint[], $10::text::bigint[], $11::timestamptz[])
         AS entering (sequence, leaf_index, account_key, side, pending, amount_minor, balance_after_minor,
                      effective_time)
"""
_ADD_HOLDS = """
    INSERT INTO holds (journal_key, tenant_id, leaf_index, expire_time)
    SELECT $1, $2, leaf_index, expire_time
    FROM unnest($3::bigint[], $4::timestamptz[]) AS hold (leaf_index, expire_time)
"""
_END_HOLDS = """
    UPDATE holds SET state = ended.state, ended_by_leaf_index = ended.ended_by_leaf_index
    FROM unnest($2::bigint[], $3::text[], $4::bigint[]) AS ended (leaf_index, state, ended_by_leaf_index)
    WHERE holds.journal_key = $1 AND holds.leaf_index = ended.leaf_index
"""
_MOVE_EXPIRY = """
    UPDATE journals
    SET next_expire_time = (SELECT min(expire_time) FROM holds WHERE journal_key = $1 AND state = 'held')
    WHERE journal_key = $1
"""
_ADD_REVERSED = """
    INSERT INTO reversed_entries (journal_key, tenant_id, sequence, leaf_index, reversal_leaf_index)
    SELECT $1, $2, sequence, leaf_index, reversal_leaf_index
    FROM unnest($3::bigint[], $4::bigint[], $5::bigint[]) AS reversed (sequence, leaf_index, reversal_leaf_index)
"""


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


def added_requests(tenant_id: str, hashes: Mapping[str, bytes], create_time: datetime) -> list[Statement]:
    """What writes what request ids were used for."""
    if not hashes:
        return []
    return [Statement(_ADD_REQUESTS, (tenant_id, create_time, literal(hashes), list(hashes.values())))]


def added_refusals(tenant_id: str, refusals: Sequence[Refusal], create_time: datetime) -> list[Statement]:
    """What writes what was refused."""
    if not refusals:
        return []
    columns = _columns([(refusal.transaction_id, refusal.request, refusal.status) for refusal in refusals], 3)
    return [Statement(_ADD_REFUSALS, (tenant_id, create_time, *columns))]


def moved_accounts(movements: Sequence[Movement]) -> list[Statement]:
    """What writes the sums of each account, once. It fails when they were others before: see is_of_changed_sums."""
    if not movements:
        return []
    before = zip(*[movement.before for movement in movements], strict=True)
    after = zip(*[movement.after for movement in movements], strict=True)
    keys = [movement.account_key for movement in movements]
    return [Statement(_MOVE_ACCOUNTS, [literal(_sparse(column)) for column in (keys, *before, *after)])]


def is_of_changed_sums(error: asyncpg.NotNullViolationError) -> bool:
    """Whether a statement failed because the sums of an account were others before."""
    return (error.table_name, error.column_name) == ("accounts", "debits_minor")


def moved_head(journal: Journal, head: Head) -> list[Statement]:
    """What writes the head of the journal, and its checkpoint."""
    key, tenant_id = journal.journal_key, journal.tenant_id
    moved = (key, head.last_sequence, head.tree_size, head.frontier, head.create_time)
    signed = (
        key,
        tenant_id,
        head.tree_size,
        head.last_sequence,
        head.root_hash,
        head.note,
        head.create_time,
        list(head.event_ids),
    )
    statements = [Statement(_MOVE_HEAD, moved), Statement(_ADD_CHECKPOINT, signed)]
    if head.nodes:
        statements.append(Statement(_ADD_NODES, (key, tenant_id, *_columns(head.nodes, 3))))
    return statements


def added_bookings(
    journal: Journal,
    create_time: datetime,
    bookings: Sequence[Booking],
    *,
    book_keys: Mapping[str, int],
    related_leaf_indexes: Mapping[str, int],
) -> list[Statement]:
    """What writes transactions with their entries. The triggers want both together."""
    every = (journal.journal_key, journal.tenant_id, create_time)
    transactions = _transaction_columns(bookings, book_keys, related_leaf_indexes)
    return [
        Statement(_ADD_TRANSACTIONS, (*every, *transactions)),
        Statement(_ADD_ENTRIES, (*every, *_entry_columns(bookings))),
    ]


def _transaction_columns(
    bookings: Sequence[Booking], book_keys: Mapping[str, int], related_leaf_indexes: Mapping[str, int]
) -> list[Any]:
    transactions = [booking.booked.transaction for booking in bookings]
    return [
        literal(one.leaf_index for one in transactions),
        literal(book_keys[one.book_name] for one in transactions),
        literal(one.transaction_id for one in transactions),
        literal(one.kind for one in transactions),
        literal(one.first_sequence for one in transactions),
        literal(len(one.entries) for one in transactions),
        literal(related_leaf_indexes[one.related_id] if one.related_id else "NULL" for one in transactions),
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
        literal(entry.sequence for entry in entries),
        literal(one.leaf_index for one in transactions for _ in one.entries),
        literal(account_key for booking in bookings for account_key in booking.booked.account_keys),
        literal(entry.side for entry in entries),
        literal(entry.pending for entry in entries),
        literal(entry.amount_minor for entry in entries),
        literal(entry.balance_after_minor for entry in entries),
        _sparse([one.effective_time for one in transactions for _ in one.entries]),
    ]


def _sparse(values: Sequence[Any]) -> Sequence[Any]:
    """The values, or none where all are empty: unnest fills up the shorter arrays."""
    return values if any(values) else ()


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[Sequence[Any]]:
    return list(zip(*rows, strict=True)) if rows else [()] * width


def moved_holds(
    journal: Journal, booked: Sequence[Booked], ends: Mapping[int, tuple[HoldState, int]]
) -> list[list[Statement]]:
    """What writes new holds, and what became of holds: statements that go together, and then others.

    Args:
        ends: by leaf index of the hold, its state and the leaf index of what ended it.
    """
    key = journal.journal_key
    new = [
        (one.transaction.leaf_index, one.transaction.expire_time) for one in booked if one.transaction.kind is Kind.HOLD
    ]
    steps: list[list[Statement]] = []
    if new:
        steps.append([Statement(_ADD_HOLDS, (key, journal.tenant_id, *_columns(new, 2)))])
    if ends:
        # After the new ones: one may begin and end in the same batch.
        columns = (
            list(ends),
            [state for state, _ in ends.values()],
            [leaf_index for _, leaf_index in ends.values()],
        )
        steps.append([Statement(_END_HOLDS, (key, *columns))])
    return [*steps, [Statement(_MOVE_EXPIRY, (key,))]] if steps else []


def added_reversed(journal: Journal, reversed_entries: Sequence[tuple[int, int, int]]) -> list[Statement]:
    """What writes which entries were reversed: sequence, its leaf index, and the leaf index of the reversal."""
    if not reversed_entries:
        return []
    return [Statement(_ADD_REVERSED, (journal.journal_key, journal.tenant_id, *_columns(reversed_entries, 3)))]
