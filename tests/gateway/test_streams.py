"""Server streaming arrives as server-sent events, and nobody is left waiting at either end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from mesh.errors import Problem, Reason
from tests.gateway.far_end import API_KEY, PAYMENT_ID, FarEnd
from tests.gateway.running import Running

PATH = f"/v1/payments/{PAYMENT_ID}:watch"
SIGNED = {"authorization": f"Bearer {API_KEY}"}


@dataclass
class Events:
    """A stream of server-sent events, read one block at a time."""

    response: httpx.Response
    lines: AsyncIterator[str] = field(init=False)

    def __post_init__(self) -> None:
        self.lines = self.response.aiter_lines()

    async def block(self) -> dict[str, str]:
        """The fields of the next event or comment; a comment's name is empty."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(5):
            async for line in self.lines:
                if not line:
                    return fields
                name, _, value = line.partition(": ")
                fields[name if name != ":" else ""] = value
        return fields

    async def event(self) -> tuple[str, Any]:
        """Type and data of the next event that is no comment."""
        while "data" not in (fields := await self.block()):
            assert fields, "the stream is over"
        return fields.get("event", "message"), json.loads(fields["data"])


@asynccontextmanager
async def watching(client: httpx.AsyncClient, headers: dict[str, str] | None = None) -> AsyncIterator[Events]:
    """An open stream."""
    async with client.stream("GET", PATH, headers={**SIGNED, **(headers or {})}) as response:
        yield Events(response)


async def test_each_message_is_an_event_and_the_end_is_told(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    for update in (2, 5, None):
        far_end.updates.put_nowait(update)

    async with watching(client) as events:
        assert events.response.status_code == 200
        assert events.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert events.response.headers["cache-control"] == "no-store"
        assert len(events.response.headers["trace-id"]) == 32
        received = [await events.event() for _ in range(3)]
        assert await events.block() == {}

    assert [kind for kind, _ in received] == ["message", "message", "end"]
    states = [data["payment"]["state"] for _, data in received[:2]]
    assert states == ["STATE_PROCESSING", "STATE_SUCCEEDED"]


async def test_an_event_arrives_when_it_happens(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    far_end.updates.put_nowait(1)

    async with watching(client) as events:
        first = await events.event()
        far_end.updates.put_nowait(2)
        second = await events.event()

    assert (first[1]["payment"]["state"], second[1]["payment"]["state"]) == ("STATE_CREATED", "STATE_PROCESSING")


async def test_a_refusal_before_the_first_message_is_an_ordinary_problem(
    client: httpx.AsyncClient, far_end: FarEnd
) -> None:
    far_end.problems["WatchPayment"] = Problem(Reason.RESOURCE_NOT_FOUND, "no such payment")

    response = await client.get(PATH, headers=SIGNED)

    assert (response.status_code, response.json()["reason"]) == (404, "RESOURCE_NOT_FOUND")
    assert response.headers["content-type"] == "application/problem+json"


async def test_a_failure_later_is_an_error_event(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    far_end.updates.put_nowait(2)
    far_end.updates.put_nowait(Problem(Reason.SERVICE_UNAVAILABLE, "the database is away", retry_after_seconds=2.0))

    async with watching(client) as events:
        await events.event()
        kind, problem = await events.event()
        assert await events.block() == {}

    assert (kind, problem["reason"], problem["status"]) == ("error", "SERVICE_UNAVAILABLE", 503)
    assert (problem["retry_after_seconds"], problem["trace_id"]) == (2.0, events.response.headers["trace-id"])


async def test_a_silent_stream_is_kept_open_by_comments(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    async with watching(client) as events:
        # Nothing was sent yet, so the answer itself began with the first comment.
        assert [await events.block() for _ in range(2)] == [{"": "still here"}] * 2
        far_end.updates.put_nowait(5)
        assert (await events.event())[1]["payment"]["state"] == "STATE_SUCCEEDED"


async def test_the_call_ends_when_the_client_leaves(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    far_end.updates.put_nowait(2)

    async with watching(client) as events:
        await events.event()
        assert not far_end.watch_ended.is_set()

    await asyncio.wait_for(far_end.watch_ended.wait(), 5)


async def test_a_stream_has_a_deadline_of_the_callers_own(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    far_end.updates.put_nowait(2)

    async with watching(client, {"Kente-Timeout-Seconds": "0.5"}) as events:
        await events.event()
        kind, problem = await events.event()

    assert (kind, problem["reason"]) == ("error", "DEADLINE_PASSED")


async def test_a_stream_outlives_the_deadline_of_ordinary_calls(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    far_end.updates.put_nowait(None)

    async with watching(client):
        pass

    # gRPC rounds a deadline this far away up to the next half minute or so.
    assert 3590 < far_end.last("WatchPayment").seconds_left < 3660


async def test_streams_are_told_when_the_gateway_stops(fresh_gateway: Running, far_end: FarEnd) -> None:
    far_end.updates.put_nowait(2)

    async with watching(fresh_gateway.client) as events:
        await events.event()
        fresh_gateway.gateway.stopping.set()
        kind, problem = await events.event()
        assert await events.block() == {}

    assert (kind, problem["reason"], problem["retry_after_seconds"]) == ("error", "SERVICE_UNAVAILABLE", 1.0)
    await asyncio.wait_for(far_end.watch_ended.wait(), 5)
