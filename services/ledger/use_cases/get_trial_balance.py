"""The balances of all accounts of a book, debits beside credits."""

from __future__ import annotations

from mesh.database import Database
from services.ledger.model.reading import Moment
from services.ledger.model.reports import Presentation, TrialBalance, trial_balance
from services.ledger.use_cases.read_balances import read_balances


async def get_trial_balance(
    database: Database, *, tenant_id: str, book_name: str, moment: Moment, presentation: Presentation | None
) -> TrialBalance:
    """The report as of a moment, and in a currency of presentation as well when one is given.

    Raises:
        Problem: RESOURCE_NOT_FOUND; FIELD_INVALID, a rate is missing or makes an amount too large; BALANCE_OVERFLOW.
    """
    balances = await read_balances(database, tenant_id=tenant_id, book_name=book_name, moment=moment)
    return trial_balance(balances, presentation)
