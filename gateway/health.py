"""Whether the gateway runs, and whether the services behind it do."""

from __future__ import annotations

import asyncio

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.observe import Metrics
from gateway.upstream import Upstream

_NO_STORE = {"cache-control": "no-store"}
_SERVING = "SERVING"


class HealthHandlers:
    """/healthz, /readyz and /metrics."""

    def __init__(
        self, upstream: Upstream, metrics: Metrics, stopping: asyncio.Event, ready_timeout_seconds: float
    ) -> None:
        self._upstream = upstream
        self._metrics = metrics
        self._stopping = stopping
        self._timeout_seconds = ready_timeout_seconds

    async def healthz(self, request: Request) -> Response:
        """200 as long as this process answers."""
        _mark(request)
        return JSONResponse({"status": "alive"}, headers=_NO_STORE)

    async def readyz(self, request: Request) -> Response:
        """200 when every service serves; otherwise 503 with those that are away."""
        _mark(request)
        domains = self._upstream.domains
        states = await asyncio.gather(*(self._upstream.health(domain, self._timeout_seconds) for domain in domains))
        services = dict(zip(domains, states, strict=True))
        away = [domain for domain, state in services.items() if state != _SERVING]
        status = "stopping" if self._stopping.is_set() else "waiting" if away else "ready"
        body = {"status": status, "services": services, "away": away}
        return JSONResponse(body, 200 if status == "ready" else 503, _NO_STORE)

    async def metrics(self, request: Request) -> Response:
        """Metrics in Prometheus' text format."""
        _mark(request)
        return Response(generate_latest(self._metrics.registry), 200, _NO_STORE, media_type=CONTENT_TYPE_PLAIN_0_0_4)


def _mark(request: Request) -> None:
    """Names the route, and keeps probes out of the log: they come every few seconds."""
    request.scope["kente.route"] = request.scope["path"]
    request.scope["kente.quiet"] = True
