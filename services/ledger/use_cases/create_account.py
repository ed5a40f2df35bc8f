"""Creates an account."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import Message

from mesh import outbox
from mesh.database import Database
from mesh.errors import Problem, Reason
from services.ledger import repository
from services.ledger.model import Account, AccountDraft


async def create_account(
    database: Database,
    *,
    tenant_id: str,
    request_id: str,
    draft: AccountDraft,
    describe: Callable[[Account], Message],
) -> Account:
    """Creates an account and returns it; a repeated request gets the account made first.

    `describe` gives the account as its event carries it.

    Raises:
        Problem: RESOURCE_ALREADY_EXISTS, the name is taken; REQUEST_ID_REUSED.
    """
    async with database.transaction(tenant_id) as connection:
        account = await repository.insert_account(connection, tenant_id, request_id, draft)
        if account is not None:
            event = outbox.Event("ledger.account.created", tenant_id, account.account_name, describe(account))
            await outbox.add(connection, event)
            return account
        earlier = await repository.find_account_of_request(connection, tenant_id, request_id)
    if earlier is None:
        raise Problem(
            Reason.RESOURCE_ALREADY_EXISTS,
            f"account {draft.account_name} exists",
            account_name=draft.account_name,
        )
    if not earlier.was_made_from(draft):
        detail = f"request_id {request_id} created account {earlier.account_name}"
        raise Problem(Reason.REQUEST_ID_REUSED, detail, request_id=request_id, account_name=earlier.account_name)
    return earlier
