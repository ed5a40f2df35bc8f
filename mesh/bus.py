"""Events from JetStream: durable consumers whose handlers take effect once per event.

A handler runs in one transaction of the event's tenant, together with a row that remembers the event; a second
delivery finds the row and does nothing. A failing handler is tried again with growing pauses; after the last try the
event becomes a dead letter, which can be listed and driven again.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
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
from mesh.database import DATABASE_ERRORS, EVERY_TENANT, UNAVAILABLE_ERRORS, Connection, Database
from mesh.ids import new_id
from mesh.outages import is_outage, raise_if_canceled, wait_out
from mesh.redaction import mask_text

log = structlog.get_logger()
tracer = trace.get_tracer("kente.bus")

EVENTS_HANDLED = Counter("kente_events_handled_total", "Events by consumer and outcome.", ["consumer", "outcome"])

STREAM = "KENTE"
_DAY_SECONDS = 86_400
_STREAM_AGE_SECONDS = 30 * _DAY_SECONDS
# A publication repeated within this time is recognised by its id.
_DUPLICATE_WINDOW_SECONDS = 3_600
_CONNECT_SECONDS = 5
# An event whose consumer died is given to another after this time.
_ACK_WAIT_SECONDS = 6
# A handler that is still at work says so this often.
_PROGRESS_SECONDS = 2
_HANDLER_SECONDS = 30
_FETCH_SECONDS = 2
_RETRY_SECONDS = 1
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

    traceparent: str = ""

    @classmethod
    def from_json(cls, text: bytes) -> CloudEvent:
        """Reads an event of the stream.

        Raises:
            ValueError: it is not one of ours.
        """
        try:
            document = json.loads(text)
            event = cls(
                id=document["id"],
                type=document["type"],
                tenant_id=document["kentetenant"],
                subject_id=document["subject"],
                time=document["time"],
                data=document["data"],
                traceparent=document.get("traceparent", ""),
            )
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not an event: {type(error).__name__}") from error
        texts = (event.id, event.type, event.tenant_id, event.subject_id, event.time, event.traceparent)
        # PostgreSQL has no text with NUL in it, and no tenant may be the one that stands for all.
        if any(not isinstance(text, str) or "\0" in text for text in texts) or not isinstance(event.data, dict):
            raise ValueError("not an event: a field of another type")
        if event.tenant_id in ("", EVERY_TENANT):
            raise ValueError("not an event: no tenant")
        return event


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
        # The client would try for ever the first time too, and nobody would hear why nothing serves.
        async with asyncio.timeout(_CONNECT_SECONDS):
            return await nats.connect(
                url.split(","),
                name=name,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.5,
                connect_timeout=_CONNECT_SECONDS,
                allow_reconnect=True,
                error_cb=_log_error,
            )
    except (OSError, nats.errors.Error, TimeoutError) as error:
        raise SystemExit(
            f"KENTE_NATS_URL: NATS can't be reached at {mask_text(url)} ({type(error).__name__});"
            " start it, or correct the address"
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
                await self._consume()
            except _WAIT_ERRORS as error:
                log.warning(
                    "consumer_waits", consumer=self._consumer.name, error=type(error).__name__, detail=str(error)
                )
                await wait_out(_RETRY_SECONDS)

    async def _consume(self) -> None:
        subscription = await self._subscribe()
        try:
            while True:
                try:
                    # One at a time: what waits in a batch of ours would be given to nobody else, should we die.
                    messages = await subscription.fetch(1, timeout=_FETCH_SECONDS)
                except (TimeoutError, nats.errors.TimeoutError):
                    continue
                for message in messages:
                    await self._handle(message)
        finally:
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()

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
        try:
            event = CloudEvent.from_json(message.data)
        except ValueError as error:
            await self._bury(message, f"{STREAM}:{message.metadata.sequence.stream}", "", 1, str(error))
            return
        progress = asyncio.create_task(_report_progress(message))
        try:
            with tracer.start_as_current_span(
                f"consume {event.type}",
                context=propagate.extract({"traceparent": event.traceparent}),
                kind=trace.SpanKind.CONSUMER,
                attributes={"messaging.message.id": event.id, "messaging.consumer.group.name": self._consumer.name},
                record_exception=False,
            ):
                await self._handle_or_fail(message, event)
        except asyncio.CancelledError:
            # This process stops; another should not have to wait for the event.
            with suppress(nats.errors.Error):
                await asyncio.shield(message.nak())
            raise
        finally:
            progress.cancel()

    async def _handle_or_fail(self, message: Msg, event: CloudEvent) -> None:
        try:
            async with asyncio.timeout(_HANDLER_SECONDS) as limit:
                await self._handle_once(event)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises, the event is tried again
            raise_if_canceled()
            await self._fail(message, event, error, is_too_slow=limit.expired())
        else:
            await message.ack()

    async def _handle_once(self, event: CloudEvent) -> None:
        with call_tenant(event.tenant_id, method=self._consumer.name, timeout_seconds=_HANDLER_SECONDS):
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

    async def _fail(self, message: Msg, event: CloudEvent, error: Exception, *, is_too_slow: bool) -> None:
        deliveries = message.metadata.num_delivered or 1
        failure = f"{type(error).__name__}: {error}"
        # The absence of a service or of the database is no fault of the event.
        if deliveries >= self._max_deliveries and (is_too_slow or not is_outage(error)):
            await self._bury(message, event.id, event.tenant_id, deliveries, failure)
            return
        EVENTS_HANDLED.labels(self._consumer.name, "retried").inc()
        log.warning("event_retried", consumer=self._consumer.name, event_id=event.id, failure=failure)
        await message.nak(delay=min(2.0 ** min(deliveries - 1, 10), _MAX_PAUSE_SECONDS))
        if isinstance(error, UNAVAILABLE_ERRORS) and not is_too_slow:
            # The next event would fare no better.
            await wait_out(_RETRY_SECONDS)

    async def _bury(self, message: Msg, event_id: str, tenant_id: str, deliveries: int, failure: str) -> None:
        failure = mask_text(failure).replace("\0", "")[:500]
        async with self._database.transaction(tenant_id) as connection:
            await connection.execute(
                "INSERT INTO dead_letters (dead_letter_id, consumer, event_id, tenant_id, subject, event, failure,"
                " deliveries) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (consumer, event_id) DO UPDATE"
                " SET failure = EXCLUDED.failure, deliveries = EXCLUDED.deliveries, redrive_time = NULL",
                new_id("dlt"),
                self._consumer.name,
                event_id,
                tenant_id,
                message.subject,
                message.data,
                failure,
                deliveries,
            )
        EVENTS_HANDLED.labels(self._consumer.name, "dead").inc()
        log.error("event_dead", consumer=self._consumer.name, event_id=event_id, failure=failure)
        await message.term()


async def _report_progress(message: Msg) -> None:
    while True:
        await asyncio.sleep(_PROGRESS_SECONDS)
        # Should NATS be away, the event comes again, and the row that remembers it makes that harmless.
        with suppress(nats.errors.Error):
            await message.in_progress()


async def publish_again(jetstream: JetStreamContext, subject: str, event_id: str, event: bytes) -> None:
    """Publishes the event of a dead letter again.

    A consumer that handled it before does nothing; the one that failed tries anew, with all its tries.
    """
    # Under its own id the stream would take it for a repetition and drop it.
    await jetstream.publish(subject, event, headers={"Nats-Msg-Id": f"{event_id}:{uuid.uuid4()}"})
