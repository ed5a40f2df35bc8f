"""Counts and times every RPC, and makes it the current call."""

from __future__ import annotations

import asyncio
import time

import structlog
from opentelemetry import propagate, trace
from prometheus_client import Histogram

from mesh.context import handling
from mesh.errors import Problem
from mesh.interceptors.chain import Answer, Exchange, Proceed

tracer = trace.get_tracer("kente.rpc")

RPC_SECONDS = Histogram(
    "kente_rpc_seconds",
    "Time to answer RPCs, by method and reason (OK for success).",
    ["method", "reason"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)


async def telemetry(exchange: Exchange, proceed: Proceed) -> Answer:
    """Opens the span of the call, under the caller's."""
    started = time.perf_counter()
    reason = "OK"
    service, name = exchange.method.full_name.lstrip("/").split("/")
    with (
        handling(exchange.call),
        tracer.start_as_current_span(
            f"{service}/{name}",
            context=propagate.extract(exchange.metadata),
            kind=trace.SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": name},
            # What a Problem says is recorded by its reason; its text stays out of traces.
            record_exception=False,
        ) as span,
        structlog.contextvars.bound_contextvars(method=exchange.method.full_name),
    ):
        try:
            return await proceed(exchange)
        except Problem as problem:
            reason = problem.reason_name
            span.set_attribute("kente.reason", reason)
            raise
        except asyncio.CancelledError:
            reason = "CALL_CANCELED"
            raise
        finally:
            RPC_SECONDS.labels(exchange.method.full_name, reason).observe(time.perf_counter() - started)
