"""Looks for secrets in everything that outlives a call: the database and the stream of events."""

from __future__ import annotations

import asyncpg
import nats
from nats.js.api import ConsumerConfig, DeliverPolicy

from mesh.bus import STREAM
from tests.harness import Infrastructure, eventually


async def dump(infrastructure: Infrastructure, schema: str) -> str:
    """All rows of all tables of a schema as text; bytes as text too, where they are, and in hexadecimal."""
    connection = await asyncpg.connect(infrastructure.postgres.admin_url)
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", schema)
        rows = [
            row[0]
            for table in tables
            # The schema and its tables are our own.
            for row in await connection.fetch(f'SELECT t::text FROM {schema}."{table[0]}" AS t')  # noqa: S608
        ]
    finally:
        await connection.close()
    return "\n".join(rows)


async def events_of(infrastructure: Infrastructure, tenant_id: str, count: int) -> list[bytes]:
    """The first events of a tenant, once there are as many."""
    client = await nats.connect(infrastructure.nats.url)
    try:
        subscription = await client.jetstream().subscribe(
            f"kente.{tenant_id}.>", stream=STREAM, config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
        )
        found: list[bytes] = []

        async def all_there() -> bool:
            found.append((await subscription.next_msg(timeout=15)).data)
            return len(found) == count

        await eventually(all_there)
    finally:
        await client.close()
    return found


def forms_of(secret: str) -> list[str]:
    """A secret as it may stand in a text: as it is, and as the hexadecimal of a bytea."""
    return [secret, secret.encode().hex()]
