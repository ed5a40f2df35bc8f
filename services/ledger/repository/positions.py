"""SQL that finds how far a journal had come by a time.

Times of booking never fall within a journal, so everything that was booked by a time is everything up to a position.
The checkpoint of each batch says both. So a time becomes a range of a primary key, and needs no index of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mesh.database import Connection
from services.ledger.repository.journals import Journal


@dataclass(frozen=True, slots=True)
class Position:
    """Everything that was booked up to some batch.

    Attributes:
        last_sequence: of its newest entry; 0 when there is none.
        tree_size: number of its transactions.
        time: nothing of it was booked later, and nothing after it earlier.
    """

    last_sequence: int
    tree_size: int
    time: datetime


def position_of(journal: Journal) -> Position:
    """Everything that is booked."""
    return Position(journal.last_sequence, journal.tree_size, journal.last_create_time)


async def position_at(connection: Connection, journal: Journal, time: datetime | None) -> Position:
    """What had been booked by a time, that time included; None means all that the journal shows."""
    if time is None or time >= journal.last_create_time:
        return position_of(journal)
    row = await connection.fetchrow(
        """
        SELECT last_sequence, tree_size FROM checkpoints
        WHERE journal_key = $1 AND create_time <= $2
        ORDER BY create_time DESC, tree_size DESC LIMIT 1
        """,
        journal.journal_key,
        time,
    )
    return Position(row["last_sequence"], row["tree_size"], time) if row else Position(0, 0, time)


async def find_position(connection: Connection, journal: Journal, tree_size: int) -> Position | None:
    """The position after so many transactions; None when no batch ended there."""
    row = await connection.fetchrow(
        "SELECT last_sequence, tree_size, create_time FROM checkpoints WHERE journal_key = $1 AND tree_size = $2",
        journal.journal_key,
        tree_size,
    )
    return Position(*row) if row else None


async def find_archived(connection: Connection, journal: Journal) -> int:
    """The last sequence before the entries that are kept here; 0 while none was archived."""
    first: int | None = await connection.fetchval(
        "SELECT sequence FROM entries WHERE journal_key = $1 ORDER BY sequence LIMIT 1", journal.journal_key
    )
    return journal.last_sequence if first is None else first - 1
