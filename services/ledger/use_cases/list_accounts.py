"""Lists accounts."""

from __future__ import annotations

from mesh import pages
from mesh.database import Database
from mesh.errors import Problem, Reason
from services.ledger.model.accounts import Account, AccountType
from services.ledger.repository import accounts as repository


async def list_accounts(
    database: Database,
    *,
    tenant_id: str,
    book_name: str,
    account_name_prefix: str,
    type_: AccountType | None,
    account_number: str,
    page_size: int,
    page_token: str,
) -> tuple[list[Account], str]:
    """A page of a book's accounts by name, and the token of the next page ("" on the last).

    An empty filter lets all through; a book that does not exist has no accounts.

    Raises:
        Problem: PAGE_TOKEN_INVALID.
    """
    limit = pages.page_size(page_size)
    arguments = {
        "list": "accounts",
        "tenant_id": tenant_id,
        "book_name": book_name,
        "account_name_prefix": account_name_prefix,
        "type": "" if type_ is None else type_.value,
        "account_number": account_number,
    }
    position = pages.decode_page_token(page_token, arguments)
    after_name = "" if position is None else position.get("account_name")
    # A token is not signed: what it holds is input like any other.
    if not isinstance(after_name, str):
        raise Problem(Reason.PAGE_TOKEN_INVALID, "page_token was not made by this list")
    async with database.transaction(tenant_id) as connection:
        accounts = await repository.list_accounts(
            connection,
            tenant_id,
            book_name=book_name,
            name_prefix=account_name_prefix,
            type_=type_,
            account_number=account_number,
            after_name=after_name,
            limit=limit + 1,
        )
    if len(accounts) <= limit:
        return accounts, ""
    accounts = accounts[:limit]
    return accounts, pages.encode_page_token({"account_name": accounts[-1].account_name}, arguments)
