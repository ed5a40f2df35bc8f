"""Takes PostgreSQL or NATS away, as a crash does, and brings it back."""

from __future__ import annotations

import asyncio
import os
import signal

import psutil

from mesh.embedded.nats import EmbeddedNats
from mesh.embedded.postgres import EmbeddedPostgres


async def kill(server: EmbeddedPostgres | EmbeddedNats) -> None:
    """Ends the server without a chance to put anything in order."""
    assert server.pid
    children = psutil.Process(server.pid).children(recursive=True)
    os.kill(server.pid, signal.SIGKILL)
    await server.stop_async()
    # PostgreSQL's own processes see that their parent is gone.
    await asyncio.to_thread(psutil.wait_procs, children, 10)


async def restart(server: EmbeddedPostgres | EmbeddedNats) -> None:
    """Kills the server and starts it again."""
    await kill(server)
    await server.start_async()
