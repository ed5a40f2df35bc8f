"""Counts and times every RPC, and makes it the current call."""

from __future__ import annotations

import asyncio
import time
from functools import cache

import structlog
from prometheus_client import Histogram

from mesh.context import make_current
from mesh.errors import Problem
from mesh.interceptors.chain import Answer, Exchange, Proceed
from mesh.telemetry import server_span

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
    method = exchange.method
    # None of it is taken back: gRPC makes a task for each call, and what is bound in a task ends with it.
    make_current(exchange.call)
    structlog.contextvars.bind_contextvars(method=method.full_name)
    with server_span(method.service, method.name, exchange.metadata) as span:
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
            _seconds(method.full_name, reason).observe(time.perf_counter() - started)


@cache
def _seconds(method: str, reason: str) -> Histogram:
    """The histogram of calls that end so. There are as many as methods and reasons."""
    return RPC_SECONDS.labels(method, reason)
