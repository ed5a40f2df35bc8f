"""Who changed what, and who read what is secret: one row a call, never changed again."""

from __future__ import annotations

import asyncio
import json

import structlog
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from kente.options.v1.options_pb2 import Audit

from mesh.database import DATABASE_ERRORS, Database
from mesh.errors import Problem, Reason
from mesh.interceptors.chain import Answer, Exchange, Proceed
from mesh.outages import is_outage
from mesh.redaction import mask_text
from mesh.telemetry import current_trace_id

log = structlog.get_logger()


class AuditLog:
    """Writes the audit log of a service."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def __call__(self, exchange: Exchange, proceed: Proceed) -> Answer:
        """Writes a row for a call that the method option wants audited, however it ended."""
        if exchange.method.policy.audit == Audit.AUDIT_NONE:
            return await proceed(exchange)
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
        call = exchange.call
        resources = resource_ids(exchange.request) | (resource_ids(answer) if answer is not None else {})
        async with self._database.transaction(call.tenant_id) as connection:
            await connection.execute(
                "INSERT INTO audit_log (tenant_id, subject, method, request_id, resources, outcome, trace_id)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7)",
                call.tenant_id,
                call.principal.subject if call.principal else "anonymous",
                call.method,
                call.request_id,
                json.dumps(resources),
                outcome,
                current_trace_id(),
            )


def _outcome(error: BaseException) -> str:
    if isinstance(error, Problem):
        return error.reason_name
    if isinstance(error, asyncio.CancelledError):
        return Reason.CALL_CANCELED.name
    return Reason.SERVICE_UNAVAILABLE.name if is_outage(error) else Reason.INTERNAL.name


def resource_ids(message: Message, depth: int = 1) -> dict[str, str]:
    """The ids in a message and, one level down, in its resource: fields named ..._id that are not personal."""
    found: dict[str, str] = {}
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:
            if field.name.endswith("_id") and field.name != "request_id" and not field.GetOptions().debug_redact:
                # Ids that callers choose may be anything, even a phone number.
                found[field.name] = mask_text(str(value))
        elif isinstance(value, Message) and depth > 0:
            found |= resource_ids(value, depth - 1)
    return found
