"""Callbacks of providers, passed untouched to the domain that owns the connection.

The domain checks the signature, so nothing of the request may be changed on the way. The gateway knows no provider
and no domain: it asks connections whose the connection is, and calls kente.<domain>.v1.WebhookService by descriptor.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.contracts import Rpc
from gateway.incoming import deadline_of, headers_of, read_body
from gateway.problems import Refusal, problem_response
from gateway.remembered import Remembered
from gateway.settings import GatewaySettings
from gateway.upstream import Deadline, Upstream
from mesh.errors import Problem, Reason
from mesh.settings import MeshSettings

_LOCATE_SECONDS = 5.0
_STATUSES = range(200, 600)
_UNKNOWN = "no connection has this callback address"


class WebhookHandler:
    """Handles /webhooks/{provider}/{connection_id}."""

    def __init__(
        self,
        locate: Rpc,
        rpcs: Iterable[Rpc],
        upstream: Upstream,
        settings: GatewaySettings,
        mesh_settings: MeshSettings,
    ) -> None:
        self._locate = locate
        self._receivers = {
            rpc.domain: rpc for rpc in rpcs if rpc.service.endswith(".WebhookService") and rpc.name == "ReceiveWebhook"
        }
        self._upstream = upstream
        self._settings = settings
        self._default_seconds = mesh_settings.default_deadline_seconds
        refusals = [Reason.RESOURCE_NOT_FOUND, Reason.FIELD_INVALID]
        self._locations: Remembered[tuple[str, str, str]] = Remembered(refusals, settings.refusal_cache_seconds)

    async def __call__(self, request: Request) -> Response:
        """Answers one callback as the domain says."""
        try:
            return await self._answer(request)
        except (Problem, Refusal) as error:
            return problem_response(error)

    async def _answer(self, request: Request) -> Response:
        headers = headers_of(request)
        # A provider's own deadline is unknown; a header of ours that it happens to send is obeyed.
        deadline = deadline_of(headers, self._default_seconds, self._settings.max_timeout_seconds)
        body = await read_body(request, headers, self._settings.body_max_bytes, deadline)
        provider: str = request.path_params["provider"]
        connection_id: str = request.path_params["connection_id"]
        tenant_id, owner, domain = await self._location(connection_id)
        receiver = self._receivers.get(domain)
        if owner != provider or receiver is None:
            raise Problem(Reason.RESOURCE_NOT_FOUND, _UNKNOWN)
        fields = {
            "provider": provider,
            "connection_id": connection_id,
            "headers": headers,
            "body": body,
            "query": request.scope["query_string"].decode("latin-1"),
            "http_method": request.method,
        }
        answer: Any = await self._upstream.call_own(receiver, fields, deadline, tenant_id=tenant_id)
        if answer.http_status not in _STATUSES:
            raise Problem(Reason.INTERNAL)
        answer_headers = {"cache-control": "no-store"}
        if answer.content_type:
            answer_headers["content-type"] = answer.content_type
        return Response(answer.body, answer.http_status, answer_headers)

    async def _location(self, connection_id: str) -> tuple[str, str, str]:
        """Tenant, provider and domain of a connection."""
        try:
            return await self._locations.get(connection_id, lambda: self._ask(connection_id))
        except Problem as problem:
            if problem.reason in (Reason.RESOURCE_NOT_FOUND, Reason.FIELD_INVALID):
                # What is no id at all is as unknown as an id that does not exist.
                raise Problem(Reason.RESOURCE_NOT_FOUND, _UNKNOWN) from None
            raise

    async def _ask(self, connection_id: str) -> tuple[tuple[str, str, str], float]:
        deadline = Deadline.after(_LOCATE_SECONDS)
        answer: Any = await self._upstream.call_own(self._locate, {"connection_id": connection_id}, deadline)
        return (answer.tenant_id, answer.provider, answer.domain), self._settings.location_cache_seconds
