"""Events for tests: written, published, handled, and seen on the stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

from google.protobuf.message import Message
from kente.ledger.v1.ledger_pb2 import Account
from nats.aio.client import Client
from nats.js.api import DeliverPolicy
from nats.js.errors import NotFoundError

from mesh import outbox
from mesh.bus import STREAM, CloudEvent, Consumer, ConsumerRunner
from mesh.database import Connection, Database
from mesh.ids import new_id


@asynccontextmanager
async def running(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Background work of a service, for as long as the block lasts. It must not end by itself."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        yield
        assert not [task for task in tasks if task.done()]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def write(
    database: Database, tenant_id: str, resource_id: str, step: int = 0, data: Message | None = None
) -> str:
    """Writes an event in a transaction of its own; returns its id."""
    message = data or Account(account_name=resource_id, display_name=str(step))
    async with database.transaction(tenant_id) as connection:
        return await outbox.add(connection, outbox.Event("ledger.account.created", tenant_id, resource_id, message))


async def published(client: Client, tenant_id: str) -> list[dict[str, Any]]:
    """All events of a tenant on the stream, in order."""
    jetstream = client.jetstream()
    try:
        last = await jetstream.get_last_msg(STREAM, f"kente.{tenant_id}.ledger.account.created")
    except NotFoundError:
        return []
    subscription = await jetstream.subscribe(
        f"kente.{tenant_id}.ledger.account.created", ordered_consumer=True, deliver_policy=DeliverPolicy.ALL
    )
    events = []
    while True:
        message = await subscription.next_msg(timeout=5)
        events.append(json.loads(message.data))
        if message.metadata.sequence.stream == last.seq:
            await subscription.unsubscribe()
            return events


async def _nothing(_event: CloudEvent) -> None:
    pass


class Recorder:
    """A consumer of one tenant's events whose effect is a row for each time that an event was handled."""

    def __init__(self, database: Database, tenant_id: str) -> None:
        self.name = new_id("test-consumer")
        self.deliveries: list[str] = []
        # What a test wants to happen in the handler, before its effect.
        self.before: Callable[[CloudEvent], Awaitable[None]] = _nothing
        self.consumer = Consumer(self.name, [f"kente.{tenant_id}.ledger.>"], self._handle)
        self._database = database

    def runner(self, client: Client, max_deliveries: int = 8, database: Database | None = None) -> ConsumerRunner:
        """The consumer at work in one process."""
        return ConsumerRunner(
            database or self._database, client.jetstream(timeout=5), self.consumer, max_deliveries=max_deliveries
        )

    async def _handle(self, connection: Connection, event: CloudEvent) -> None:
        self.deliveries.append(event.id)
        await self.before(event)
        await connection.execute(
            "INSERT INTO audit_log (tenant_id, subject, method, request_id, resources, outcome, trace_id)"
            " VALUES ($1, $2, $3, '', '{}', 'OK', '')",
            event.tenant_id,
            event.id,
            self.name,
        )

    async def effects(self) -> list[str]:
        """Ids of the events handled, in order; one that took effect twice is there twice."""
        async with self._database.system_transaction() as connection:
            rows = await connection.fetch(
                "SELECT subject FROM audit_log WHERE method = $1 ORDER BY sequence", self.name
            )
        return [row["subject"] for row in rows]

    async def dead(self) -> Sequence[Any]:
        """Its dead letters that wait."""
        async with self._database.system_transaction() as connection:
            rows: Sequence[Any] = await connection.fetch(
                "SELECT * FROM dead_letters WHERE consumer = $1 AND redrive_time IS NULL", self.name
            )
        return rows
