"""A TCP proxy before PostgreSQL that counts statements, and does something at one of them.

It reads what clients send as far as it must (protocol 3): where messages begin, and which of them end a statement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

_STARTUP = 196_608
_INT_BYTES = 4


@dataclass
class Trap:
    """What happens at a statement that is still to come.

    Attributes:
        countdown: how many statements from now; those of all connections count.
        only_commits: count only commits.
        forwards: whether PostgreSQL still gets the statement; its answer is lost in any case.
        spring: what happens then. Afterwards all connections are cut.
    """

    countdown: int
    only_commits: bool
    forwards: bool
    spring: Callable[[], Awaitable[None]]


class SeveringProxy:
    """Stands at `port` before the PostgreSQL at another."""

    def __init__(self, port: int, postgres_port: int) -> None:
        self.port = port
        # How many traps did what they were set for.
        self.sprung_traps = 0
        self._postgres_port = postgres_port
        self._trap: Trap | None = None
        self._springing: set[asyncio.Task[None]] = set()
        self._connections: set[_Connection] = set()

    async def start(self) -> None:
        """Takes connections."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """Cuts all connections, and takes no more."""
        self._server.close()
        self.cut()

    def set(self, trap: Trap | None) -> None:
        """Sets a trap, or takes it away."""
        self._trap = trap

    def spring(self, trap: Trap) -> asyncio.Task[None]:
        """Lets a trap do what it does."""

        async def spring_and_cut() -> None:
            await trap.spring()
            self.cut()

        task = asyncio.create_task(spring_and_cut())
        self._springing.add(task)
        return task

    async def wait_sprung(self) -> None:
        """Waits until all traps did what they do."""
        await asyncio.gather(*self._springing)
        self._springing.clear()

    def cut(self) -> None:
        """Cuts all connections at once."""
        for connection in list(self._connections):
            connection.cut()

    def sprung(self, message: bytes) -> Trap | None:
        """The trap, when this message is what it waits for."""
        trap = self._trap
        # A simple query, or the end of an extended one.
        if trap is None or message[:1] not in (b"Q", b"S"):
            return None
        if trap.only_commits and b"COMMIT" not in message:
            return None
        trap.countdown -= 1
        if trap.countdown > 0:
            return None
        self._trap = None
        self.sprung_traps += 1
        return trap

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._postgres_port)
        except OSError:
            writer.close()
            return
        connection = _Connection(self, reader, writer, server_reader, server_writer)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            connection.cut()


class _Connection:
    def __init__(
        self,
        proxy: SeveringProxy,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._reader, self._writer = reader, writer
        self._server_reader, self._server_writer = server_reader, server_writer
        self._is_muted = False

    def cut(self) -> None:
        self._writer.close()
        self._server_writer.close()

    async def run(self) -> None:
        tasks = {asyncio.create_task(self._to_server()), asyncio.create_task(self._to_client())}
        _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _to_client(self) -> None:
        with suppress(OSError):
            while data := await self._server_reader.read(65_536):
                if not self._is_muted:
                    self._writer.write(data)
                    await self._writer.drain()

    async def _to_server(self) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await self._pass_startup()
            while True:
                head = await self._reader.readexactly(1 + _INT_BYTES)
                length = int.from_bytes(head[1:], "big")
                message = head + await self._reader.readexactly(length - _INT_BYTES)
                trap = self._proxy.sprung(message)
                if trap is not None:
                    self._is_muted = True
                    if trap.forwards:
                        self._server_writer.write(message)
                        await self._server_writer.drain()
                    # This connection may break by it, and it must be done all the same.
                    await asyncio.shield(self._proxy.spring(trap))
                    return
                self._server_writer.write(message)
                await self._server_writer.drain()

    async def _pass_startup(self) -> None:
        """Passes on what has no type: requests for encryption, and the start itself."""
        while True:
            head = await self._reader.readexactly(_INT_BYTES)
            body = await self._reader.readexactly(int.from_bytes(head, "big") - _INT_BYTES)
            self._server_writer.write(head + body)
            await self._server_writer.drain()
            if int.from_bytes(body[:_INT_BYTES], "big") == _STARTUP:
                return
