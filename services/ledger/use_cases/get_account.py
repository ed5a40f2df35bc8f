"""Reads one account."""

from __future__ import annotations

from mesh.database import Database
from mesh.errors import Problem, Reason
from services.ledger import repository
from services.ledger.model import Account


async def get_account(database: Database, *, tenant_id: str, account_name: str) -> Account:
    """The account as it is now.

    Raises:
        Problem: RESOURCE_NOT_FOUND.
    """
    async with database.transaction(tenant_id) as connection:
        account = await repository.find_account(connection, tenant_id, account_name)
    if account is None:
        raise Problem(Reason.RESOURCE_NOT_FOUND, f"account {account_name} does not exist", account_name=account_name)
    return account
