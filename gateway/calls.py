"""One request over REST becomes one gRPC call."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from gateway.auth import Authenticator
from gateway.binding import JSON_TYPE, bind, require_request_id
from gateway.contracts import Rpc
from gateway.incoming import deadline_of, headers_of, read_body
from gateway.problems import Refusal, as_refusal, oauth_members, problem_response
from gateway.routes import Match, RouteTable
from gateway.settings import GatewaySettings
from gateway.streams import EventStream, MessageStream
from gateway.transcode import Transcoder
from gateway.upstream import Deadline, Metadata, Upstream, signed
from mesh.errors import Problem, Reason
from mesh.settings import MeshSettings

_PUBLIC_CACHE_SECONDS = 60


class CallHandler:
    """Handles every request that has a route in the contracts."""

    def __init__(
        self,
        *,
        routes: RouteTable,
        transcoder: Transcoder,
        upstream: Upstream,
        authenticator: Authenticator,
        settings: GatewaySettings,
        mesh_settings: MeshSettings,
        stopping: asyncio.Event,
    ) -> None:
        self._routes = routes
        self._transcoder = transcoder
        self._upstream = upstream
        self._authenticator = authenticator
        self._settings = settings
        self._default_seconds = mesh_settings.default_deadline_seconds
        self._stopping = stopping
        for route in routes.routes:
            transcoder.prepare(route.rpc.request, route.rpc.response)

    async def __call__(self, request: Request) -> Response:
        """Answers one request."""
        match: Match | None = None
        try:
            match = self._routes.find(request.method, _raw_path(request))
            request.scope["kente.route"] = match.route.template
            return await self._answer(match, request)
        except (Problem, Refusal) as error:
            if match is not None and "grant_type" in match.route.rpc.request.fields_by_name:
                return _oauth_response(error, request)
            return problem_response(error)

    async def _answer(self, match: Match, request: Request) -> Response:
        rpc, headers = match.route.rpc, headers_of(request)
        longest = self._settings.stream_timeout_seconds if rpc.server_streaming else self._settings.max_timeout_seconds
        usual = longest if rpc.server_streaming else self._default_seconds
        deadline = deadline_of(headers, usual, longest)
        # Credentials come first: a stranger learns nothing of the contract's rules, and costs no parsing.
        metadata = await self._metadata(rpc, request, headers, deadline)
        body = await read_body(request, headers, self._settings.body_max_bytes, deadline)
        value = bind(match, request.scope["query_string"], headers, body)
        data = self._transcoder.encode(rpc.request, value)
        require_request_id(rpc, value)
        try:
            if rpc.server_streaming:
                return await self._stream(match, data, metadata, deadline)
            answer = await self._upstream.call(rpc, data, metadata, deadline)
        except Problem as problem:
            if problem.reason is Reason.CREDENTIALS_INVALID and not rpc.anonymous:
                await self._authenticator.forget(headers)
            raise
        text = self._transcoder.decode(rpc.response, answer, match.route.response_body)
        return Response(text, 200, {"cache-control": _cache_control(rpc)}, JSON_TYPE)

    async def _metadata(self, rpc: Rpc, request: Request, headers: Mapping[str, str], deadline: Deadline) -> Metadata:
        address = request.client.host if request.client else ""
        if rpc.anonymous:
            return self._upstream.anonymous(address)
        return signed(await self._authenticator.access_token(headers, address, deadline))

    async def _stream(self, match: Match, data: bytes, metadata: Metadata, deadline: Deadline) -> Response:
        """Waits for the first message, so that a refusal is an ordinary problem with its own status."""
        rpc, field = match.route.rpc, match.route.response_body
        heartbeat_seconds = self._settings.heartbeat_seconds
        messages = MessageStream(self._upstream.stream(rpc, data, metadata, deadline), rpc.domain)
        first: bytes | None = None
        try:
            first = await messages.next_within(heartbeat_seconds)
        except TimeoutError:
            # The stream was taken and is only silent so far.
            pass
        except BaseException:
            messages.close()
            raise
        return EventStream(
            messages,
            first,
            decode=lambda message: self._transcoder.decode(rpc.response, message, field),
            heartbeat_seconds=heartbeat_seconds,
            stopping=self._stopping,
        )


def _oauth_response(error: Problem | Refusal, request: Request) -> Response:
    """A refused token request, also in the words of RFC 6749, section 5.2."""
    refusal = as_refusal(error)
    scheme = request.headers.get("authorization", "").partition(" ")[0]
    if "www-authenticate" in refusal.headers and scheme.lower() == "basic":
        refusal.headers["www-authenticate"] = 'Basic realm="kente"'
    return problem_response(refusal, oauth_members(refusal.problem))


def _cache_control(rpc: Rpc) -> str:
    """Only what anyone may read is kept by caches, such as public keys."""
    return f"public, max-age={_PUBLIC_CACHE_SECONDS}" if rpc.anonymous and rpc.is_safe else "no-store"


def _raw_path(request: Request) -> str:
    """The path still percent-encoded, as far as the server knows it."""
    raw: bytes | None = request.scope.get("raw_path")
    return raw.decode("latin-1").partition("?")[0] if raw is not None else quote(request.scope["path"])
