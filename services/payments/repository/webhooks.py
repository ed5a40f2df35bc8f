"""Callbacks as they came, and anomalies: what providers say beyond their answers to our calls."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mesh.database import Connection
from mesh.errors import Problem, Reason
from mesh.ids import new_id
from mesh.money import Money
from services.payments.model import AnomalyKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """One report of a verified callback.

    Attributes:
        position: which of the callback's reports it is, from 0.
        outcome: what it says, as JSON; None when it proves nothing and the provider must be asked.
        body: raw bytes of the callback, which may hold personal data.
    """

    webhook_id: str
    tenant_id: str
    provider: str
    connection_id: str
    event_id: str
    position: int
    operation: str
    attempt_key: str
    reference: str
    outcome: Mapping[str, Any] | None
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    receive_time: datetime


async def insert_webhook(connection: Connection, webhook: Webhook) -> bool:
    """Remembers a callback; False when it came before."""
    fresh = await connection.fetchval(
        "INSERT INTO webhooks (webhook_id, tenant_id, provider, connection_id, event_id, position, state, operation,"
        " attempt_key, reference, outcome, headers, body, receive_time)"
        " VALUES ($1, $2, $3, $4, $5, $6, 'RECEIVED', $7, $8, $9, $10, $11, $12, $13)"
        " ON CONFLICT (connection_id, event_id, position) DO NOTHING RETURNING true",
        webhook.webhook_id,
        webhook.tenant_id,
        webhook.provider,
        webhook.connection_id,
        webhook.event_id,
        webhook.position,
        webhook.operation,
        webhook.attempt_key,
        webhook.reference,
        json.dumps(webhook.outcome) if webhook.outcome is not None else None,
        json.dumps(dict(webhook.headers)),
        webhook.body,
        webhook.receive_time,
    )
    return bool(fresh)


async def get_webhook(connection: Connection, webhook_id: str) -> Webhook:
    """One stored callback.

    Raises:
        Problem: RESOURCE_NOT_FOUND.
    """
    row = await connection.fetchrow("SELECT * FROM webhooks WHERE webhook_id = $1", webhook_id)
    if row is None:
        raise Problem(Reason.RESOURCE_NOT_FOUND, f"webhook {webhook_id} does not exist", webhook_id=webhook_id)
    return Webhook(
        webhook_id=row["webhook_id"],
        tenant_id=row["tenant_id"],
        provider=row["provider"],
        connection_id=row["connection_id"],
        event_id=row["event_id"],
        position=row["position"],
        operation=row["operation"],
        attempt_key=row["attempt_key"],
        reference=row["reference"],
        outcome=json.loads(row["outcome"]) if row["outcome"] else None,
        headers=json.loads(row["headers"]),
        body=row["body"],
        receive_time=row["receive_time"],
    )


async def close_webhook(connection: Connection, webhook_id: str, *, matched: bool, now: datetime) -> None:
    """Notes that a callback was processed, or that nothing was found that it is about."""
    await connection.execute(
        "UPDATE webhooks SET state = $2, process_time = $3 WHERE webhook_id = $1",
        webhook_id,
        "PROCESSED" if matched else "UNMATCHED",
        now,
    )


async def insert_anomaly(
    connection: Connection,
    *,
    tenant_id: str,
    payment_id: str,
    subject_id: str,
    kind: AnomalyKind,
    reported_state: str,
    reported_amount: Money | None,
    reference: str,
    now: datetime,
) -> bool:
    """Keeps what a provider said that does not fit; False when it said the same before."""
    fresh = await connection.fetchval(
        "INSERT INTO anomalies (anomaly_id, tenant_id, payment_id, subject_id, kind, reported_state,"
        " reported_amount_minor, reported_currency, reference, create_time)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING RETURNING true",
        new_id("ano"),
        tenant_id,
        payment_id,
        subject_id,
        kind,
        reported_state,
        reported_amount.amount_minor if reported_amount else None,
        reported_amount.currency if reported_amount else None,
        reference,
        now,
    )
    return bool(fresh)
