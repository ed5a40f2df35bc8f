"""Who calls: a client by an access token, a service by its own."""

from __future__ import annotations

from kente.options.v1.options_pb2 import Audience

from mesh.errors import Problem, Reason
from mesh.interceptors.chain import Answer, Exchange, Proceed
from mesh.tokens import TrustBundle

_SCHEME = "bearer "


class Authentication:
    """Verifies the token of a call against the trust bundle."""

    def __init__(self, bundle: TrustBundle) -> None:
        self._bundle = bundle

    async def __call__(self, exchange: Exchange, proceed: Proceed) -> Answer:
        """Sets the principal and the tenant of the call."""
        if exchange.method.policy.audience == Audience.AUDIENCE_ANONYMOUS:
            return await proceed(exchange)
        header = exchange.metadata.get("authorization", "")
        if not header:
            raise Problem(Reason.CREDENTIALS_MISSING)
        if not header.lower().startswith(_SCHEME):
            raise Problem(Reason.CREDENTIALS_INVALID, "the authorization header must be `Bearer <token>`")
        principal = self._bundle.verify(header[len(_SCHEME) :].strip())
        exchange.call.principal = principal
        exchange.call.tenant_id = principal.tenant_id
        return await proceed(exchange)
