"""The services behind the gateway, called by descriptor: bytes in, bytes out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_status import rpc_status

from gateway.contracts import Rpc
from mesh.channel import open_channel
from mesh.errors import Problem, Reason
from mesh.settings import MeshSettings
from mesh.tokens import Identity

# Without serialisers gRPC passes bytes through.
Unary: TypeAlias = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
Streaming: TypeAlias = grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
Stream: TypeAlias = grpc.aio.UnaryStreamCall[bytes, bytes]

Metadata: TypeAlias = list[tuple[str, str]]

# Read by the services' rate limits, which believe it from the gateway only.
CLIENT_ADDRESS = "kente-client-address"


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment at which the caller gives up, on the monotonic clock."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline so many seconds from now."""
        return cls(time.monotonic() + seconds)

    def remaining_seconds(self) -> float:
        """How long the caller still waits.

        Raises:
            Problem: DEADLINE_PASSED.
        """
        remaining = self.at - time.monotonic()
        if remaining <= 0:
            raise Problem(Reason.DEADLINE_PASSED, "the deadline passed before the call was made")
        return remaining


class Upstream:
    """Channels to the services, one each.

    A partner's call carries the partner's own access token; a call of the gateway's own carries its service token.
    """

    def __init__(self, domains: Iterable[str], settings: MeshSettings, identity: Identity | None) -> None:
        self._identity = identity
        # One channel for both kinds of call: each brings its own token, so the channel adds none.
        self._channels = {domain: open_channel(domain, settings, None) for domain in sorted(set(domains))}

    @property
    def domains(self) -> list[str]:
        """The domains that have a channel, by name."""
        return list(self._channels)

    async def close(self) -> None:
        """Closes all channels, after their calls ended."""
        await asyncio.gather(*(channel.close(grace=1.0) for channel in self._channels.values()))

    def anonymous(self, client_address: str) -> Metadata:
        """Metadata of an anonymous partner's call: it goes in the gateway's name, which says where it came from."""
        return [*self._own(""), (CLIENT_ADDRESS, client_address)] if client_address else self._own("")

    async def call(self, rpc: Rpc, request: bytes, metadata: Metadata, deadline: Deadline) -> bytes:
        """Makes a call.

        Raises:
            Problem: the service's own, or SERVICE_UNAVAILABLE or DEADLINE_PASSED.
        """
        method: Unary = self._channels[rpc.domain].unary_unary(rpc.path)
        try:
            answer: bytes = await method(request, timeout=deadline.remaining_seconds(), metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise problem_of(error, rpc.domain) from None
        return answer

    def stream(self, rpc: Rpc, request: bytes, metadata: Metadata, deadline: Deadline) -> Stream:
        """Opens a stream. Reading from it raises AioRpcError; see problem_of."""
        method: Streaming = self._channels[rpc.domain].unary_stream(rpc.path)
        return method(request, timeout=deadline.remaining_seconds(), metadata=metadata)

    async def call_own(
        self, rpc: Rpc, fields: Mapping[str, object], deadline: Deadline, *, tenant_id: str = ""
    ) -> Message:
        """Makes a call of the gateway's own, with the message classes of the descriptors.

        Args:
            rpc: what to call.
            fields: values of the request's fields.
            deadline: when to give up.
            tenant_id: whom the call acts for; nobody when empty.

        Raises:
            Problem: as for `call`.
        """
        request = GetMessageClass(rpc.request)(**fields)
        answer = await self.call(rpc, request.SerializeToString(), self._own(tenant_id), deadline)
        return GetMessageClass(rpc.response).FromString(answer)

    def _own(self, tenant_id: str) -> Metadata:
        return signed(self._identity.service_token(tenant_id)) if self._identity else []

    async def health(self, domain: str, timeout_seconds: float) -> str:
        """Health of a service by grpc.health.v1: "SERVING", another of its states, or "UNREACHABLE"."""
        method: Unary = self._channels[domain].unary_unary("/grpc.health.v1.Health/Check")
        request = health_pb2.HealthCheckRequest().SerializeToString()
        try:
            answer: bytes = await method(request, timeout=timeout_seconds)
        except grpc.aio.AioRpcError:
            return "UNREACHABLE"
        status = health_pb2.HealthCheckResponse.FromString(answer).status
        return health_pb2.HealthCheckResponse.ServingStatus.Name(status)


def signed(token: str) -> Metadata:
    """Metadata of a partner's call, which carries the partner's own access token."""
    return [("authorization", f"Bearer {token}")]


def problem_of(error: grpc.aio.AioRpcError, domain: str) -> Problem:
    """The problem of a failed call. What the gRPC library itself says of addresses is not for partners."""
    problem = Problem.from_rpc_error(error)
    if rpc_status.from_call(error) is None:  # type: ignore[arg-type]  # an AioRpcError has what it reads
        details = {
            grpc.StatusCode.UNAVAILABLE: f"the {domain} service is away",
            grpc.StatusCode.DEADLINE_EXCEEDED: f"the {domain} service did not answer before the deadline",
        }
        detail = details.get(error.code(), "")
        problem = Problem(problem.reason, detail, retry_after_seconds=problem.retry_after_seconds)
    return problem
