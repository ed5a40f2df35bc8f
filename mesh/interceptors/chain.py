"""Runs the concerns around a handler.

gRPC's own interceptors see four shapes of handlers; here every RPC of ours, unary or server-streaming, becomes one
coroutine from a request to an answer, so that each concern is one function.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol, cast

import grpc
from google.protobuf.message import Message

from mesh.context import Call
from mesh.policies import Method

ServicerContext = grpc.aio.ServicerContext[Any, Any]
# A stored answer travels as the very bytes that were first given.
Answer = Message | bytes | None


@dataclass(slots=True)
class Exchange:
    """One RPC under way. `call` is filled in by the concerns in their order."""

    method: Method
    request: Message
    context: ServicerContext
    metadata: Mapping[str, str]
    call: Call


Proceed = Callable[[Exchange], Awaitable[Answer]]


class Concern(Protocol):
    """One concern: does its part, and calls `proceed` for the rest, or refuses by a Problem."""

    async def __call__(self, exchange: Exchange, proceed: Proceed) -> Answer: ...


def serialize(answer: Answer) -> bytes:
    """The bytes of an answer; the same message always gives the same bytes."""
    if isinstance(answer, bytes):
        return answer
    return b"" if answer is None else answer.SerializeToString(deterministic=True)


class ConcernChain(grpc.aio.ServerInterceptor):
    """Puts the concerns around every handler of our own services; health and reflection pass as they are."""

    def __init__(self, concerns: Sequence[Concern], methods: Mapping[str, Method]) -> None:
        self._concerns = concerns
        self._methods = methods
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Gives the handler of one call, wrapped."""
        wrapped = self._wrapped.get(handler_call_details.method)
        if wrapped is not None:
            return wrapped
        handler = await continuation(handler_call_details)
        method = self._methods.get(handler_call_details.method)
        if handler is None or method is None:
            return handler
        self._wrapped[method.full_name] = self._wrap(method, handler)
        return self._wrapped[method.full_name]

    def _wrap(self, method: Method, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        if method.is_streaming:
            run = self._composed(_stream_handler(handler.unary_stream))
        else:
            run = self._composed(_unary_handler(handler.unary_unary))

        async def handle(request: Message, context: ServicerContext) -> Answer:
            metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
            call = Call(method=method.full_name, request_id=getattr(request, "request_id", ""))
            return await run(Exchange(method, request, context, metadata, call))

        make = grpc.unary_stream_rpc_method_handler if method.is_streaming else grpc.unary_unary_rpc_method_handler
        return make(
            handle,
            request_deserializer=handler.request_deserializer,
            response_serializer=serialize,
        )

    def _composed(self, handler: Proceed) -> Proceed:
        proceed = handler
        for concern in reversed(self._concerns):
            proceed = _bound(concern, proceed)
        return proceed


def _bound(concern: Concern, proceed: Proceed) -> Proceed:
    async def run(exchange: Exchange) -> Answer:
        return await concern(exchange, proceed)

    return run


def _unary_handler(behaviour: Any) -> Proceed:  # noqa: ANN401 - gRPC's own handlers are typed so
    async def run(exchange: Exchange) -> Answer:
        return cast("Message", await behaviour(exchange.request, exchange.context))

    return run


def _stream_handler(behaviour: Any) -> Proceed:  # noqa: ANN401 - gRPC's own handlers are typed so
    async def run(exchange: Exchange) -> Answer:
        messages: AsyncGenerator[Message, None] = behaviour(exchange.request, exchange.context)
        # Closed here, in the call's own context: a watcher who leaves must not leave a transaction open behind it.
        async with aclosing(messages):
            async for message in messages:
                await exchange.context.write(message)
        return None

    return run
