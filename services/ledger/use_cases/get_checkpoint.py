"""Reads signed states of a tenant's tree."""

from __future__ import annotations

from mesh.database import Connection, Database
from mesh.errors import Problem, Reason
from services.ledger.model.proofs import Checkpoint
from services.ledger.repository.journals import Journal, find_journal
from services.ledger.repository.proofs import find_checkpoint


async def get_checkpoint(database: Database, *, tenant_id: str, tree_size: int) -> Checkpoint:
    """The checkpoint of a size, 0 for the newest.

    Raises:
        Problem: RESOURCE_NOT_FOUND.
    """
    async with database.transaction(tenant_id) as connection:
        _, checkpoint = await require_checkpoint(connection, tenant_id, tree_size)
    return checkpoint


async def require_checkpoint(connection: Connection, tenant_id: str, tree_size: int) -> tuple[Journal, Checkpoint]:
    """The tenant's journal, and its checkpoint of a size, 0 for the newest.

    Raises:
        Problem: RESOURCE_NOT_FOUND.
    """
    journal = await find_journal(connection, tenant_id)
    checkpoint = await find_checkpoint(connection, journal, tree_size) if journal else None
    if journal is None or checkpoint is None:
        detail = f"there is no checkpoint of size {tree_size}" if tree_size else "nothing was booked yet"
        raise Problem(Reason.RESOURCE_NOT_FOUND, detail, tree_size=str(tree_size))
    return journal, checkpoint
