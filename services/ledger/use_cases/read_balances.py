"""What all reports are made of: the balances of a book's accounts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime

from mesh.database import Connection, Database
from services.ledger.model.accounts import Account, AccountType
from services.ledger.model.reading import Moment, Period
from services.ledger.model.reports import AccountBalance
from services.ledger.repository.accounts import list_accounts
from services.ledger.repository.balances import Cut, cut_at, cut_of, find_balances, find_used
from services.ledger.repository.books import find_book
from services.ledger.repository.journals import Journal, find_journal
from services.ledger.repository.positions import position_at
from services.ledger.repository.statements import cut_before_all
from services.ledger.use_cases.check_kept import check_kept
from services.ledger.use_cases.get_book import book_not_found

_ALL = 2**31 - 1
_EARNING_TYPES = (AccountType.INCOME, AccountType.EXPENSE)


async def read_balances(database: Database, *, tenant_id: str, book_name: str, moment: Moment) -> list[AccountBalance]:
    """The balance of each account with entries, by name, all of one moment.

    Raises:
        Problem: RESOURCE_NOT_FOUND; FIELD_INVALID, the time is archived.
    """
    async with database.transaction(tenant_id) as connection:
        journal = await _find_journal(connection, tenant_id, book_name)
        accounts = await list_accounts(connection, tenant_id, book_name=book_name, limit=_ALL)
        if moment.is_now:
            return [
                AccountBalance(account, account.balance_minor)
                for account in accounts
                if account.debits_minor or account.credits_minor
            ]
        cut = await cut_at(connection, journal, moment)
        await check_kept(connection, journal, cut, moment.field)
        return await _used_balances(connection, accounts, cut, None)


async def read_changes(
    database: Database, *, tenant_id: str, book_name: str, period: Period, booking_time: datetime | None
) -> list[AccountBalance]:
    """What a period added to the balance of each income and expense account with entries in it, by name.

    Args:
        booking_time: only what was booked by then; None means all there is.

    Raises:
        Problem: RESOURCE_NOT_FOUND; FIELD_INVALID, the time is archived.
    """
    async with database.transaction(tenant_id) as connection:
        journal = await _find_journal(connection, tenant_id, book_name)
        accounts = [
            account
            for type_ in _EARNING_TYPES
            for account in await list_accounts(connection, tenant_id, book_name=book_name, type_=type_, limit=_ALL)
        ]
        known = await position_at(connection, journal, booking_time)
        end = await cut_of(connection, journal, known, period.last_time)
        if period.last_time_before is None:
            await check_kept(connection, journal, cut_before_all(known), "start_time")
            return await _used_balances(connection, accounts, end, None)
        start = await cut_of(connection, journal, known, period.last_time_before)
        await check_kept(connection, journal, start, "start_time")
        grown = await _used_balances(connection, accounts, end, start)
        before = await find_balances(connection, [balance.account for balance in grown], start)
    return [
        replace(balance, balance_minor=balance.balance_minor - before[balance.account.account_key]) for balance in grown
    ]


async def _find_journal(connection: Connection, tenant_id: str, book_name: str) -> Journal:
    journal = await find_journal(connection, tenant_id)
    if journal is None or await find_book(connection, tenant_id, book_name) is None:
        raise book_not_found(book_name)
    return journal


async def _used_balances(
    connection: Connection, accounts: Collection[Account], cut: Cut, since: Cut | None
) -> list[AccountBalance]:
    """The balances at a cut of the accounts with an entry that counts then, and did not yet count at `since`."""
    used = await find_used(connection, [account.account_key for account in accounts], cut, since)
    balances = await find_balances(connection, accounts, cut)
    found = [AccountBalance(account, balances[account.account_key]) for account in accounts]
    # What is left of archived entries is a balance.
    return [
        balance for balance in found if balance.account.account_key in used or (since is None and balance.balance_minor)
    ]
