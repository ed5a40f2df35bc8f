"""Reads the balance of one account."""

from __future__ import annotations

from mesh.database import Database
from services.ledger.model.reading import Balance, Moment
from services.ledger.repository.balances import (
    NO_SUMS,
    cut_at,
    find_current_balance,
    find_held_sums,
    find_sums,
)
from services.ledger.repository.journals import find_journal
from services.ledger.use_cases.check_kept import check_kept
from services.ledger.use_cases.get_account import account_not_found


async def get_balance(
    database: Database, *, tenant_id: str, book_name: str, account_name: str, moment: Moment
) -> Balance:
    """The sums of an account and the balance they make, all of one moment.

    Raises:
        Problem: RESOURCE_NOT_FOUND; FIELD_INVALID, the moment is archived.
    """
    async with database.transaction(tenant_id) as connection:
        # Before the account: all that the journal shows is then in the account's sums too.
        journal = await find_journal(connection, tenant_id)
        found = await find_current_balance(connection, tenant_id, book_name, account_name)
        if journal is None or found is None:
            raise account_not_found(book_name, account_name)
        account, sequence = found
        if moment.is_now:
            return Balance(
                account,
                account.debits_minor,
                account.credits_minor,
                account.pending_debits_minor,
                account.pending_credits_minor,
                account.available_minor,
                sequence,
            )
        cut = await cut_at(connection, journal, moment)
        await check_kept(connection, journal, cut, moment.field)
        sums = (await find_sums(connection, journal, [account.account_key], cut)).get(account.account_key, NO_SUMS)
        held = await find_held_sums(connection, account.account_key, cut)
    return Balance(
        account,
        sums.debits_minor,
        sums.credits_minor,
        held.debits_minor,
        held.credits_minor,
        None,
        cut.known.last_sequence,
    )
