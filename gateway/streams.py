"""Server streaming as server-sent events (HTML Living Standard, section 9.2).

One unnamed event per message. `event: error` with a problem ends a stream that failed, `event: end` one that came to
its end, so that a client knows not to connect again. Comments keep a silent stream open.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.problems import document, encode
from gateway.upstream import Stream, problem_of
from mesh.errors import Problem, Reason

CONTENT_TYPE = "text/event-stream"

_HEARTBEAT = b": still here\n\n"
_END = b"event: end\ndata: {}\n\n"
_STOPPING = "the gateway is being restarted: connect again"


class MessageStream:
    """The messages of one streaming call, read so that a wait for the next can be given up and taken up again."""

    def __init__(self, call: Stream, domain: str) -> None:
        self._call = call
        self._domain = domain
        self._next: asyncio.Task[bytes | None] | None = None

    async def next_within(self, seconds: float) -> bytes | None:
        """The next message; None at the end of the stream.

        Raises:
            TimeoutError: none came in that time; the next call goes on waiting for the same one.
            Problem: the call failed.
        """
        if self._next is None:
            self._next = asyncio.ensure_future(self._read())
        done, _ = await asyncio.wait({self._next}, timeout=seconds)
        if not done:
            raise TimeoutError
        reading, self._next = self._next, None
        return reading.result()

    def close(self) -> None:
        """Ends the call, also at the service."""
        self._call.cancel()
        if self._next is not None:
            self._next.cancel()

    async def _read(self) -> bytes | None:
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise problem_of(error, self._domain) from None
        return message if isinstance(message, bytes) else None


class EventStream(Response):
    """Writes a stream of messages until it ends, the client leaves, or the gateway stops."""

    def __init__(
        self,
        messages: MessageStream,
        first: bytes | None,
        *,
        decode: Callable[[bytes], str],
        heartbeat_seconds: float,
        stopping: asyncio.Event,
    ) -> None:
        super().__init__(status_code=200, media_type=CONTENT_TYPE)
        self._messages = messages
        self._first = first
        self._decode = decode
        self._heartbeat_seconds = heartbeat_seconds
        self._stopping = stopping
        # Proxies that buffer would hold every event back.
        self.raw_headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - signature of ASGI
        """Answers one request."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        writing = asyncio.ensure_future(self._write(send))
        leaving = asyncio.ensure_future(_client_left(receive))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({writing, leaving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done() and not writing.done() and not leaving.done():
                writing.cancel()
                await asyncio.wait({writing})
                problem = Problem(Reason.SERVICE_UNAVAILABLE, _STOPPING, retry_after_seconds=1.0)
                await send({"type": "http.response.body", "body": _error_event(problem), "more_body": False})
            elif writing.done():
                writing.result()
        finally:
            self._messages.close()
            for task in (writing, leaving, stopping):
                task.cancel()

    async def _write(self, send: Send) -> None:
        async for event in self._events():
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(self) -> AsyncIterator[bytes]:
        if self._first is not None:
            yield self._event(self._first)
        while True:
            try:
                message = await self._messages.next_within(self._heartbeat_seconds)
            except TimeoutError:
                yield _HEARTBEAT
                continue
            except Problem as problem:
                yield _error_event(problem)
                return
            if message is None:
                yield _END
                return
            yield self._event(message)

    def _event(self, message: bytes) -> bytes:
        # Compact JSON holds no line break, so one data line carries it.
        return b"data: " + self._decode(message).encode() + b"\n\n"


def _error_event(problem: Problem) -> bytes:
    return b"event: error\ndata: " + encode(document(problem)) + b"\n\n"


async def _client_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
