"""Income and expenses of a book in a period."""

from __future__ import annotations

from datetime import datetime

from mesh.database import Database
from services.ledger.model.reading import Period
from services.ledger.model.reports import Presentation, ProfitAndLoss, profit_and_loss
from services.ledger.use_cases.read_balances import read_changes


async def get_profit_and_loss(
    database: Database,
    *,
    tenant_id: str,
    book_name: str,
    period: Period,
    booking_time: datetime | None,
    presentation: Presentation | None,
) -> ProfitAndLoss:
    """The report on a period of effect, and in a currency of presentation as well when one is given.

    Args:
        booking_time: only what was booked by then; None means all there is.

    Raises:
        Problem: RESOURCE_NOT_FOUND; FIELD_INVALID, a rate is missing or makes an amount too large; BALANCE_OVERFLOW.
    """
    changes = await read_changes(
        database, tenant_id=tenant_id, book_name=book_name, period=period, booking_time=booking_time
    )
    return profit_and_loss(changes, presentation)
