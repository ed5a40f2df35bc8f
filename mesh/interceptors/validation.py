"""The rules of the contract (buf.validate), enforced once for every RPC."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

import protovalidate
from google.protobuf.message import Message
from protovalidate import Violation as RuleViolation

from mesh.errors import Problem, Reason, Violation
from mesh.interceptors.chain import Answer, Exchange, Proceed

# From here on a request takes longer to check than a thread takes to be woken.
_LARGE_BYTES = 16 * 1024


async def validation(exchange: Exchange, proceed: Proceed) -> Answer:
    """Refuses a request that breaks a rule, naming every field that does."""
    if len(exchange.sent) > _LARGE_BYTES:
        # The library lets go of the interpreter meanwhile, so other calls go on, on another processor if there is one.
        violations = await asyncio.to_thread(protovalidate.collect_violations, exchange.request)
    else:
        violations = protovalidate.collect_violations(exchange.request)
    found = [_violation(violation) for violation in violations]
    # A string that holds one comes with a zero byte. Most requests hold none at all.
    if b"\0" in exchange.sent:
        found.extend(_nul_characters(exchange.request))
    if found:
        raise Problem(Reason.FIELD_INVALID, violations=found)
    return await proceed(exchange)


def _nul_characters(message: Message, path: str = "") -> Iterator[Violation]:
    """Strings that PostgreSQL could not store. The contracts' rules can't say this for all strings at once."""
    for field, value in message.ListFields():
        name = f"{path}{field.name}"
        values = (
            value.items() if isinstance(value, Mapping) else enumerate(value) if field.is_repeated else [("", value)]
        )
        for key, element in values:
            subscript = f"[{key!r}]" if field.is_repeated else ""
            if isinstance(element, Message):
                yield from _nul_characters(element, f"{name}{subscript}.")
            elif "\0" in f"{key}" or (isinstance(element, str) and "\0" in element):
                yield Violation(name, "holds a NUL character: leave it out")


def _violation(violation: RuleViolation) -> Violation:
    path = ""
    for element in violation.proto.field.elements if violation.proto.field else ():
        path += f".{element.field_name}" if path else element.field_name
        subscript = element.subscript
        if subscript is not None:
            path += f"[{subscript.value}]"
    return Violation(path, violation.proto.message or violation.proto.rule_id)
