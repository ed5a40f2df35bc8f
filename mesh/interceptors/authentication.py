"""Who calls: a client by an access token, a service by its own."""

from __future__ import annotations

from kente.options.v1.options_pb2 import Audience

from mesh.errors import Problem, Reason
from mesh.interceptors.chain import Answer, Exchange, Proceed
from mesh.tokens import Principal, TrustBundle

_ANONYMOUS = Audience.AUDIENCE_ANONYMOUS
_SCHEME = "bearer "


class Authentication:
    """Verifies the token of a call against the trust bundle."""

    def __init__(self, bundle: TrustBundle) -> None:
        self._bundle = bundle

    async def __call__(self, exchange: Exchange, proceed: Proceed) -> Answer:
        """Sets the principal and the tenant of the call."""
        if exchange.method.policy.audience == _ANONYMOUS:
            exchange.call.principal = self._service_or_none(exchange)
            return await proceed(exchange)
        exchange.call.principal = principal = self._verified(exchange)
        exchange.call.tenant_id = principal.tenant_id
        return await proceed(exchange)

    def _service_or_none(self, exchange: Exchange) -> Principal | None:
        # Anyone may call, with or without credentials; but a service of the mesh may say for whom.
        try:
            principal = self._verified(exchange)
        except Problem:
            return None
        return principal if principal.kind == "service" else None

    def _verified(self, exchange: Exchange) -> Principal:
        header = exchange.metadata.get("authorization", "")
        if not header:
            raise Problem(Reason.CREDENTIALS_MISSING)
        if header[: len(_SCHEME)].lower() != _SCHEME:
            raise Problem(Reason.CREDENTIALS_INVALID, "the authorization header must be `Bearer <token>`")
        return self._bundle.verify(header[len(_SCHEME) :].strip())
