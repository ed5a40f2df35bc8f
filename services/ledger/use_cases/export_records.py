"""Streams the records of a tenant's tree, so that anyone can check the whole book."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass

from mesh.database import Database
from services.ledger.model.copied_rows import CopiedTransaction, copied_entries, copied_transactions, record_of
from services.ledger.model.proofs import Checkpoint
from services.ledger.repository.copies import copy_entries, copy_transactions, find_first_sequence
from services.ledger.use_cases.get_checkpoint import require_checkpoint

_CHUNK_LEAVES = 512
# Well below the largest message that clients take.
_PART_BYTES = 1_000_000
_AFTER_ALL = 2**63 - 1


@dataclass(frozen=True, slots=True)
class ExportedRecords:
    """Some records of a tree, in order.

    Attributes:
        checkpoint: of the whole export; only in its first part.
    """

    first_leaf_index: int
    records: list[bytes]
    checkpoint: Checkpoint | None = None


async def export_records(
    database: Database, *, tenant_id: str, start_leaf_index: int, tree_size: int
) -> AsyncGenerator[ExportedRecords, None]:
    """The records from a leaf up to a tree's size, 0 for the newest.

    What was booked never changes, so each part is read in a transaction of its own: a slow reader holds nothing up.

    Raises:
        Problem: RESOURCE_NOT_FOUND, there is no checkpoint of that size.
    """
    async with database.transaction(tenant_id) as connection:
        journal, checkpoint = await require_checkpoint(connection, tenant_id, tree_size)
    yield ExportedRecords(start_leaf_index, [], checkpoint)
    for start in range(start_leaf_index, checkpoint.tree_size, _CHUNK_LEAVES):
        end = min(start + _CHUNK_LEAVES, checkpoint.tree_size)
        async with database.transaction(tenant_id) as connection:
            first_sequence = await find_first_sequence(connection, journal.journal_key, start)
            end_sequence = await find_first_sequence(connection, journal.journal_key, end)
            transactions = await copy_transactions(connection, journal.journal_key, start, end)
            entries = await copy_entries(
                connection, journal.journal_key, first_sequence or 0, end_sequence or _AFTER_ALL
            )
        first_leaf_index = start
        for records in _parts(_records(tenant_id, transactions, entries)):
            yield ExportedRecords(first_leaf_index, records)
            first_leaf_index += len(records)


def _records(tenant_id: str, transactions: bytes, entries: bytes) -> Iterator[bytes]:
    rows = copied_entries(entries)
    entry = next(rows, None)
    transaction: CopiedTransaction
    for transaction in copied_transactions(tenant_id, transactions):
        own = []
        while entry is not None and entry.leaf_index == transaction.leaf_index:
            own.append(entry)
            entry = next(rows, None)
        yield record_of(transaction, own)


def _parts(records: Iterator[bytes]) -> Iterator[list[bytes]]:
    part: list[bytes] = []
    size = 0
    for record in records:
        if part and size + len(record) > _PART_BYTES:
            yield part
            part, size = [], 0
        part.append(record)
        size += len(record)
    if part:
        yield part
