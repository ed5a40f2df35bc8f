"""SQL of statements: the entries of one account in the order in which they took effect."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from mesh.database import Connection
from services.ledger.model.reading import BEGINNING_OF_TIME, BookedEntry
from services.ledger.repository.balances import NO_SUMS, Cut, Sums, sums_of
from services.ledger.repository.entries import BOOKED_ENTRY_COLUMNS, booked_entry_of
from services.ledger.repository.journals import Journal
from services.ledger.repository.planning import prefer_order
from services.ledger.repository.positions import Position, position_at

# The entries between two cuts are of two kinds: those whose time of effect is that of booking lie between two
# sequences, in order; those whose time of effect is their own lie between two times.
_BOOKED = """
    account_key = $1 AND sequence > $2 AND sequence <= $3 AND create_time >= $4 AND create_time <= $5
    AND effective_time IS NULL AND NOT pending
"""
_OWN_EFFECT = """
    account_key = $1 AND sequence <= $6 AND create_time <= $7 AND effective_time IS NOT NULL
    AND (effective_time, sequence) > ($8, $9) AND effective_time <= $10 AND NOT pending
"""
_COLUMNS = """
    journal_key, leaf_index, account_key, sequence, side, pending, amount_minor, balance_after_minor, effective_time,
    create_time
"""
_LIST = f"""
    WITH page AS MATERIALIZED (
        (SELECT {_COLUMNS}, create_time AS effect FROM entries WHERE {_BOOKED} ORDER BY sequence LIMIT $11)
        UNION ALL
        (SELECT {_COLUMNS}, effective_time AS effect FROM entries WHERE {_OWN_EFFECT}
         ORDER BY effective_time, sequence LIMIT $11)
        ORDER BY effect, sequence LIMIT $11
    )
    SELECT {BOOKED_ENTRY_COLUMNS}
    FROM page AS entries
    JOIN accounts ON accounts.account_key = entries.account_key
    JOIN transactions ON transactions.journal_key = entries.journal_key
                     AND transactions.leaf_index = entries.leaf_index
    ORDER BY entries.effect, entries.sequence
"""  # noqa: S608 - only constants of this file and of entries
_SUM = f"""
    SELECT coalesce(sum(amount_minor) FILTER (WHERE side = 'debit'), 0) AS debits_minor,
           coalesce(sum(amount_minor) FILTER (WHERE side = 'credit'), 0) AS credits_minor
    FROM (
        SELECT amount_minor, side FROM entries WHERE {_BOOKED}
        UNION ALL
        SELECT amount_minor, side FROM entries WHERE {_OWN_EFFECT}
    ) AS lines
"""  # noqa: S608 - only constants of this file
_MOMENT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Place:
    """An entry of a statement: its time of effect and its sequence."""

    effect: datetime
    sequence: int


def cut_before_all(known: Position) -> Cut:
    """None of the known entries."""
    return Cut(known, 0, BEGINNING_OF_TIME, BEGINNING_OF_TIME, 0)


async def cut_after(connection: Connection, journal: Journal, known: Position, place: Place) -> Cut:
    """Those of the known entries that stand in a statement up to a place, that place included."""
    by_then = await position_at(connection, journal, place.effect)
    before_sequence = 0
    if place.effect > BEGINNING_OF_TIME:
        before_sequence = (await position_at(connection, journal, place.effect - _MOMENT)).last_sequence
    # Of those that were booked at that very time, the sequence says which count.
    base_sequence = min(max(place.sequence, before_sequence), by_then.last_sequence)
    if known.last_sequence <= base_sequence:
        return Cut(known, known.last_sequence, known.time, place.effect, place.sequence)
    return Cut(known, base_sequence, place.effect, place.effect, place.sequence)


async def list_statement(
    connection: Connection, account_key: int, *, after: Cut, until: Cut, limit: int
) -> list[BookedEntry]:
    """The posted entries that count at one cut and not yet at the other, in the order of effect."""
    await prefer_order(connection)
    rows = await connection.fetch(_LIST, *_between(account_key, after, until), limit)
    return [booked_entry_of(row) for row in rows]


async def sum_statement(connection: Connection, account_key: int, *, after: Cut, until: Cut) -> Sums:
    """The sums of the posted entries that count at one cut and not yet at the other."""
    row = await connection.fetchrow(_SUM, *_between(account_key, after, until))
    return sums_of(row) if row else NO_SUMS


def _between(account_key: int, after: Cut, until: Cut) -> tuple[int | datetime, ...]:
    return (
        account_key,
        after.base_sequence,
        until.base_sequence,
        after.base_time,
        until.base_time,
        until.known.last_sequence,
        until.known.time,
        after.effective_time,
        after.tie_sequence,
        until.effective_time,
    )
