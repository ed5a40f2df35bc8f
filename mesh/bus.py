"""Events from JetStream: durable consumers whose handlers take effect once per event.

A handler runs in one transaction of the event's tenant, together with a row that remembers the event; a second
delivery finds the row and does nothing. A failing handler is tried again with growing pauses; after the last try the
event becomes a dead letter, which can be listed and driven again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import nats
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError
from opentelemetry import propagate, trace
from prometheus_client import Counter

from mesh.context import call_tenant
from mesh.database import DATABASE_ERRORS, Connection, Database
from mesh.ids import new_id
from mesh.redaction import mask_text

log = structlog.get_logger()
tracer = trace.get_tracer("kente.bus")

EVENTS_HANDLED = Counter("kente_events_handled_total", "Events by consumer and outcome.", ["consumer", "outcome"])

STREAM = "KENTE"
_DAY_SECONDS = 86_400
_STREAM_AGE_SECONDS = 30 * _DAY_SECONDS
# A publication repeated within this time is recognised by its id.
_DUPLICATE_WINDOW_SECONDS = 3_600
_ACK_WAIT_SECONDS = 30
_FETCH_SECONDS = 5
_BATCH_SIZE = 32
_MAX_PAUSE_SECONDS = 60
# What is waited out: the database or NATS is away.
_WAIT_ERRORS: tuple[type[Exception], ...] = (nats.errors.Error, *DATABASE_ERRORS)


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """An event as a consumer sees it. `data` is the proto JSON of the resource, personal fields masked."""

    id: str
    type: str
    tenant_id: str
    subject_id: str
    time: str
    data: dict[str, Any]

    @classmethod
    def from_json(cls, text: bytes) -> CloudEvent:
        """Reads an event of the stream."""
        document = json.loads(text)
        return cls(
            id=document["id"],
            type=document["type"],
            tenant_id=document["kentetenant"],
            subject_id=document["subject"],
            time=document["time"],
            data=document["data"],
        )


Handler = Callable[[Connection, CloudEvent], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Consumer:
    """A durable consumer.

    Attributes:
        name: durable name, unique in the mesh, such as "notifications-receipts".
        subjects: filters such as "kente.*.payments.payment.succeeded".
    """

    name: str
    subjects: Sequence[str]
    handler: Handler


async def connect(url: str, name: str) -> Client:
    """Connects to NATS and stays connected through its restarts.

    Raises:
        SystemExit: it can't be reached at start.
    """
    try:
        return await nats.connect(
            url.split(","),
            name=name,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.5,
            connect_timeout=5,
            allow_reconnect=True,
            error_cb=_log_error,
        )
    except (OSError, nats.errors.Error, TimeoutError) as error:
        raise SystemExit(
            f"KENTE_NATS_URL: NATS can't be reached at {url} ({type(error).__name__}); start it, or correct the address"
        ) from None


async def _log_error(error: Exception) -> None:
    log.warning("nats_error", error=type(error).__name__)


async def ensure_stream(jetstream: JetStreamContext, replicas: int) -> None:
    """Creates the stream of all events if it does not exist."""
    try:
        await jetstream.stream_info(STREAM)
    except NotFoundError:
        await jetstream.add_stream(
            StreamConfig(
                name=STREAM,
                subjects=["kente.>"],
                retention=RetentionPolicy.LIMITS,
                storage=StorageType.FILE,
                num_replicas=replicas,
                max_age=_STREAM_AGE_SECONDS,
                duplicate_window=_DUPLICATE_WINDOW_SECONDS,
            )
        )


class ConsumerRunner:
    """Runs one consumer of one service."""

    def __init__(
        self, database: Database, jetstream: JetStreamContext, consumer: Consumer, *, max_deliveries: int
    ) -> None:
        self._database = database
        self._jetstream = jetstream
        self._consumer = consumer
        self._max_deliveries = max_deliveries

    async def run(self) -> None:
        """Runs until it is canceled; waits out the absence of NATS and of the database."""
        while True:
            try:
                subscription = await self._subscribe()
                while True:
                    try:
                        messages = await subscription.fetch(_BATCH_SIZE, timeout=_FETCH_SECONDS)
                    except (TimeoutError, nats.errors.TimeoutError):
                        continue
                    for message in messages:
                        await self._handle(message)
            except _WAIT_ERRORS as error:
                log.warning("consumer_waits", consumer=self._consumer.name, error=type(error).__name__)
                await asyncio.sleep(1)

    async def _subscribe(self) -> JetStreamContext.PullSubscription:
        config = ConsumerConfig(
            durable_name=self._consumer.name,
            filter_subjects=list(self._consumer.subjects),
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=_ACK_WAIT_SECONDS,
            # We decide ourselves when it was the last try, so that the dead letter is written first.
            max_deliver=-1,
        )
        await self._jetstream.add_consumer(STREAM, config)
        return await self._jetstream.pull_subscribe_bind(durable=self._consumer.name, stream=STREAM)

    async def _handle(self, message: Msg) -> None:
        event = CloudEvent.from_json(message.data)
        deliveries = message.metadata.num_delivered or 1
        document = json.loads(message.data)
        context = propagate.extract({"traceparent": document.get("traceparent", "")})
        with tracer.start_as_current_span(
            f"consume {event.type}",
            context=context,
            kind=trace.SpanKind.CONSUMER,
            attributes={"messaging.message.id": event.id, "messaging.consumer.group.name": self._consumer.name},
        ):
            try:
                await self._handle_once(event)
            except Exception as error:  # noqa: BLE001 - whatever a handler raises, the event is tried again
                await self._fail(message, event, deliveries, error)
                return
        await message.ack()

    async def _handle_once(self, event: CloudEvent) -> None:
        with call_tenant(event.tenant_id, method=self._consumer.name):
            async with self._database.transaction(event.tenant_id) as connection:
                fresh = await connection.fetchval(
                    "INSERT INTO inbox (consumer, event_id, tenant_id) VALUES ($1, $2, $3)"
                    " ON CONFLICT DO NOTHING RETURNING true",
                    self._consumer.name,
                    event.id,
                    event.tenant_id,
                )
                if fresh:
                    await self._consumer.handler(connection, event)
        EVENTS_HANDLED.labels(self._consumer.name, "handled" if fresh else "repeated").inc()

    async def _fail(self, message: Msg, event: CloudEvent, deliveries: int, error: Exception) -> None:
        failure = mask_text(f"{type(error).__name__}: {error}")[:500]
        if deliveries < self._max_deliveries:
            EVENTS_HANDLED.labels(self._consumer.name, "retried").inc()
            log.warning("event_retried", consumer=self._consumer.name, event_id=event.id, failure=failure)
            await message.nak(delay=min(2.0 ** (deliveries - 1), _MAX_PAUSE_SECONDS))
            return
        async with self._database.transaction(event.tenant_id) as connection:
            await connection.execute(
                "INSERT INTO dead_letters (dead_letter_id, consumer, event_id, tenant_id, subject, event, failure,"
                " deliveries) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (consumer, event_id) DO UPDATE"
                " SET failure = EXCLUDED.failure, deliveries = EXCLUDED.deliveries, redrive_time = NULL",
                new_id("dlt"),
                self._consumer.name,
                event.id,
                event.tenant_id,
                message.subject,
                message.data,
                failure,
                deliveries,
            )
        EVENTS_HANDLED.labels(self._consumer.name, "dead").inc()
        log.error("event_dead", consumer=self._consumer.name, event_id=event.id, failure=failure)
        await message.term()


async def redrive_dead_letters(database: Database, consumer: Consumer) -> int:
    """Handles the dead letters of a consumer again.

    Returns:
        How many could be handled now; the others stay.
    """
    runner_handled = 0
    async with database.system_transaction() as connection:
        rows = await connection.fetch(
            "SELECT dead_letter_id, tenant_id, event FROM dead_letters"
            " WHERE consumer = $1 AND redrive_time IS NULL ORDER BY dead_letter_id",
            consumer.name,
        )
    for row in rows:
        event = CloudEvent.from_json(row["event"])
        with call_tenant(row["tenant_id"], method=consumer.name):
            async with database.transaction(row["tenant_id"]) as connection:
                await consumer.handler(connection, event)
                await connection.execute(
                    "UPDATE dead_letters SET redrive_time = now() WHERE dead_letter_id = $1", row["dead_letter_id"]
                )
        runner_handled += 1
    return runner_handled
