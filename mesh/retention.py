"""Forgets what has served its time, so that no table of the mesh grows for ever."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from mesh.database import DATABASE_ERRORS, Database, affected_rows
from mesh.outages import wait_out

log = structlog.get_logger()

_ROUND_SECONDS = 3_600
_RETRY_SECONDS = 60
_BATCH_SIZE = 1_000
# How long rows are kept, by table and the column that says how old they are.
PERIODS = {
    # A request_id is answered as before for a month. A handler's own rows still make it happen only once.
    ("idempotency", "create_time"): timedelta(days=30),
    # Longer than the stream keeps events: none that comes again is forgotten.
    ("inbox", "create_time"): timedelta(days=40),
    ("pgqueuer_log", "created"): timedelta(days=7),
}


class Retention:
    """Deletes old rows of one service, few at a time. Several at work do no harm."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self) -> None:
        """Runs until it is canceled; waits out the absence of the database."""
        while True:
            try:
                await self.forget()
            except DATABASE_ERRORS as error:
                log.warning("retention_waits", error=type(error).__name__)
                await wait_out(_RETRY_SECONDS)
            else:
                await asyncio.sleep(_ROUND_SECONDS)

    async def forget(self) -> None:
        """Deletes all that is old by now."""
        for (table, column), period in PERIODS.items():
            while await self._forget_some(table, column, period) == _BATCH_SIZE:
                pass

    async def _forget_some(self, table: str, column: str, period: timedelta) -> int:
        async with self._database.system_transaction() as connection:
            status = await connection.execute(
                f"DELETE FROM {table} WHERE ctid = ANY(ARRAY("  # noqa: S608 - names of our own
                f"SELECT ctid FROM {table} WHERE {column} < now() - $1::interval LIMIT $2))",
                period,
                _BATCH_SIZE,
            )
        return affected_rows(status)
