"""The job that every payment has until it ends: asks the provider, sends what never arrived, tries again.

It is what makes a payment independent of the process that began it, and of callbacks that may never come.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import structlog

from mesh.clock import utc_now
from services.payments.model import Attempt, CallState, Fault, Payment
from services.payments.provider import Outcome, OutcomeState
from services.payments.repository.payments import get_payment
from services.payments.use_cases.apply_outcome import NoAnswer, never_arrived
from services.payments.use_cases.desk import Desk
from services.payments.use_cases.drive_payment import drive_payment, is_retryable, next_step, settle_payment
from services.payments.use_cases.instruct import find_attempt
from services.payments.use_cases.pace import is_absence_proven, is_being_sent, is_late, is_wanted, pause_seconds

log = structlog.get_logger()


async def resolve_payment(desk: Desk, tenant_id: str, payment_id: str) -> float | None:
    """Takes one step towards the end of a payment. The current call must be the tenant's.

    Returns:
        Seconds until the next step is due; None when the payment has ended.
    """
    async with desk.database.transaction(tenant_id) as connection:
        payment = await get_payment(connection, payment_id)
    if payment.ended:
        return None
    attempt = payment.live_attempt
    asked_to_wait_seconds = 0.0
    if attempt is None:
        payment = await _send_again_what_was_not_sent(desk, payment)
    elif not is_being_sent(desk.settings, attempt.call, utc_now()):
        payment, asked_to_wait_seconds = await _ask(desk, payment, attempt)
    if payment.ended:
        return None
    payment = await _report_delay(desk, payment)
    return max(_pause_seconds(desk, payment, utc_now()), asked_to_wait_seconds)


async def _ask(desk: Desk, payment: Payment, attempt: Attempt) -> tuple[Payment, float]:
    if attempt.call.state is CallState.STARTED:
        payment = await _take_over(desk, payment, attempt)
        attempt = payment.attempt(attempt.attempt_id)
    answer = await find_attempt(desk, payment, attempt)
    if isinstance(answer, NoAnswer):
        return payment, answer.retry_after_seconds
    if answer.state is OutcomeState.NOT_FOUND:
        return await _handle_absence(desk, payment, attempt), 0.0
    return await settle_and_drive(desk, payment, attempt.attempt_id, answer), 0.0


async def settle_and_drive(desk: Desk, payment: Payment, attempt_id: str, outcome: Outcome) -> Payment:
    """Writes down what a provider said outside of a sending, and sends over another connection if that follows."""
    payment, started = await settle_payment(desk, payment, attempt_id, outcome)
    return payment if started is None else await drive_payment(desk, payment, started)


async def _take_over(desk: Desk, payment: Payment, attempt: Attempt) -> Payment:
    """Puts an attempt in doubt whose sender is gone, so that a late "not sent" of it proves nothing any more."""
    async with desk.database.transaction(payment.tenant_id) as connection:
        before = await get_payment(connection, payment.payment_id, lock=True)
        call = before.attempt(attempt.attempt_id).call
        if call != attempt.call:
            return before
        doubted = call.moved(CallState.UNKNOWN, fault=Fault.NO_ANSWER)
        return await desk.write_payment(connection, before, before.with_call(attempt.attempt_id, doubted, utc_now()))


async def _handle_absence(desk: Desk, payment: Payment, attempt: Attempt) -> Payment:
    """The provider has no such operation: once that is proof, send it again with its key, or give the payment up."""
    if not is_absence_proven(desk.settings, attempt.call, utc_now()):
        return payment
    async with desk.database.transaction(payment.tenant_id) as connection:
        before = await get_payment(connection, payment.payment_id, lock=True)
        now = utc_now()
        call = before.attempt(attempt.attempt_id).call
        if call != attempt.call:
            # Somebody else learned more, or sends it again already.
            return before
        wanted = is_wanted(desk.settings, before.create_time, now)
        if wanted:
            after = before.with_call(attempt.attempt_id, call.sent_again(now), now)
        else:
            after = never_arrived(before, attempt.attempt_id, now)
        payment = await desk.write_payment(connection, before, after)
    return await drive_payment(desk, payment, attempt.attempt_id) if wanted else payment


async def _send_again_what_was_not_sent(desk: Desk, payment: Payment) -> Payment:
    async with desk.database.transaction(payment.tenant_id) as connection:
        before = await get_payment(connection, payment.payment_id, lock=True)
        now = utc_now()
        after, started = next_step(before, desk.settings, now)
        waiting = [attempt for attempt in after.attempts if is_retryable(attempt)]
        if not after.ended and after.live_attempt is None and waiting:
            # The one that rested longest, so that all have their turn.
            attempt = min(waiting, key=lambda attempt: attempt.call.send_time)
            started = attempt.attempt_id
            after = after.started(replace(attempt, call=attempt.call.sent_again(now)), now)
        payment = await desk.write_payment(connection, before, after)
    return payment if started is None else await drive_payment(desk, payment, started)


async def _report_delay(desk: Desk, payment: Payment) -> Payment:
    attempt = payment.live_attempt
    if attempt is None or attempt.call.delay_reported or payment.waits_for_capture:
        return payment
    if not is_late(desk.settings, payment.create_time, utc_now()):
        return payment
    async with desk.database.transaction(payment.tenant_id) as connection:
        before = await get_payment(connection, payment.payment_id, lock=True)
        call = before.attempt(attempt.attempt_id).call
        if not call.live:
            return before
        reported = before.with_call(attempt.attempt_id, replace(call, delay_reported=True), utc_now())
        payment = await desk.write_payment(connection, before, reported)
        await desk.payment_event(connection, payment, "resolution_delayed")
    log.error("payment_resolution_delayed", payment_id=payment.payment_id, provider=attempt.call.provider)
    return payment


def _pause_seconds(desk: Desk, payment: Payment, now: datetime) -> float:
    if payment.waits_for_capture:
        return desk.settings.poll_rare_seconds
    attempt = payment.live_attempt
    since = payment.create_time if attempt is None else attempt.call.send_time
    return pause_seconds(desk.settings, since, now)
