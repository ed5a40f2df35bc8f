"""ReceiveWebhook: check who sent a callback, keep it, answer; what it says is looked at afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog
from prometheus_client import Counter

from mesh import jobs
from mesh.clock import utc_now
from mesh.context import call_tenant, remaining_seconds
from mesh.errors import Problem, Reason
from mesh.ids import new_id
from mesh.money import Money
from mesh.provider.errors import BadCredentials, ProviderError, WebhookUnverified
from mesh.provider.webhook import IncomingWebhook
from services.payments.provider import (
    FailureCode,
    Outcome,
    OutcomeState,
    ProviderFailure,
    WebhookReport,
    Webhooks,
)
from services.payments.repository.webhooks import Webhook, insert_webhook
from services.payments.use_cases.desk import Desk

log = structlog.get_logger()

WEBHOOKS = Counter("kente_payments_webhooks_total", "Callbacks of providers by result.", ["provider", "result"])


@dataclass(frozen=True, slots=True)
class Callback:
    """A callback and the address it came to."""

    provider: str
    connection_id: str
    webhook: IncomingWebhook = field(repr=False)


async def receive_webhook(desk: Desk, callback: Callback) -> None:
    """Keeps a callback of a proven sender, once; its processing is queued in the same transaction.

    Raises:
        Problem: RESOURCE_NOT_FOUND for an unknown connection or another provider's, WEBHOOK_UNVERIFIED.
    """
    tenant_id, provider = await desk.providers.owner_of(callback.connection_id)
    if provider != callback.provider:
        raise _unknown(callback)
    with call_tenant(tenant_id, method="ReceiveWebhook", timeout_seconds=remaining_seconds()):
        reports = await _verified(desk, tenant_id, callback)
    async with desk.database.transaction(tenant_id) as connection:
        for position, report in enumerate(reports):
            webhook = _webhook(tenant_id, callback, report, position)
            fresh = await insert_webhook(connection, webhook)
            if fresh:
                payload = {"webhook_id": webhook.webhook_id}
                await jobs.enqueue(connection, "process_webhook", payload, tenant_id=tenant_id)
            WEBHOOKS.labels(provider, "accepted" if fresh else "repeated").inc()
    if not reports:
        WEBHOOKS.labels(provider, "irrelevant").inc()


async def _verified(desk: Desk, tenant_id: str, callback: Callback) -> list[WebhookReport]:
    try:
        adapter = await desk.providers.adapter(tenant_id, callback.connection_id)
        if not isinstance(adapter, Webhooks):
            raise _unknown(callback)
        return list(adapter.read_webhook(callback.webhook))
    except WebhookUnverified as error:
        # Only that it happened and why: nothing of what an unproven sender wrote is kept.
        _count_refusal(callback, "unverified", error)
        # The secret may have been changed since we read it.
        desk.providers.forget(tenant_id, callback.connection_id)
        detail = "the callback's sender is not proven"
    except (BadCredentials, LookupError) as error:
        _count_refusal(callback, "unverifiable", error)
        detail = "the callback can't be checked with the credentials of its connection"
    except ProviderError as error:
        _count_refusal(callback, "unreadable", error)
        detail = "the callback is not what the provider documents"
    raise Problem(Reason.WEBHOOK_UNVERIFIED, detail, connection_id=callback.connection_id)


def _count_refusal(callback: Callback, result: str, error: Exception) -> None:
    WEBHOOKS.labels(callback.provider, result).inc()
    log.warning(
        "webhook_refused",
        provider=callback.provider,
        connection_id=callback.connection_id,
        result=result,
        error=str(error),
        body_bytes=len(callback.webhook.body),
    )


def _unknown(callback: Callback) -> Problem:
    detail = f"connection {callback.connection_id} takes no callbacks of {callback.provider}"
    return Problem(Reason.RESOURCE_NOT_FOUND, detail, connection_id=callback.connection_id)


def _webhook(tenant_id: str, callback: Callback, report: WebhookReport, position: int) -> Webhook:
    return Webhook(
        webhook_id=new_id("whk"),
        tenant_id=tenant_id,
        provider=callback.provider,
        connection_id=callback.connection_id,
        event_id=report.event_id,
        position=position,
        operation=report.operation,
        attempt_key=report.attempt_key,
        reference=report.reference,
        outcome=outcome_to_json(report.outcome) if report.outcome else None,
        headers=callback.webhook.headers,
        body=callback.webhook.body,
        receive_time=callback.webhook.receive_time,
    )


def incoming(headers: dict[str, str], body: bytes, query: str, http_method: str) -> IncomingWebhook:
    """A callback that came in just now."""
    now: datetime = utc_now()
    lowered = {name.lower(): value for name, value in headers.items()}
    return IncomingWebhook(headers=lowered, body=body, query=query, http_method=http_method, receive_time=now)


def outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    """An outcome as it is stored."""
    amount, failure = outcome.amount, outcome.failure
    return {
        "state": outcome.state.value,
        "reference": outcome.reference,
        "amount_minor": amount.amount_minor if amount else None,
        "currency": amount.currency if amount else None,
        "failure": [failure.code.value, failure.message, failure.provider_code] if failure else None,
        "redirect_url": outcome.redirect_url,
        "instructions": outcome.instructions,
    }


def outcome_from_json(document: Any) -> Outcome:  # noqa: ANN401 - JSON that outcome_to_json wrote
    """Reads a stored outcome."""
    amount = None
    if document["amount_minor"] is not None:
        amount = Money(document["amount_minor"], document["currency"])
    failure = None
    if document["failure"] is not None:
        code, message, provider_code = document["failure"]
        failure = ProviderFailure(FailureCode(code), message, provider_code)
    return Outcome(
        state=OutcomeState(document["state"]),
        reference=document["reference"],
        amount=amount,
        failure=failure,
        redirect_url=document["redirect_url"],
        instructions=document["instructions"],
    )
