"""Proves that a later state of a tenant's tree holds all of an earlier one unchanged."""

from __future__ import annotations

from mesh.database import Database
from mesh.errors import Problem, Reason, Violation
from services.ledger.model import merkle
from services.ledger.model.proofs import ConsistencyProof
from services.ledger.use_cases.get_checkpoint import require_checkpoint
from services.ledger.use_cases.get_inclusion_proof import roots_of


async def get_consistency_proof(
    database: Database, *, tenant_id: str, first_tree_size: int, second_tree_size: int
) -> ConsistencyProof:
    """The way from the root of a size to that of a larger one, 0 for the newest.

    Raises:
        Problem: RESOURCE_NOT_FOUND, there is no checkpoint of a size; FIELD_INVALID, the sizes.
    """
    if first_tree_size == 0:
        description = "must be more than 0: there is no checkpoint of an empty tree, and every tree continues it"
        raise Problem(Reason.FIELD_INVALID, violations=[Violation("first_tree_size", description)])
    if 0 < second_tree_size < first_tree_size:
        description = f"must not be less than first_tree_size, {first_tree_size}"
        raise Problem(Reason.FIELD_INVALID, violations=[Violation("second_tree_size", description)])
    async with database.transaction(tenant_id) as connection:
        _, first = await require_checkpoint(connection, tenant_id, first_tree_size)
        journal, second = await require_checkpoint(connection, tenant_id, second_tree_size)
        ranges = merkle.consistency_ranges(first.tree_size, second.tree_size)
        return ConsistencyProof(await roots_of(connection, journal, ranges), first, second)
