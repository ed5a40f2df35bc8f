"""Reads the balance of one account."""

from __future__ import annotations

from mesh.database import Database
from services.ledger.model import Account
from services.ledger.use_cases.get_account import get_account


async def get_balance(database: Database, *, tenant_id: str, account_name: str) -> Account:
    """The account with its sums and its balance, all of one moment.

    Raises:
        Problem: RESOURCE_NOT_FOUND.
    """
    return await get_account(database, tenant_id=tenant_id, account_name=account_name)
