"""Changes an account, other than by postings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from google.protobuf.message import Message

from mesh import outbox
from mesh.database import Database
from services.ledger.model.accounts import Account
from services.ledger.model.changes import AccountChanges, ChangeRequest
from services.ledger.repository.accounts import find_account, find_taken_numbers, save_account
from services.ledger.repository.journals import later, lock_journal
from services.ledger.repository.requests import claim_request
from services.ledger.use_cases.batch_create_accounts import number_taken
from services.ledger.use_cases.get_account import account_not_found


async def update_account(
    database: Database,
    clock: Callable[[], datetime],
    *,
    tenant_id: str,
    request: ChangeRequest,
    book_name: str,
    account_name: str,
    changes: AccountChanges,
    describe: Callable[[Account], Message],
) -> Account:
    """Changes an account and returns it; a repeated request changes nothing, and neither does what is so already.

    `describe` gives the account as its event carries it.

    Raises:
        Problem: RESOURCE_NOT_FOUND; RESOURCE_ALREADY_EXISTS, the number is taken; REQUEST_ID_REUSED.
    """
    async with database.transaction(tenant_id) as connection:
        journal = await lock_journal(connection, tenant_id)
        account = await find_account(connection, tenant_id, book_name, account_name)
        if account is None:
            raise account_not_found(book_name, account_name)
        changed = changes.applied_to(account)
        if not await claim_request(connection, tenant_id, request) or changed == account:
            return account
        number = changed.account_number
        if number is not None and number != account.account_number:
            taken = await find_taken_numbers(connection, tenant_id, [(book_name, number)])
            if taken:
                raise number_taken(book_name, number, taken[book_name, number], "account_number")
        changed = replace(changed, update_time=later(journal, clock()))
        await save_account(connection, changed)
        await outbox.add(connection, outbox.Event("ledger.account.updated", tenant_id, account_name, describe(changed)))
        return changed
