"""Reads one transaction."""

from __future__ import annotations

from mesh.database import Database
from mesh.errors import Problem, Reason
from services.ledger.model.postings import Transaction
from services.ledger.repository.transactions import find_transactions


async def get_transaction(database: Database, *, tenant_id: str, transaction_id: str) -> Transaction:
    """The transaction with its entries, and with what became of it since.

    Raises:
        Problem: RESOURCE_NOT_FOUND.
    """
    async with database.transaction(tenant_id) as connection:
        found = await find_transactions(connection, tenant_id, [transaction_id])
    if transaction_id not in found:
        raise Problem(
            Reason.RESOURCE_NOT_FOUND, f"transaction {transaction_id} does not exist", transaction_id=transaction_id
        )
    return found[transaction_id]
