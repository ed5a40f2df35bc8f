"""Creates an account."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from google.protobuf.message import Message

from mesh.database import Database
from services.ledger.model.accounts import Account, AccountDraft
from services.ledger.model.changes import ChangeRequest
from services.ledger.use_cases.batch_create_accounts import create_accounts


async def create_account(
    database: Database,
    clock: Callable[[], datetime],
    *,
    tenant_id: str,
    request: ChangeRequest,
    draft: AccountDraft,
    describe: Callable[[Account], Message],
) -> Account:
    """Creates an account, and its book before the first one; a repeated request gets the account made first.

    `describe` gives the account as its event carries it.

    Raises:
        Problem: RESOURCE_ALREADY_EXISTS, the name or the number is taken; FIELD_INVALID, the scale is not that of the
            tenant's other accounts in the currency; REQUEST_ID_REUSED.
    """
    accounts = await create_accounts(
        database, clock, tenant_id=tenant_id, request=request, drafts=[draft], parents=[""], describe=describe
    )
    return accounts[0]
