"""Reads one account."""

from __future__ import annotations

from mesh.database import Database
from mesh.errors import Problem, Reason
from services.ledger.model.accounts import Account
from services.ledger.repository.accounts import find_account


async def get_account(database: Database, *, tenant_id: str, book_name: str, account_name: str) -> Account:
    """The account as it is now.

    Raises:
        Problem: RESOURCE_NOT_FOUND.
    """
    async with database.transaction(tenant_id) as connection:
        account = await find_account(connection, tenant_id, book_name, account_name)
    if account is None:
        raise account_not_found(book_name, account_name)
    return account


def account_not_found(book_name: str, account_name: str) -> Problem:
    """The problem of an account that does not exist."""
    detail = f"account {account_name} does not exist in book {book_name}"
    return Problem(Reason.RESOURCE_NOT_FOUND, detail, book_name=book_name, account_name=account_name)
