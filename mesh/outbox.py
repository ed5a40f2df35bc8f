"""Events are written with the change they report, and published once that is committed.

An event is a CloudEvent (1.0, JSON). The relay publishes to JetStream, waits for the stream's acknowledgement, then
forgets the row; Nats-Msg-Id makes a repeated publication harmless. The events of one resource keep the order of their
transactions: the next is sent only when the one before is acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import nats.errors
import structlog
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from nats.aio.client import Client
from prometheus_client import Counter, Gauge

from mesh.clock import utc_now
from mesh.database import DATABASE_ERRORS, Connection, Database, Row, after_commit
from mesh.ids import new_id
from mesh.outages import wait_out
from mesh.redaction import redact
from mesh.statements import Statement, execute
from mesh.telemetry import current_trace_context

log = structlog.get_logger()

EVENTS_PUBLISHED = Counter("kente_events_published_total", "Events that the stream acknowledged.", ["domain"])
OUTBOX_WAITING = Gauge(
    "kente_outbox_waiting_events",
    "Events written and not yet published.",
    ["domain"],
    # With several workers, the one that relays knows.
    multiprocess_mode="mostrecent",
)

# A message of NATS holds 1 MiB by default. An event that can't be published would hold up all that come after it.
MAX_EVENT_BYTES = 512 * 1024
_BATCH_SIZE = 200
_POLL_SECONDS = 0.5
# Between two rounds that had something to do. The first event after a silence goes at once; a busy service's events
# go many at a time, so that looking for them does not compete with making them.
_PAUSE_SECONDS = 0.05
_RETRY_SECONDS = 1.0
_ACKNOWLEDGEMENT_SECONDS = 5.0
# What is waited out: the database or NATS is away.
_WAIT_ERRORS: tuple[type[Exception], ...] = (nats.errors.Error, *DATABASE_ERRORS)
_TENANT = re.compile(r"[\w-]+", re.ASCII)
_TYPE = re.compile(r"[a-z0-9_]+\.[a-z0-9_]+\.[a-z0-9_]+")
_ADD = """
    INSERT INTO outbox (event_id, tenant_id, resource_id, subject, event)
    SELECT event_id, tenant_id, resource_id, subject, event
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[]) WITH ORDINALITY
         AS added (event_id, tenant_id, resource_id, subject, event, place)
    ORDER BY place
"""

# One for each relay of this process: who writes an event need not know them.
_wakeups: set[asyncio.Event] = set()


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Attributes:
        type: "<domain>.<resource>.<what happened>", such as "payments.payment.succeeded".
        subject_id: the resource it happened to.
        data: the resource as it is now. Of a message, fields marked debug_redact are masked before they are written.
            A mapping is written as it is: it must be what the JSON form of such a message is.
        trace_context: of the call that caused it; None means the current one.
    """

    type: str
    tenant_id: str
    subject_id: str
    data: Message | Mapping[str, Any]
    trace_context: Mapping[str, str] | None = None


async def add(connection: Connection, event: Event) -> str:
    """Writes an event in the current transaction.

    Returns:
        The id of the event.

    Raises:
        ValueError: it can't be published: its type or tenant makes no subject, or it is larger than MAX_EVENT_BYTES.
    """
    return (await add_all(connection, [event]))[0]


async def add_all(connection: Connection, events: Sequence[Event]) -> list[str]:
    """Writes events in the current transaction, by one statement. They are published in their order.

    Returns:
        Their ids.

    Raises:
        ValueError: one of them can't be published, as for `add`. None is written.
    """
    statements, event_ids = added(events)
    await execute(connection, statements)
    publish_soon()
    return event_ids


def publish_soon() -> None:
    """Has the relays of this process look once the current transaction is committed, and not at their next turn."""
    after_commit(_wake_relays)


def added(events: Sequence[Event]) -> tuple[list[Statement], list[str]]:
    """What writes events, to be executed with others in a transaction that calls publish_soon, and the events' ids.

    Raises:
        ValueError: one of them can't be published, as for `add`.
    """
    if not events:
        return [], []
    time = utc_now().isoformat()
    carried = current_trace_context()
    event_ids = [new_id("evt") for _ in events]
    bodies = [
        _document(event, event_id, time, carried if event.trace_context is None else event.trace_context)
        for event, event_id in zip(events, event_ids, strict=True)
    ]
    columns = (
        event_ids,
        [event.tenant_id for event in events],
        [event.subject_id for event in events],
        [f"kente.{event.tenant_id}.{event.type}" for event in events],
        bodies,
    )
    return [Statement(_ADD, columns)], event_ids


