"""Runs the concerns around a handler.

gRPC's own interceptors see four shapes of handlers; here every RPC of ours, unary or server-streaming, becomes one
coroutine from a request to an answer, so that each concern is one function. What a concern need not do for a method is
found out once, not in each call.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
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
    """One RPC under way. `call` is filled in by the concerns in their order.

    Attributes:
        sent: the request as its caller sent it.
    """

    method: Method
    request: Message
    sent: bytes
    context: ServicerContext
    metadata: Mapping[str, str]
    call: Call


Proceed = Callable[[Exchange], Awaitable[Answer]]


class Concern(Protocol):
    """One concern: does its part, and calls `proceed` for the rest, or refuses by a Problem.

    One with a method `applies_to(method: Method) -> bool` is left out where that says no.
    """

    async def __call__(self, exchange: Exchange, proceed: Proceed) -> Answer: ...


def serialize(answer: Answer) -> bytes:
    """The bytes of an answer; the same message always gives the same bytes."""
    if isinstance(answer, bytes):
        return answer
    return b"" if answer is None else answer.SerializeToString(deterministic=True)


class ConcernChain(grpc.GenericRpcHandler):
    """The handlers of a server, with the concerns around those of our own services.

    Generated code adds to it as to a server: `add_LedgerServiceServicer_to_server(servicer, chain)`. Health and
    reflection pass as they are.
    """

    def __init__(self, concerns: Sequence[Concern], methods: Mapping[str, Method]) -> None:
        self._concerns = concerns
        self._methods = methods
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Takes the handlers of one service.

        They are not registered with gRPC: its asyncio server waits for each registered method by itself, and with each
        call looks at all of them again.
        """
        for name, handler in method_handlers.items():
            full_name = f"/{service_name}/{name}"
            method = self._methods.get(full_name)
            self._handlers[full_name] = handler if method is None else self._wrap(method, handler)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: object) -> None:
        """Does nothing: generated code adds each handler in both ways."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of a call, if there is one."""
        return self._handlers.get(handler_call_details.method)

    def _wrap(self, method: Method, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        if method.is_streaming:
            run = self._composed(method, _stream_handler(handler.unary_stream))
        else:
            run = self._composed(method, _unary_handler(handler.unary_unary))
        parse = handler.request_deserializer or bytes
        has_request_id = "request_id" in method.descriptor.input_type.fields_by_name

        async def handle(received: tuple[bytes, Any], context: ServicerContext) -> Answer:
            sent, request = received
            metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
            call = Call(method=method.full_name, request_id=request.request_id if has_request_id else "")
            return await run(Exchange(method, request, sent, context, metadata, call))

        make = grpc.unary_stream_rpc_method_handler if method.is_streaming else grpc.unary_unary_rpc_method_handler
        return make(
            handle,
            request_deserializer=lambda sent: (sent, parse(sent)),
            response_serializer=serialize,
        )

    def _composed(self, method: Method, handler: Proceed) -> Proceed:
        proceed = handler
        for concern in reversed(self._concerns):
            applies_to: Callable[[Method], bool] | None = getattr(concern, "applies_to", None)
            if applies_to is None or applies_to(method):
                proceed = partial(concern, proceed=proceed)
        return proceed


def _unary_handler(behaviour: Any) -> Proceed:  # noqa: ANN401 - gRPC's own handlers are typed so
    def run(exchange: Exchange) -> Awaitable[Answer]:
        return cast("Awaitable[Answer]", behaviour(exchange.request, exchange.context))

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
