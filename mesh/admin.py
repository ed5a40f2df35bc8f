"""The admin port of a process: /metrics for Prometheus and /healthz.

Where several workers share a service, one of them answers for all: PROMETHEUS_MULTIPROC_DIR is where they all count.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

_STOP_SECONDS = 1


class AdminServer:
    """A small HTTP server beside the real one. Port 0 means any free port.

    Attributes:
        port: where it listens, once it is started.
    """

    def __init__(self, host: str, port: int, is_healthy: Callable[[], Awaitable[bool]], *, setting: str) -> None:
        """Describes the server.

        Args:
            host: address to listen on.
            port: port to listen on.
            is_healthy: asked by each /healthz.
            setting: name of the setting that gives the port, for the error when it is taken.
        """
        self.port = port
        self._host = host
        self._setting = setting
        self._is_healthy = is_healthy
        app = Starlette(routes=[Route("/metrics", _metrics), Route("/healthz", self._healthz)])
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=_STOP_SECONDS
        )
        self._server = _QuietServer(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Serves in the background.

        Raises:
            SystemExit: the port is taken.
        """
        try:
            listener = socket.create_server((self._host, self.port))
        except OSError:
            raise SystemExit(f"{self._setting}: port {self.port} is taken; stop what uses it, or set another") from None
        self.port = listener.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))
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
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library does not say
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
