"""The admin port of a process: /metrics for Prometheus and /healthz."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


class AdminServer:
    """A small HTTP server beside the real one. Port 0 means any free port."""

    def __init__(self, host: str, port: int, is_healthy: Callable[[], Awaitable[bool]]) -> None:
        self._is_healthy = is_healthy
        app = Starlette(routes=[Route("/metrics", _metrics), Route("/healthz", self._healthz)])
        config = uvicorn.Config(app, host=host, port=port, log_config=None, access_log=False, lifespan="off")
        self._server = _QuietServer(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Serves in the background."""
        self._task = asyncio.create_task(self._server.serve())
        started = asyncio.create_task(self._server.ready.wait())
        await asyncio.wait({started, self._task}, return_when=asyncio.FIRST_COMPLETED)
        started.cancel()

    async def stop(self) -> None:
        """Stops serving."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task

    async def _healthz(self, _request: Request) -> Response:
        healthy = await self._is_healthy()
        return JSONResponse({"status": "serving" if healthy else "away"}, status_code=200 if healthy else 503)


class _QuietServer(uvicorn.Server):
    """Leaves signals to the process's own handlers, and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


async def _metrics(_request: Request) -> Response:
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)
