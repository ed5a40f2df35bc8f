"""Calls to other services of the mesh: identity, tenant, shrinking deadline, retry as data.

Only UNAVAILABLE is retried, and only where the contract says that the RPC is safe (AIP-194); a budget keeps retries
from multiplying a fault.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from kente.options.v1.options_pb2 import Idempotency
from opentelemetry import propagate

from mesh.context import current_call_or_none, remaining_seconds
from mesh.errors import Problem, Reason
from mesh.policies import Method, contract_services, methods_of
from mesh.settings import MeshSettings
from mesh.telemetry import client_span
from mesh.tokens import Identity

# Kept back for our own work after the answer.
_HOP_SECONDS = 0.02

_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.enable_retries", 1),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # This is how long gRPC gives one attempt to connect, whatever its name says: a busy server must get the chance.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Every channel of a process has its own connection, so that workers sharing a port share the load.
    ("grpc.use_local_subchannel_pool", 1),
]
"""Channel options of every call inside the mesh."""


def service_config(methods: dict[str, Method]) -> str:
    """The gRPC service config: retries for safe RPCs only, round robin over addresses."""
    safe = [
        dict(zip(("service", "method"), method.full_name.lstrip("/").split("/"), strict=True))
        for method in methods.values()
        if method.policy.idempotency == Idempotency.IDEMPOTENCY_SAFE and not method.is_streaming
    ]
    retry = {
        "maxAttempts": 4,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [{"name": safe, "retryPolicy": retry}],
        "retryThrottling": {"maxTokens": 50, "tokenRatio": 0.2},
    }
    return json.dumps(config)


def open_channel(
    service: str,
    settings: MeshSettings,
    identity: Identity | None,
    *,
    extra_interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
) -> grpc.aio.Channel:
    """A channel to a service.

    Args:
        service: name of the domain, such as "ledger".
        identity: whose calls these are; None to pass on the caller's own token, as the gateway does.
        extra_interceptors: run first.
    """
    methods = methods_of(contract_services(service))
    options = [*_OPTIONS, ("grpc.service_config", service_config(methods))]
    interceptors: list[grpc.aio.ClientInterceptor] = [
        *extra_interceptors,
        _UnaryCalls(identity),
        _StreamCalls(identity),
    ]
    return grpc.aio.insecure_channel(settings.address_of(service), options=options, interceptors=interceptors)


def _outgoing(
    details: grpc.aio.ClientCallDetails, identity: Identity | None, *, is_stream: bool = False
) -> grpc.aio.ClientCallDetails:
    call = current_call_or_none()
    metadata = grpc.aio.Metadata(*(details.metadata or ()))
    keys = set(metadata.keys())
    if identity is not None and "authorization" not in keys:
        metadata.add("authorization", f"Bearer {identity.service_token(call.tenant_id if call else '')}")
    trace_context: dict[str, str] = {}
    propagate.inject(trace_context)
    for key, value in trace_context.items():
        if key not in keys:
            metadata.add(key, value)
    timeout = details.timeout
    if call is not None:
        remaining = remaining_seconds() - _HOP_SECONDS
        if remaining <= 0:
            raise Problem(Reason.DEADLINE_PASSED, "no time is left for the next service")
        timeout = remaining if timeout is None else min(timeout, remaining)
    elif timeout is None and not is_stream:
        # Nobody waits for this call; yet a service that hangs must not hold it for ever.
        timeout = remaining_seconds()
    return grpc.aio.ClientCallDetails(details.method, timeout, metadata, details.credentials, details.wait_for_ready)


class _UnaryCalls(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, identity: Identity | None) -> None:
        self._identity = identity

    async def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Any],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,  # noqa: ANN401 - of any RPC
    ) -> Any:  # noqa: ANN401 - gRPC's own call objects are typed so
        method = _name(client_call_details)
        with client_span(method):
            call = await continuation(_outgoing(client_call_details, self._identity), request)
            try:
                # Waits for the end, so that the span covers the call. The result is still read from the call.
                await call.code()
            except asyncio.CancelledError:
                # Who asked has gone: the next service need not go on.
                call.cancel()
                raise
            return call


class _StreamCalls(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, identity: Identity | None) -> None:
        self._identity = identity

    async def intercept_unary_stream(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Any],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,  # noqa: ANN401 - of any RPC
    ) -> Any:  # noqa: ANN401 - gRPC's own call objects are typed so
        return await continuation(_outgoing(client_call_details, self._identity, is_stream=True), request)


def _name(details: grpc.aio.ClientCallDetails) -> str:
    method = details.method
    return (method.decode() if isinstance(method, bytes) else str(method)).lstrip("/")
