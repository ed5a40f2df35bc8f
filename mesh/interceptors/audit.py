"""Who changed what, and who read what is secret: one row a call, never changed again.

A service that commits many calls together writes their rows itself, in the transaction of the change
(AUDIT_WITH_CHANGE): `current_row` in the call, what `added` gives in the transaction.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import structlog
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from kente.options.v1.options_pb2 import Audit

from mesh.context import Call, current_call
from mesh.database import DATABASE_ERRORS, Database
from mesh.errors import Problem, Reason
from mesh.interceptors.chain import Answer, Exchange, Proceed
from mesh.outages import is_outage
from mesh.policies import Method
from mesh.redaction import mask_text
from mesh.statements import Statement, execute
from mesh.telemetry import current_trace_id

log = structlog.get_logger()

_ADD = """
    INSERT INTO audit_log (tenant_id, subject, method, request_id, resources, outcome, trace_id)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::jsonb[], $6::text[], $7::text[])
"""
_WRITTEN_HERE = {Audit.AUDIT_WRITE, Audit.AUDIT_SENSITIVE_READ}


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One act.

    Attributes:
        subject: who did it.
        resources: ids of what it was done to, by the names of their fields. Those that callers choose are masked.
        outcome: "OK", or the name of the reason.
    """

    tenant_id: str
    subject: str
    method: str
    request_id: str
    resources: Mapping[str, str]
    outcome: str
    trace_id: str


def current_row(resources: Mapping[str, str], outcome: str = "OK") -> AuditRow:
    """The row of the call being handled."""
    return _row(current_call(), resources, outcome)


def added(rows: Sequence[AuditRow]) -> list[Statement]:
    """What writes rows, to be executed in the current transaction, by itself or with others."""
    if not rows:
        return []
    columns = (
        [row.tenant_id for row in rows],
        [row.subject for row in rows],
        [row.method for row in rows],
        [row.request_id for row in rows],
        [json.dumps(dict(row.resources)) for row in rows],
        [row.outcome for row in rows],
        [row.trace_id for row in rows],
    )
    return [Statement(_ADD, columns)]


def _row(call: Call, resources: Mapping[str, str], outcome: str) -> AuditRow:
    subject = call.principal.subject if call.principal else "anonymous"
    return AuditRow(call.tenant_id, subject, call.method, call.request_id, resources, outcome, current_trace_id())


class AuditLog:
    """Writes the audit log of a service."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def applies_to(self, method: Method) -> bool:
        """Whether calls of the method leave rows that are written here."""
        return method.policy.audit in _WRITTEN_HERE

    async def __call__(self, exchange: Exchange, proceed: Proceed) -> Answer:
        """Writes a row for a call, however it ended."""
        try:
            answer = await proceed(exchange)
        except BaseException as error:
            await asyncio.shield(self._write_quietly(exchange, _outcome(error)))
            raise
        await self._write(exchange, "OK", answer if isinstance(answer, Message) else None)
        return answer

    async def _write_quietly(self, exchange: Exchange, outcome: str) -> None:
        # The database may be what failed. Then the first fault is the one to report.
        try:
            await self._write(exchange, outcome, None)
        except DATABASE_ERRORS as error:
            log.exception("audit_row_lost", outcome=outcome, error=type(error).__name__)

    async def _write(self, exchange: Exchange, outcome: str, answer: Message | None) -> None:
        resources = resource_ids(exchange.request) | (resource_ids(answer) if answer is not None else {})
        async with self._database.transaction(exchange.call.tenant_id) as connection:
            await execute(connection, added([_row(exchange.call, resources, outcome)]))


def _outcome(error: BaseException) -> str:
    if isinstance(error, Problem):
        return error.reason_name
    if isinstance(error, asyncio.CancelledError):
        return Reason.CALL_CANCELED.name
    return Reason.SERVICE_UNAVAILABLE.name if is_outage(error) else Reason.INTERNAL.name


def resource_ids(message: Message, depth: int = 1) -> dict[str, str]:
    """The ids in a message and, one level down, in its resource: fields named ..._id that are not personal."""
    found: dict[str, str] = {}
    for name, is_message in _fields_of(message.DESCRIPTOR):
        if not is_message:
            if value := getattr(message, name):
                # Ids that callers choose may be anything, even a phone number.
                found[name] = mask_text(value)
        elif depth > 0 and message.HasField(name):
            found |= resource_ids(getattr(message, name), depth - 1)
    return found


@cache
def _fields_of(descriptor: Descriptor) -> list[tuple[str, bool]]:
    """The fields of a message type that hold an id, or one message: their names, and whether it is a message."""
    return [
        (field.name, field.message_type is not None)
        for field in descriptor.fields
        if not field.is_repeated and (field.message_type is not None or _holds_id(field))
    ]


def _holds_id(field: FieldDescriptor) -> bool:
    is_id = field.type == FieldDescriptor.TYPE_STRING and field.name.endswith("_id") and field.name != "request_id"
    return is_id and not field.GetOptions().debug_redact
