"""WatchPayment: the payment now, then each later version that can be seen, until it can change no more by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from mesh.database import UNAVAILABLE_ERRORS, Database
from services.payments.model import Payment
from services.payments.repository.changes import PaymentChanges
from services.payments.repository.payments import get_payment

# Reads again after this long even when nothing was told, in case that the telling failed.
_READ_AGAIN_SECONDS = 5.0
_DATABASE_AWAY_SECONDS = 0.5


async def watch_payment(
    database: Database, changes: PaymentChanges, tenant_id: str, payment_id: str
) -> AsyncIterator[Payment]:
    """Gives rising versions of a payment, each once. Ends after the one with a terminal state.

    Raises:
        Problem: RESOURCE_NOT_FOUND.
    """
    seen = 0
    with changes.of(payment_id) as changed:
        while True:
            # Cleared before reading: what changes while we read wakes us again.
            changed.clear()
            payment = await _read(database, tenant_id, payment_id, patient=seen > 0)
            if payment.version > seen:
                seen = payment.version
                yield payment
            if payment.ended:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), _READ_AGAIN_SECONDS)


async def _read(database: Database, tenant_id: str, payment_id: str, *, patient: bool) -> Payment:
    """Reads the payment; a stream that has begun waits until the database is back."""
    while True:
        try:
            async with database.transaction(tenant_id) as connection:
                return await get_payment(connection, payment_id)
        except UNAVAILABLE_ERRORS:
            if not patient:
                raise
            await asyncio.sleep(_DATABASE_AWAY_SECONDS)
