"""Reads one transaction."""

from __future__ import annotations

from mesh.database import Database
from mesh.errors import Problem, Reason
from services.ledger import repository
from services.ledger.model import Transaction


async def get_transaction(database: Database, *, tenant_id: str, transaction_id: str) -> Transaction:
    """The transaction with its entries.

    Raises:
        Problem: RESOURCE_NOT_FOUND.
    """
    async with database.transaction(tenant_id) as connection:
        transaction = await repository.find_transaction(connection, tenant_id, transaction_id)
    if transaction is None:
        raise Problem(
            Reason.RESOURCE_NOT_FOUND, f"transaction {transaction_id} does not exist", transaction_id=transaction_id
        )
    return transaction
