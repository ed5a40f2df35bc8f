"""SQL of proofs: checkpoints, the keys they are signed with, and the stored nodes of a tenant's tree.

What is read here never changes once it is written, so no lock is needed and several statements agree with each other.
"""

# ruff: noqa: S608 - only constants of this file are put into a statement, never a value

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from mesh.database import Connection
from services.ledger.model.merkle import Span
from services.ledger.model.proofs import Checkpoint, CheckpointKey
from services.ledger.repository.journals import Journal

_NEWEST = 0
# A time that Python knows. Another was put there by other hands, and becomes one at which nothing was booked.
CHECKPOINT_TIME = "CASE WHEN create_time BETWEEN '1970-01-01' AND '9999-12-31' THEN create_time ELSE '1970-01-01' END"


async def find_checkpoint(connection: Connection, journal: Journal, tree_size: int) -> Checkpoint | None:
    """The checkpoint of a size, 0 for the newest; None when there is none."""
    if tree_size == _NEWEST:
        row = await connection.fetchrow(
            f"SELECT tree_size, root_hash, note, {CHECKPOINT_TIME} FROM checkpoints"
            " WHERE journal_key = $1 ORDER BY tree_size DESC LIMIT 1",
            journal.journal_key,
        )
    else:
        row = await connection.fetchrow(
            f"SELECT tree_size, root_hash, note, {CHECKPOINT_TIME} FROM checkpoints"
            " WHERE journal_key = $1 AND tree_size = $2",
            journal.journal_key,
            tree_size,
        )
    return Checkpoint(*row) if row else None


async def find_nodes(connection: Connection, journal: Journal, spans: Sequence[Span]) -> dict[tuple[int, int], bytes]:
    """The stored nodes of the spans, by level and index; leaves are of level 0."""
    leaves = [span for span in spans if span.level == 0]
    inner = [span for span in spans if span.level > 0]
    rows = await connection.fetch(
        "SELECT 0::smallint, transactions.leaf_index, transactions.leaf_hash"
        " FROM unnest($2::bigint[], $3::bigint[]) AS span (start_index, end_index)"
        " JOIN transactions ON transactions.journal_key = $1"
        " AND transactions.leaf_index >= span.start_index AND transactions.leaf_index < span.end_index",
        journal.journal_key,
        [span.first_index for span in leaves],
        [span.first_index + span.node_count for span in leaves],
    )
    if inner:
        rows += await connection.fetch(
            "SELECT tree_nodes.level, tree_nodes.node_index, tree_nodes.hash"
            " FROM unnest($2::smallint[], $3::bigint[], $4::bigint[]) AS span (level, start_index, end_index)"
            " JOIN tree_nodes ON tree_nodes.journal_key = $1 AND tree_nodes.level = span.level"
            " AND tree_nodes.node_index >= span.start_index AND tree_nodes.node_index < span.end_index",
            journal.journal_key,
            [span.level for span in inner],
            [span.first_index for span in inner],
            [span.first_index + span.node_count for span in inner],
        )
    return {(level, node_index): hash_ for level, node_index, hash_ in rows}


async def register_checkpoint_key(connection: Connection, verifier_key: str) -> None:
    """Publishes a key, unless it is published."""
    await connection.execute(
        "INSERT INTO checkpoint_keys (verifier_key) VALUES ($1) ON CONFLICT (verifier_key) DO NOTHING", verifier_key
    )


async def list_checkpoint_keys(
    connection: Connection, *, before: tuple[datetime, str] | None = None, limit: int | None = None
) -> list[CheckpointKey]:
    """Keys, the newest first.

    Args:
        before: time and key that the first of them comes after; None begins with the newest.
        limit: None means all.
    """
    time, verifier_key = before or (None, None)
    rows = await connection.fetch(
        "SELECT verifier_key, create_time FROM checkpoint_keys"
        " WHERE $1::timestamptz IS NULL OR (create_time, verifier_key) < ($1, $2)"
        " ORDER BY create_time DESC, verifier_key DESC LIMIT $3",
        time,
        verifier_key,
        limit,
    )
    return [CheckpointKey(*row) for row in rows]
