"""Events are written with the change they report, and published once that is committed.

An event is a CloudEvent (1.0, JSON). The relay publishes to JetStream in the order of writing, waits for the stream's
acknowledgement, then forgets the row; Nats-Msg-Id makes a repeated publication harmless.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import nats.errors
import structlog
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from nats.js import JetStreamContext
from opentelemetry import propagate
from prometheus_client import Counter, Gauge

from mesh.clock import utc_now
from mesh.database import DATABASE_ERRORS, Connection, Database, after_commit
from mesh.ids import new_id
from mesh.redaction import redact

log = structlog.get_logger()

EVENTS_PUBLISHED = Counter("kente_events_published_total", "Events that the stream acknowledged.", ["domain"])
OUTBOX_WAITING = Gauge("kente_outbox_waiting_events", "Events written and not yet published.", ["domain"])

_BATCH_SIZE = 200
_POLL_SECONDS = 0.5
_RETRY_SECONDS = 1.0
# What is waited out: the database or NATS is away.
_WAIT_ERRORS: tuple[type[Exception], ...] = (nats.errors.Error, *DATABASE_ERRORS)

_wake_relay: Callable[[], None] = lambda: None  # noqa: E731 - replaced when a relay runs in this process


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Attributes:
        type: "<domain>.<resource>.<what happened>", such as "payments.payment.succeeded".
        subject_id: the resource it happened to.
        data: the resource as it is now; fields marked debug_redact are masked before they are written.
    """

    type: str
    tenant_id: str
    subject_id: str
    data: Message


async def add(connection: Connection, event: Event) -> str:
    """Writes an event in the current transaction.

    Returns:
        The id of the event.
    """
    event_id = new_id("evt")
    domain = event.type.partition(".")[0]
    trace_context: dict[str, str] = {}
    propagate.inject(trace_context)
    document: dict[str, Any] = {
        "specversion": "1.0",
        "id": event_id,
        "source": f"/kente/{domain}",
        "type": event.type,
        "subject": event.subject_id,
        "time": utc_now().isoformat(),
        "datacontenttype": "application/json",
        "kentetenant": event.tenant_id,
        "data": MessageToDict(redact(event.data)),
        **{key: value for key, value in trace_context.items() if key == "traceparent"},
    }
    await connection.execute(
        "INSERT INTO outbox (event_id, tenant_id, subject, event) VALUES ($1, $2, $3, $4)",
        event_id,
        event.tenant_id,
        f"kente.{event.tenant_id}.{event.type}",
        json.dumps(document).encode(),
    )
    after_commit(_wake_relay)
    return event_id


class OutboxRelay:
    """Publishes what is in the outbox of one service. Only one relay of a service is at work at a time."""

    def __init__(self, database: Database, jetstream: JetStreamContext, domain: str) -> None:
        self._database = database
        self._jetstream = jetstream
        self._domain = domain
        self._wakeup = asyncio.Event()

    async def run(self) -> None:
        """Runs until it is canceled."""
        global _wake_relay  # noqa: PLW0603 - one relay a process, and writers must not need to know it
        _wake_relay = self._wakeup.set
        while True:
            pause_seconds = _POLL_SECONDS
            try:
                while await self._publish_batch() == _BATCH_SIZE:
                    pass
            except _WAIT_ERRORS as error:
                log.warning("outbox_relay_waits", error=type(error).__name__)
                pause_seconds = _RETRY_SECONDS
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wakeup.wait(), pause_seconds)
            self._wakeup.clear()

    async def _publish_batch(self) -> int:
        async with self._database.system_transaction() as connection:
            if not await connection.fetchval("SELECT pg_try_advisory_xact_lock(hashtext($1))", f"relay.{self._domain}"):
                return 0
            rows = await connection.fetch(
                "SELECT sequence, event_id, subject, event FROM outbox ORDER BY sequence LIMIT $1", _BATCH_SIZE
            )
            if not rows:
                OUTBOX_WAITING.labels(self._domain).set(0)
                return 0
            acknowledgements = [
                await self._jetstream.publish_async(
                    row["subject"], row["event"], headers={"Nats-Msg-Id": row["event_id"]}
                )
                for row in rows
            ]
            await asyncio.wait_for(asyncio.gather(*acknowledgements), timeout=5)
            await connection.execute("DELETE FROM outbox WHERE sequence = ANY($1)", [row["sequence"] for row in rows])
        EVENTS_PUBLISHED.labels(self._domain).inc(len(rows))
        OUTBOX_WAITING.labels(self._domain).set(0 if len(rows) < _BATCH_SIZE else len(rows))
        return len(rows)