def _document(event: Event, event_id: str, time: str, trace_context: Mapping[str, str]) -> bytes:
    if not _TYPE.fullmatch(event.type) or not _TENANT.fullmatch(event.tenant_id):
        message = f"an event of type {event.type!r} and tenant {event.tenant_id!r} has no subject"
        raise ValueError(message)
    data = event.data
    document: dict[str, Any] = {
        "specversion": "1.0",
        "id": event_id,
        "source": f"/kente/{event.type.partition('.')[0]}",
        "type": event.type,
        "subject": event.subject_id,
        "time": time,
        "datacontenttype": "application/json",
        "kentetenant": event.tenant_id,
        "data": MessageToDict(redact(data)) if isinstance(data, Message) else dict(data),
        **{key: value for key, value in trace_context.items() if key == "traceparent"},
    }
    body = json.dumps(document).encode()
    if len(body) > MAX_EVENT_BYTES:
        message = f"an event {event.type} of {len(body)} bytes is too large to publish"
        raise ValueError(message)
    return body


def _wake_relays() -> None:
    for wakeup in _wakeups:
        wakeup.set()


class OutboxRelay:
    """Publishes what is in the outbox of one service. Only one relay of a service is at work at a time."""

    def __init__(self, database: Database, client: Client, domain: str) -> None:
        self._database = database
        self._client = client
        self._jetstream = client.jetstream(timeout=_ACKNOWLEDGEMENT_SECONDS)
        self._domain = domain
        self._wakeup = asyncio.Event()

    async def run(self) -> None:
        """Runs until it is canceled; waits out the absence of NATS and of the database."""
        _wakeups.add(self._wakeup)
        try:
            while True:
                # Before the rows are read: what is committed after that wakes the relay again.
                self._wakeup.clear()
                try:
                    while (published := await self._publish_batch()) == _BATCH_SIZE:
                        pass
                except _WAIT_ERRORS as error:
                    log.warning("outbox_relay_waits", error=type(error).__name__, detail=str(error))
                    await wait_out(_RETRY_SECONDS)
                    continue
                if published:
                    await asyncio.sleep(_PAUSE_SECONDS)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wakeup.wait(), _POLL_SECONDS)
        finally:
            _wakeups.discard(self._wakeup)

    async def _publish_batch(self) -> int:
        async with self._database.system_transaction() as connection:
            if not await connection.fetchval("SELECT pg_try_advisory_xact_lock(hashtext($1))", f"relay.{self._domain}"):
                return 0
            rows = await connection.fetch(
                "SELECT sequence, event_id, tenant_id, resource_id, subject, event FROM outbox"
                " ORDER BY sequence LIMIT $1",
                _BATCH_SIZE,
            )
            waiting = len(rows)
            if waiting == _BATCH_SIZE:
                waiting = await connection.fetchval("SELECT count(*) FROM outbox")
            OUTBOX_WAITING.labels(self._domain).set(waiting)
            if rows and not self._client.is_connected:
                # What the client is given now it would keep, and send once it is connected, out of turn.
                raise nats.errors.ConnectionReconnectingError
            if rows:
                # To forget what is published need not wait for the disk: after a crash it would be published again,
                # under the same ids and in the same order, which is harmless.
                await connection.execute("SET LOCAL synchronous_commit = off")
            for wave in _waves(rows):
                outcomes = await asyncio.gather(*(self._publish(row) for row in wave), return_exceptions=True)
                for outcome in outcomes:
                    if outcome is not None:
                        raise outcome
            if rows:
                sequences = [row["sequence"] for row in rows]
                await connection.execute("DELETE FROM outbox WHERE sequence = ANY($1)", sequences)
        OUTBOX_WAITING.labels(self._domain).set(waiting - len(rows))
        EVENTS_PUBLISHED.labels(self._domain).inc(len(rows))
        return len(rows)

    async def _publish(self, row: Row) -> None:
        await self._jetstream.publish(row["subject"], row["event"], headers={"Nats-Msg-Id": row["event_id"]})


def _waves(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows in groups to publish one after the other, each with at most one event of a resource.

    Part of what is sent at once can be lost with a connection and sent again. It must not be overtaken by a later
    event of the same resource.
    """
    waves: list[list[Row]] = []
    events_before: defaultdict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        resource = (row["tenant_id"], row["resource_id"])
        if events_before[resource] == len(waves):
            waves.append([])
        waves[events_before[resource]].append(row)
        events_before[resource] += 1
    return waves
