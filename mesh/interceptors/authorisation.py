"""What a caller may do: its scopes and its kind against the method option."""

from __future__ import annotations

from kente.options.v1.options_pb2 import Audience

from mesh.errors import Problem, Reason
from mesh.interceptors.chain import Answer, Exchange, Proceed

_ANONYMOUS = Audience.AUDIENCE_ANONYMOUS
_INTERNAL = Audience.AUDIENCE_INTERNAL


async def authorisation(exchange: Exchange, proceed: Proceed) -> Answer:
    """Refuses a client without the scope, and any client of an internal RPC."""
    policy, principal = exchange.method.policy, exchange.call.principal
    if policy.audience == _ANONYMOUS or (principal and principal.kind == "service"):
        return await proceed(exchange)
    if policy.audience == _INTERNAL:
        raise Problem(Reason.SCOPE_MISSING, "this RPC is only for services of the mesh", scope=policy.permission)
    if principal is None or policy.permission not in principal.scopes:
        raise Problem(Reason.SCOPE_MISSING, f"the scope {policy.permission} is needed", scope=policy.permission)
    return await proceed(exchange)
