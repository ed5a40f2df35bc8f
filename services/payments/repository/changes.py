"""Tells who waits for a payment that it has changed: one listening connection a process, fanned out.

PostgreSQL's NOTIFY arrives once the change is committed. What is missed while the connection is away is made good by
waking everyone when it is back; who waits must then read for himself.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import asyncpg
import structlog

from mesh.database import DATABASE_ERRORS

log = structlog.get_logger()

# The trigger tell_changed in migrations/0001_create_payments.sql.
_CHANNEL = "kente_payments_changed"
_RECONNECT_SECONDS = 1.0
_CHECK_SECONDS = 10.0


class PaymentChanges:
    """Changes of payments of every tenant, by payment_id. Who may see a payment is decided where it is read."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)

    @contextmanager
    def of(self, payment_id: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever the payment may have changed; who waits clears it."""
        changed = asyncio.Event()
        self._waiting[payment_id].add(changed)
        try:
            yield changed
        finally:
            self._waiting[payment_id].discard(changed)
            if not self._waiting[payment_id]:
                del self._waiting[payment_id]

    async def run(self) -> None:
        """Listens until it is canceled; connects again when the database was away."""
        while True:
            try:
                await self._listen()
            except DATABASE_ERRORS as error:
                log.warning("payment_changes_wait", error=type(error).__name__)
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _listen(self) -> None:
        connection = await asyncpg.connect(self._database_url, timeout=10, command_timeout=10)
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            await connection.add_listener(_CHANNEL, self._tell)
            # What happened before this moment was told to nobody.
            for payment_id in list(self._waiting):
                self._wake(payment_id)
            while not lost.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(lost.wait(), _CHECK_SECONDS)
                # A connection can be gone without a word.
                await connection.fetchval("SELECT 1")
        finally:
            await connection.close(timeout=1)

    def _tell(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        self._wake(str(payload))

    def _wake(self, payment_id: str) -> None:
        for changed in self._waiting.get(payment_id, ()):
            changed.set()
