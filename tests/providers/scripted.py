"""An HTTP server that a test writes the answers for, byte by byte where it wants."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import h11


@dataclass(frozen=True, slots=True)
class Heard:
    """A request as it arrived; names of headers in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Say:
    """An answer."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, content: object, status: int = 200, **headers: str) -> Say:
        """An answer in JSON; header names with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return cls(status, json.dumps(content).encode(), {"content-type": "application/json", **named})


class Silence:
    """No answer until the client goes."""


class Reset:
    """The connection is reset."""


Script = Callable[[Heard], Awaitable["Say | Silence | Reset"]]


class ScriptedServer:
    """Runs a script for each request, and remembers them."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.heard: list[Heard] = []
        self.url = ""
        self._tasks: set[asyncio.Task[Any]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            heard = await _read(reader)
            if heard is None:
                return
            self.heard.append(heard)
            answer = await self.script(heard)
            if isinstance(answer, Silence):
                await reader.read()
            elif isinstance(answer, Reset):
                connection: socket.socket = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                lengths = {"content-length": str(len(answer.body)), "connection": "close", **answer.headers}
                head = "".join(f"{name}: {value}\r\n" for name, value in lengths.items())
                writer.write(f"HTTP/1.1 {answer.status} Said\r\n{head}\r\n".encode() + answer.body)
                await writer.drain()
        finally:
            writer.close()
            self._tasks.discard(task)

    def stop(self) -> None:
        """Ends connections that are still open."""
        for task in self._tasks:
            task.cancel()


async def _read(reader: asyncio.StreamReader) -> Heard | None:
    connection, request, body = h11.Connection(h11.SERVER), None, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage) and request is not None:
            headers = {name.decode().lower(): value.decode() for name, value in request.headers}
            return Heard(request.method.decode(), request.target.decode(), headers, body)
        else:
            return None


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[ScriptedServer]:
    """A server on a free port of this machine."""
    scripted_server = ScriptedServer(script)
    server = await asyncio.start_server(scripted_server.serve, "127.0.0.1", 0)
    scripted_server.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield scripted_server
    finally:
        server.close()
        scripted_server.stop()
