"""The rules of the contract (buf.validate), enforced once for every RPC."""

from __future__ import annotations

import protovalidate
from protovalidate import Violation as RuleViolation

from mesh.errors import Problem, Reason, Violation
from mesh.interceptors.chain import Answer, Exchange, Proceed


async def validation(exchange: Exchange, proceed: Proceed) -> Answer:
    """Refuses a request that breaks a rule, naming every field that does."""
    found = protovalidate.collect_violations(exchange.request)
    if found:
        raise Problem(Reason.FIELD_INVALID, violations=[_violation(violation) for violation in found])
    return await proceed(exchange)


def _violation(violation: RuleViolation) -> Violation:
    path = ""
    for element in violation.proto.field.elements if violation.proto.field else ():
        path += f".{element.field_name}" if path else element.field_name
        subscript = element.subscript
        if subscript is not None:
            path += f"[{subscript.value}]"
    return Violation(path, violation.proto.message or violation.proto.rule_id)
