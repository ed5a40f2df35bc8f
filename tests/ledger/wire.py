"""A wire between a process and PostgreSQL that a test can cut at the worst moment."""

from __future__ import annotations

import asyncio
from contextlib import suppress

# The simple query that ends a transaction.
_COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"
_CHUNK_BYTES = 65_536


class Wire:
    """Passes everything on, until it is told to lose something.

    Attributes:
        port: where it listens.
        lost_commits: how many more commits are lost on their way to the server.
        lost_answers: how many more answers to commits are lost on their way back.
        is_down: whether every connection breaks at once.
    """

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0
        self.lost_commits = 0
        self.lost_answers = 0
        self.is_down = False

    async def open(self) -> None:
        """Begins to listen."""
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Breaks all connections."""
        assert self._server is not None
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if not self.is_down:
                await self._pass_on(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        back = asyncio.create_task(_copy(server_reader, writer))
        try:
            while (data := await reader.read(_CHUNK_BYTES)) and not self.is_down:
                is_commit = data.endswith(_COMMIT)
                if is_commit and self.lost_commits:
                    self.lost_commits -= 1
                    return
                if is_commit and self.lost_answers:
                    self.lost_answers -= 1
                    back.cancel()
                    await asyncio.wait([back])
                    server_writer.write(data)
                    # It was committed, and nobody is told.
                    await server_reader.read(_CHUNK_BYTES)
                    return
                server_writer.write(data)
                await server_writer.drain()
        finally:
            back.cancel()
            await asyncio.wait([back])
            server_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()
