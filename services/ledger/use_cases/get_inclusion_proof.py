"""Proves that a transaction is in its tenant's tree."""

from __future__ import annotations

from collections.abc import Sequence

from mesh.database import Connection, Database
from mesh.errors import Problem, Reason
from services.ledger.model import merkle
from services.ledger.model.proofs import InclusionProof
from services.ledger.model.records import encode_record
from services.ledger.repository.journals import Journal
from services.ledger.repository.proofs import find_nodes
from services.ledger.repository.transactions import find_transactions
from services.ledger.use_cases.get_checkpoint import require_checkpoint


async def get_inclusion_proof(
    database: Database, *, tenant_id: str, transaction_id: str, tree_size: int
) -> InclusionProof:
    """The way from a transaction to the root of the tree of a size, 0 for the newest.

    Raises:
        Problem: RESOURCE_NOT_FOUND.
    """
    async with database.transaction(tenant_id) as connection:
        transaction = (await find_transactions(connection, tenant_id, [transaction_id])).get(transaction_id)
        if transaction is None:
            detail = f"transaction {transaction_id} does not exist"
            raise Problem(Reason.RESOURCE_NOT_FOUND, detail, transaction_id=transaction_id)
        # Read after the transaction, so the newest checkpoint covers it.
        journal, checkpoint = await require_checkpoint(connection, tenant_id, tree_size)
        if transaction.leaf_index >= checkpoint.tree_size:
            raise Problem(
                Reason.RESOURCE_NOT_FOUND,
                f"transaction {transaction_id} was booked after the tree had {checkpoint.tree_size} leaves",
                transaction_id=transaction_id,
                tree_size=str(checkpoint.tree_size),
                leaf_index=str(transaction.leaf_index),
            )
        ranges = merkle.inclusion_ranges(transaction.leaf_index, checkpoint.tree_size)
        path = await roots_of(connection, journal, ranges)
    return InclusionProof(transaction.leaf_index, encode_record(tenant_id, transaction), path, checkpoint)


async def roots_of(connection: Connection, journal: Journal, ranges: Sequence[merkle.Range]) -> list[bytes]:
    """The roots of ranges of the tenant's tree, out of what is stored.

    Raises:
        LookupError: rows are missing: somebody changed the tables. VerifyBooks tells which.
    """
    nodes = await find_nodes(connection, journal, merkle.stored_spans(ranges))
    return [merkle.range_root(range_, lambda level, index: nodes[level, index]) for range_ in ranges]
