"""The far end of the wire: the mesh's services as one gRPC server of the test's own, answering as a test says.

The gateway in front of it is the real one; only what stands behind it is replaced. Every RPC of the contracts is
served, by descriptor; one without an answer of the test's gives its response empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_status import rpc_status
from kente.connections.v1.credential_service_pb2 import LocateConnectionResponse
from kente.identity.v1.token_service_pb2 import (
    ExchangeApiKeyResponse,
    GetKeySetResponse,
    IssueTokenResponse,
    JsonWebKey,
)
from kente.ledger.v1.ledger_pb2 import Account
from kente.ledger.v1.ledger_service_pb2 import GetAccountResponse
from kente.payments.v1.payment_pb2 import Payment
from kente.payments.v1.payment_service_pb2 import (
    CapturePaymentResponse,
    CreatePaymentResponse,
    GetPaymentResponse,
    WatchPaymentResponse,
)
from kente.payments.v1.webhook_service_pb2 import ReceiveWebhookResponse

from gateway.contracts import Rpc, load_rpcs
from mesh.errors import Problem, Reason

TENANT_ID = "ten_" + "7" * 26
CONNECTION_ID = "con_" + "1" * 26
PAYMENT_ID = "pay_" + "0" * 26
API_KEY = "kente_test_0123456789abcdef"
ACCESS_TOKEN = "key.access.token"

Context = grpc.aio.ServicerContext[Any, Any]
Update = int | Problem | None


@dataclass(frozen=True, slots=True)
class Seen:
    """One call as it arrived."""

    method: str
    request: Any
    metadata: dict[str, str]
    seconds_left: float


@dataclass
class FarEnd:
    """What arrived, and how to answer. Methods are named without their service.

    Attributes:
        seen: every call, in order.
        problems: raised instead of an answer.
        codes: bare gRPC codes, as the gRPC library itself would answer.
        gates: events that a call waits for before it answers.
        known_keys: API keys, with the token for each and its lifetime in seconds.
        updates: what WatchPayment sends: states, problems, or None for the end.
        watch_ended: set when a WatchPayment call ended or was canceled.
        answers: what other calls are answered with.
    """

    seen: list[Seen] = field(default_factory=list)
    problems: dict[str, Problem] = field(default_factory=dict)
    codes: dict[str, grpc.StatusCode] = field(default_factory=dict)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    known_keys: dict[str, tuple[str, int]] = field(default_factory=lambda: {API_KEY: (ACCESS_TOKEN, 300)})
    updates: asyncio.Queue[Update] = field(default_factory=asyncio.Queue)
    watch_ended: asyncio.Event = field(default_factory=asyncio.Event)
    answers: dict[str, Callable[[Any], Message]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        key = JsonWebKey(kty="OKP", crv="Ed25519", kid="identity-1")
        taken = ReceiveWebhookResponse(http_status=202, body=b'{"taken":true}', content_type="application/json")
        located = LocateConnectionResponse(tenant_id=TENANT_ID, provider="mtn_momo", domain="payments")
        token = IssueTokenResponse(access_token="a.b.c", token_type="Bearer", expires_in=300)
        self.answers |= {
            "CreatePayment": lambda request: CreatePaymentResponse(payment=_created(request)),
            "CapturePayment": lambda r: CapturePaymentResponse(payment=Payment(payment_id=r.payment_id)),
            "GetPayment": lambda request: GetPaymentResponse(payment=Payment(payment_id=request.payment_id)),
            "GetAccount": lambda request: GetAccountResponse(account=Account(account_name=request.account_name)),
            "ReceiveWebhook": lambda _: taken,
            "ExchangeApiKey": self._exchange,
            "LocateConnection": lambda request: located if request.connection_id == CONNECTION_ID else _unknown(),
            "IssueToken": lambda _: token,
            "GetKeySet": lambda _: GetKeySetResponse(keys=[key]),
        }

    def calls(self, method: str) -> list[Seen]:
        """The calls of one method."""
        return [seen for seen in self.seen if seen.method == method]

    def last(self, method: str) -> Seen:
        """The last call of one method."""
        return self.calls(method)[-1]

    async def answer(self, rpc: Rpc, request: Any, context: Context) -> Message:
        """Answers a call."""
        await self._take(rpc.name, request, context)
        make = self.answers.get(rpc.name, lambda _: GetMessageClass(rpc.response)())
        try:
            return make(request)
        except Problem as problem:
            await _refuse(context, problem)
            raise

    async def stream(self, rpc: Rpc, request: Any, context: Context) -> AsyncIterator[Message]:
        """Answers a call with the updates, as they are put into the queue."""
        try:
            await self._take(rpc.name, request, context)
            while (update := await self.updates.get()) is not None:
                if isinstance(update, Problem):
                    await _refuse(context, update)
                else:
                    state = Payment.State.ValueType(update)
                    yield WatchPaymentResponse(payment=Payment(payment_id=request.payment_id, state=state))
        finally:
            self.watch_ended.set()

    async def _take(self, method: str, request: Any, context: Context) -> None:
        metadata = {str(key): str(value) for key, value in context.invocation_metadata() or ()}
        self.seen.append(Seen(method, request, metadata, float(context.time_remaining() or 0.0)))
        if method in self.gates:
            await self.gates[method].wait()
        if method in self.codes:
            await context.abort(self.codes[method], "the library's own words, with 10.1.2.3:7401 in them")
        if method in self.problems:
            await _refuse(context, self.problems[method])

    def _exchange(self, request: Any) -> Message:
        if request.api_key not in self.known_keys:
            raise Problem(Reason.CREDENTIALS_INVALID, "the API key is not valid")
        token, lifetime_seconds = self.known_keys[request.api_key]
        return ExchangeApiKeyResponse(access_token=token, expires_in_seconds=lifetime_seconds)


@dataclass
class Served:
    """The far end that a server answers for at the moment: a new one for every test."""

    far_end: FarEnd


class _EveryRpc(grpc.GenericRpcHandler):
    """Serves every RPC of the contracts."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._rpcs = {rpc.path: rpc for rpc in load_rpcs()}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of one method."""
        rpc = self._rpcs.get(str(handler_call_details.method))
        if rpc is None:
            return None
        read: Any = GetMessageClass(rpc.request).FromString
        write: Any = GetMessageClass(rpc.response).SerializeToString
        if rpc.server_streaming:

            async def stream(request: Any, context: Any) -> AsyncIterator[Message]:
                async for message in self._served.far_end.stream(rpc, request, context):
                    yield message

            streaming: Any = stream
            return grpc.unary_stream_rpc_method_handler(streaming, read, write)

        async def answer(request: Any, context: Any) -> Message:
            return await self._served.far_end.answer(rpc, request, context)

        unary: Any = answer
        return grpc.unary_unary_rpc_method_handler(unary, read, write)


async def start(served: Served, port: int = 0) -> tuple[grpc.aio.Server, int]:
    """Starts the server on a port, or on a free one."""
    server = grpc.aio.server(handlers=[_EveryRpc(served)])
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    await health.set("", health_pb2.HealthCheckResponse.SERVING)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    return server, bound


async def _refuse(context: Context, problem: Problem) -> None:
    status: Any = rpc_status.to_status(problem.to_status())
    await context.abort_with_status(status)


def _unknown() -> Message:
    raise Problem(Reason.RESOURCE_NOT_FOUND, "no such connection")


def _created(request: Any) -> Payment:
    return Payment(
        payment_id=PAYMENT_ID,
        state=Payment.STATE_PROCESSING,
        amount=request.amount,
        method=request.method,
        description=request.description,
        version=2**53 + 1,
    )
