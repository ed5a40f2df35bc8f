"""Freezes, opens and closes accounts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from google.protobuf.message import Message

from mesh import outbox
from mesh.database import Database
from mesh.errors import Problem, Reason
from services.ledger.model.accounts import Account, AccountState
from services.ledger.model.changes import ChangeRequest
from services.ledger.repository.accounts import find_account, save_account
from services.ledger.repository.journals import later, lock_journal
from services.ledger.repository.requests import claim_request
from services.ledger.use_cases.get_account import account_not_found


async def change_account_state(
    database: Database,
    clock: Callable[[], datetime],
    *,
    tenant_id: str,
    request: ChangeRequest,
    book_name: str,
    account_name: str,
    state: AccountState,
    describe: Callable[[Account], Message],
) -> Account:
    """Brings an account to a state and returns it; a repeated request changes nothing, and neither does what is so.

    `describe` gives the account as its event carries it.

    Raises:
        Problem: RESOURCE_NOT_FOUND; ACCOUNT_NOT_OPEN, a closed account was to be frozen; ACCOUNT_NOT_EMPTY, one with a
            balance or with something held on it was to be closed; REQUEST_ID_REUSED.
    """
    async with database.transaction(tenant_id) as connection:
        journal = await lock_journal(connection, tenant_id)
        account = await find_account(connection, tenant_id, book_name, account_name)
        if account is None:
            raise account_not_found(book_name, account_name)
        if not await claim_request(connection, tenant_id, request) or account.state is state:
            return account
        _check_transition(account, state)
        changed = replace(account, state=state, update_time=later(journal, clock()))
        await save_account(connection, changed)
        event = outbox.Event(f"ledger.account.{state.value}", tenant_id, account_name, describe(changed))
        await outbox.add(connection, event)
        return changed


def _check_transition(account: Account, state: AccountState) -> None:
    if state is AccountState.FROZEN and account.state is AccountState.CLOSED:
        raise Problem(
            Reason.ACCOUNT_NOT_OPEN,
            f"account {account.account_name} is closed: nothing can be posted to it as it is",
            account_name=account.account_name,
            state=account.state.value.upper(),
        )
    held_minor = account.pending_debits_minor + account.pending_credits_minor
    if state is AccountState.CLOSED and (account.balance_minor or held_minor):
        raise Problem(
            Reason.ACCOUNT_NOT_EMPTY,
            f"account {account.account_name} has a balance of {account.balance_minor} minor units; held are"
            f" {account.pending_debits_minor} on its debit side and {account.pending_credits_minor} on its credit side",
            account_name=account.account_name,
            balance_minor=str(account.balance_minor),
            pending_debits_minor=str(account.pending_debits_minor),
            pending_credits_minor=str(account.pending_credits_minor),
        )
