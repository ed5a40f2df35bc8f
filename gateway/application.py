"""The gateway as an ASGI application: everything is built here, once, from the contracts and the settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Endpoint
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.auth import Authenticator
from gateway.calls import CallHandler
from gateway.contracts import load_comments, load_files, load_rpcs
from gateway.docs import DocumentHandlers
from gateway.health import HealthHandlers
from gateway.observe import Metrics, Observed
from gateway.openapi import openapi_document
from gateway.problems import problem_response, refuse
from gateway.routes import RouteTable
from gateway.settings import GatewaySettings
from gateway.transcode import Transcoder
from gateway.upstream import Upstream
from gateway.webhooks import WebhookHandler
from mesh.errors import Reason
from mesh.settings import MeshSettings
from mesh.tokens import Identity

# The two RPCs that the gateway calls for itself, beside every domain's WebhookService.
EXCHANGE_API_KEY = "kente.identity.v1.TokenService.ExchangeApiKey"
LOCATE_CONNECTION = "kente.connections.v1.CredentialService.LocateConnection"

Handler = Callable[[Request], Awaitable[Response]]


@dataclass
class Gateway:
    """The application and what ends it.

    Attributes:
        app: the ASGI application.
        stopping: set when the process is asked to stop; open streams then end.
    """

    app: ASGIApp
    stopping: asyncio.Event = field(default_factory=asyncio.Event)


def build(settings: GatewaySettings, mesh_settings: MeshSettings, identity: Identity | None) -> Gateway:
    """Builds the gateway. Channels are opened inside the running event loop and closed at the end of its lifespan.

    Args:
        settings: the gateway's own.
        mesh_settings: those of every process.
        identity: key for the gateway's own calls; without one they are anonymous, which services refuse.

    Raises:
        ValueError: two RPCs have the same route, or a rule can't be served.
    """
    rpcs = load_rpcs()
    named = {rpc.full_name: rpc for rpc in rpcs}
    stopping, metrics = asyncio.Event(), Metrics()
    routes, transcoder = RouteTable(rpcs), Transcoder(load_files())
    upstream = Upstream((rpc.domain for rpc in rpcs), mesh_settings, identity)
    calls = CallHandler(
        routes=routes,
        transcoder=transcoder,
        upstream=upstream,
        authenticator=Authenticator(named[EXCHANGE_API_KEY], upstream, settings, mesh_settings),
        settings=settings,
        mesh_settings=mesh_settings,
        stopping=stopping,
    )
    webhooks = WebhookHandler(named[LOCATE_CONNECTION], rpcs, upstream, settings, mesh_settings)
    health = HealthHandlers(upstream, metrics, stopping, settings.ready_timeout_seconds)
    documents = DocumentHandlers(openapi_document(routes.routes, load_comments(), mesh_settings.public_url))
    endpoints = [
        _endpoint("/healthz", health.healthz, "GET"),
        _endpoint("/readyz", health.readyz, "GET"),
        _endpoint("/metrics", health.metrics, "GET"),
        _endpoint("/openapi.json", documents.openapi, "GET"),
        _endpoint("/docs", documents.page, "GET"),
        _endpoint("/webhooks/{provider}/{connection_id}", webhooks, "POST", "PUT"),
    ]

    @asynccontextmanager
    async def lifespan(_app: object) -> AsyncIterator[None]:
        yield
        await upstream.close()

    # Starlette's own application would answer a fault with a bare text before our guard sees it.
    router = Router(endpoints, redirect_slashes=False, default=_Handled(calls), lifespan=lifespan)
    return Gateway(Observed(router, metrics), stopping)


def _endpoint(path: str, handler: Handler, *verbs: str) -> Endpoint:
    """A fixed address. It takes every verb, so that a wrong one is answered with a problem and not with a bare text."""

    async def answer(request: Request) -> Response:
        request.scope["kente.route"] = path
        if request.method in verbs or (request.method == "HEAD" and "GET" in verbs):
            return await handler(request)
        allow = ", ".join(verbs)
        return problem_response(refuse(405, Reason.METHOD_UNKNOWN, f"this address takes {allow}", {"allow": allow}))

    return Endpoint(path, _Handled(answer))


class _Handled:
    """A handler as an ASGI application. Starlette would limit a plain function to GET."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request; a web socket is refused."""
        if scope["type"] == "http":
            response = await self._handler(Request(scope, receive, send))
            await response(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1003})
