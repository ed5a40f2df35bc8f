"""Creates several accounts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from google.protobuf.message import Message

from mesh import outbox
from mesh.database import Connection, Database
from mesh.errors import Problem, Reason, Violation
from services.ledger.model.accounts import Account, AccountDraft
from services.ledger.model.changes import ChangeRequest
from services.ledger.repository.accounts import find_accounts, find_scale, find_taken_numbers, insert_accounts
from services.ledger.repository.books import ensure_books
from services.ledger.repository.journals import later, lock_journal
from services.ledger.repository.requests import claim_request


async def batch_create_accounts(
    database: Database,
    clock: Callable[[], datetime],
    *,
    tenant_id: str,
    request: ChangeRequest,
    drafts: Sequence[AccountDraft],
    describe: Callable[[Account], Message],
) -> list[Account]:
    """Creates all accounts or none, and returns them in the order asked for; a repeated request gets those made first.

    `describe` gives an account as its event carries it.

    Raises:
        Problem: RESOURCE_ALREADY_EXISTS, FIELD_INVALID, both with the position of the account at fault;
            REQUEST_ID_REUSED.
    """
    parents = [f"accounts[{index}]." for index in range(len(drafts))]
    return await create_accounts(
        database, clock, tenant_id=tenant_id, request=request, drafts=drafts, parents=parents, describe=describe
    )


async def create_accounts(
    database: Database,
    clock: Callable[[], datetime],
    *,
    tenant_id: str,
    request: ChangeRequest,
    drafts: Sequence[AccountDraft],
    parents: Sequence[str],
    describe: Callable[[Account], Message],
) -> list[Account]:
    """As batch_create_accounts; `parents` is what goes before the names of each draft's fields in errors."""
    _check_distinct(drafts, parents)
    async with database.transaction(tenant_id) as connection:
        journal = await lock_journal(connection, tenant_id)
        existing = {
            (account.book_name, account.account_name): account
            for account in await find_accounts(connection, tenant_id, [_name_key(draft) for draft in drafts])
        }
        if not await claim_request(connection, tenant_id, request):
            return [existing[_name_key(draft)] for draft in drafts]
        for draft, parent in zip(drafts, parents, strict=True):
            if _name_key(draft) in existing:
                raise _name_taken(draft, f"{parent}account_name")
        await _check_numbers(connection, tenant_id, drafts, parents)
        await _check_scales(connection, tenant_id, drafts, parents)
        now = later(journal, clock())
        await ensure_books(connection, journal, list(dict.fromkeys(draft.book_name for draft in drafts)), now)
        accounts = await insert_accounts(connection, tenant_id, request.request_id, drafts, now)
        events = [
            outbox.Event("ledger.account.created", tenant_id, account.account_name, describe(account))
            for account in accounts
        ]
        await outbox.add_all(connection, events)
        return accounts


def _name_key(draft: AccountDraft) -> tuple[str, str]:
    return draft.book_name, draft.account_name


def _check_distinct(drafts: Sequence[AccountDraft], parents: Sequence[str]) -> None:
    """Checks that no two drafts of one request ask for the same name or number."""
    names: dict[tuple[str, str], str] = {}
    numbers: dict[tuple[str, str], str] = {}
    for draft, parent in zip(drafts, parents, strict=True):
        first = names.setdefault(_name_key(draft), parent)
        if first != parent:
            raise _invalid(f"{parent}account_name", f"is that of {first[:-1]} too: send each account once")
        if draft.account_number is not None:
            first = numbers.setdefault((draft.book_name, draft.account_number), parent)
            if first != parent:
                raise _invalid(f"{parent}account_number", f"is that of {first[:-1]} too: give each account its own")


async def _check_numbers(
    connection: Connection, tenant_id: str, drafts: Sequence[AccountDraft], parents: Sequence[str]
) -> None:
    numbers = [(draft.book_name, draft.account_number) for draft in drafts if draft.account_number is not None]
    if not numbers:
        return
    taken = await find_taken_numbers(connection, tenant_id, numbers)
    for draft, parent in zip(drafts, parents, strict=True):
        number = draft.account_number
        if number is not None and (draft.book_name, number) in taken:
            raise number_taken(draft.book_name, number, taken[draft.book_name, number], f"{parent}account_number")


async def _check_scales(
    connection: Connection, tenant_id: str, drafts: Sequence[AccountDraft], parents: Sequence[str]
) -> None:
    """Checks that all accounts of a currency count in the same minor units: amounts of both would be added up."""
    scales: dict[str, int] = {}
    for draft, parent in zip(drafts, parents, strict=True):
        if draft.currency not in scales:
            in_use = await find_scale(connection, tenant_id, draft.currency)
            scales[draft.currency] = draft.scale if in_use is None else in_use
        if draft.scale != scales[draft.currency]:
            description = (
                f"is not that of other accounts in {draft.currency}, which is {scales[draft.currency]}: use that"
            )
            raise _invalid(f"{parent}scale", description)


def number_taken(book_name: str, account_number: str, holder_name: str, field: str) -> Problem:
    """The problem of a number that another account has."""
    return Problem(
        Reason.RESOURCE_ALREADY_EXISTS,
        f"{field}: account {holder_name} has the number {account_number}",
        field=field,
        book_name=book_name,
        account_name=holder_name,
        account_number=account_number,
    )


def _name_taken(draft: AccountDraft, field: str) -> Problem:
    return Problem(
        Reason.RESOURCE_ALREADY_EXISTS,
        f"{field}: account {draft.account_name} exists in book {draft.book_name}",
        field=field,
        book_name=draft.book_name,
        account_name=draft.account_name,
    )


def _invalid(field: str, description: str) -> Problem:
    return Problem(Reason.FIELD_INVALID, violations=[Violation(field, description)])
