"""A span, the metrics and one log line for every request."""

from __future__ import annotations

import time
from typing import Any

from opentelemetry import propagate, trace
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.problems import problem_response
from gateway.routes import VERBS
from mesh.errors import Problem, Reason
from mesh.logs import get_logger
from mesh.telemetry import current_trace_id

UNMATCHED = "unmatched"

_SERVER_FAULT = 500
# What a provider's callback is answered with, or a partner's text in an error, must never run as a page.
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
_log = get_logger()
_tracer = trace.get_tracer("kente.gateway")


class Metrics:
    """The gateway's metrics. Labels are route templates, never addresses: those hold ids and have no end."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "kente_gateway_requests", "Requests answered.", ["verb", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "kente_gateway_request_seconds",
            "Time from a request's headers to the end of its answer, in seconds.",
            ["verb", "route"],
            registry=self.registry,
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15, 60),
        )
        self.under_way = Gauge(
            "kente_gateway_requests_under_way", "Requests not answered yet, streams among them.", registry=self.registry
        )


class Observed:
    """ASGI middleware around everything: whatever fails inside, the caller gets a problem and we get a log line."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        verb = scope["method"] if scope["method"] in VERBS else "other"
        answer = _Answer(send)
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        context = propagate.extract(carrier)
        self._metrics.under_way.inc()
        with _tracer.start_as_current_span(f"HTTP {verb}", context, kind=trace.SpanKind.SERVER) as span:
            try:
                await self._guarded(scope, receive, answer)
            finally:
                route = scope.get("kente.route", UNMATCHED)
                seconds = time.perf_counter() - started
                self._metrics.under_way.dec()
                self._metrics.requests.labels(verb, route, str(answer.status)).inc()
                self._metrics.seconds.labels(verb, route).observe(seconds)
                span.update_name(f"{verb} {route}")
                span.set_attribute("http.request.method", verb)
                span.set_attribute("http.route", route)
                span.set_attribute("http.response.status_code", answer.status)
                if answer.status >= _SERVER_FAULT:
                    span.set_status(trace.StatusCode.ERROR)
                if not scope.get("kente.quiet"):
                    _log.info(
                        "request_answered", verb=verb, route=route, status=answer.status, seconds=round(seconds, 6)
                    )

    async def _guarded(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        try:
            await self._app(scope, receive, answer)
        except Exception:  # noqa: BLE001 - the last guard: a bug of ours must not become a bare 500
            _log.exception("request_failed", route=scope.get("kente.route", UNMATCHED))
            if not answer.started:
                await problem_response(Problem(Reason.INTERNAL))(scope, receive, answer)


class _Answer:
    """Passes an answer on, notes its status, and adds the trace id to its headers."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        # As nginx counts a caller that left before it was answered.
        self.status = 499

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]
            headers: list[tuple[bytes, bytes]] = [*message.get("headers", ()), _NO_SNIFFING]
            trace_id = current_trace_id()
            if trace_id:
                headers.append((b"trace-id", trace_id.encode()))
            changed: dict[str, Any] = {**message, "headers": headers}
            await self._send(changed)
        else:
            await self._send(message)
