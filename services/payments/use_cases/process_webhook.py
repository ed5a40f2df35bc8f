"""What a stored callback says goes the same way as an answer; in doubt the provider is asked."""

from __future__ import annotations

from datetime import timedelta

import structlog

from mesh.clock import utc_now
from services.payments.model import Payment, Refund
from services.payments.provider import Outcome, OutcomeState
from services.payments.repository.payments import get_payment, locate_attempt
from services.payments.repository.refunds import get_refund, locate_refund
from services.payments.repository.webhooks import Webhook, close_webhook, get_webhook
from services.payments.use_cases.apply_outcome import NoAnswer, contradicts, refund_contradicts
from services.payments.use_cases.create_refund import settle_refund
from services.payments.use_cases.desk import Desk
from services.payments.use_cases.instruct import find_attempt, find_refund
from services.payments.use_cases.pace import pause_seconds
from services.payments.use_cases.receive_webhook import WEBHOOKS, outcome_from_json
from services.payments.use_cases.resolve_payment import settle_and_drive

log = structlog.get_logger()


async def process_webhook(desk: Desk, tenant_id: str, webhook_id: str) -> float | None:
    """Applies one stored callback. The current call must be the tenant's.

    Returns:
        Seconds until it is to be tried again; None when it is done with.
    """
    async with desk.database.transaction(tenant_id) as connection:
        webhook = await get_webhook(connection, webhook_id)
        keys = {"attempt_key": webhook.attempt_key, "reference": webhook.reference}
        attempt = await locate_attempt(connection, webhook.connection_id, **keys)
        refund_id = await locate_refund(connection, webhook.connection_id, **keys)
        payment = await get_payment(connection, attempt[0]) if attempt else None
        refund = await get_refund(connection, refund_id) if refund_id else None
    if refund is not None and (webhook.operation == "refund" or payment is None):
        asked_to_wait_seconds = await _apply_to_refund(desk, webhook, refund)
    elif payment is not None and attempt is not None:
        asked_to_wait_seconds = await _apply_to_payment(desk, webhook, payment, attempt[1])
    else:
        return await _wait_for_match(desk, webhook)
    if asked_to_wait_seconds is not None:
        return asked_to_wait_seconds
    async with desk.database.transaction(tenant_id) as connection:
        await close_webhook(connection, webhook_id, matched=True, now=utc_now())
    return None


async def _apply_to_payment(desk: Desk, webhook: Webhook, payment: Payment, attempt_id: str) -> float | None:
    outcome = _outcome_of(webhook)
    if outcome is None or contradicts(payment, attempt_id, outcome):
        answer = await find_attempt(desk, payment, payment.attempt(attempt_id))
        if isinstance(answer, NoAnswer):
            return _pause(desk, webhook, answer)
        outcome = answer
    if outcome.state is not OutcomeState.NOT_FOUND:
        await settle_and_drive(desk, payment, attempt_id, outcome)
    return None


async def _apply_to_refund(desk: Desk, webhook: Webhook, refund: Refund) -> float | None:
    outcome = _outcome_of(webhook)
    if outcome is None or refund_contradicts(refund, outcome):
        answer = await find_refund(desk, refund)
        if isinstance(answer, NoAnswer):
            return _pause(desk, webhook, answer)
        outcome = answer
    if outcome.state is not OutcomeState.NOT_FOUND:
        await settle_refund(desk, refund, outcome)
    return None


def _outcome_of(webhook: Webhook) -> Outcome | None:
    return outcome_from_json(webhook.outcome) if webhook.outcome is not None else None


def _pause(desk: Desk, webhook: Webhook, answer: NoAnswer) -> float:
    return max(pause_seconds(desk.settings, webhook.receive_time, utc_now()), answer.retry_after_seconds)


async def _wait_for_match(desk: Desk, webhook: Webhook) -> float | None:
    """A callback can come before its reference is written down. One that stays unknown is kept for people to see."""
    now = utc_now()
    if now < webhook.receive_time + timedelta(seconds=desk.settings.webhook_match_seconds):
        return pause_seconds(desk.settings, webhook.receive_time, now)
    WEBHOOKS.labels(webhook.provider, "unmatched").inc()
    log.warning("webhook_unmatched", webhook_id=webhook.webhook_id, connection_id=webhook.connection_id)
    async with desk.database.transaction(webhook.tenant_id) as connection:
        await close_webhook(connection, webhook.webhook_id, matched=False, now=now)
    return None
