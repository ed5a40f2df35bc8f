"""Brings a payment to a provider, and on to the next one when that is proven to be safe.

Every step is: write down what will be done, do it, write down what came of it. A crash between two steps leaves a row
that the job resolve_payment picks up.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from mesh.clock import utc_now
from mesh.errors import Problem, Reason
from mesh.ids import new_id
from services.payments.model import (
    Attempt,
    Call,
    CallState,
    Failure,
    Fault,
    Payment,
    PaymentState,
    RouteCandidate,
)
from services.payments.provider import FailureCode, Outcome
from services.payments.repository.payments import get_payment
from services.payments.settings import PaymentsSettings
from services.payments.use_cases.apply_outcome import UNAVAILABLE, Answer, apply_answer
from services.payments.use_cases.desk import Desk
from services.payments.use_cases.instruct import send_attempt
from services.payments.use_cases.pace import is_wanted

_RETRYABLE = {Fault.UNREACHABLE, Fault.RATE_LIMITED}
_REFUSED = Failure(FailureCode.PROVIDER_UNAVAILABLE, "The payment provider does not serve this merchant at the moment.")


async def drive_payment(desk: Desk, payment: Payment, attempt_id: str) -> Payment:
    """Sends an attempt that was just written as STARTED, and what follows from its answer.

    Returns:
        The payment once a provider has it, or may have it, or nothing more can be done at the moment.
    """
    started: str | None = attempt_id
    while started is not None:
        attempt, alternatives = payment.attempt(started), len(_untried(payment))
        answer = await send_attempt(desk, payment, attempt, alternatives=alternatives)
        payment, started = await settle_payment(desk, payment, started, answer)
    return payment


async def settle_payment(desk: Desk, payment: Payment, attempt_id: str, answer: Answer) -> tuple[Payment, str | None]:
    """Writes down what became known of an attempt.

    Returns:
        The payment as it now stands, and the attempt over another connection that is to be sent next, if any.
    """
    async with desk.database.transaction(payment.tenant_id) as connection:
        before = await get_payment(connection, payment.payment_id, lock=True)
        now = utc_now()
        after, anomaly = apply_answer(before, attempt_id, answer, now)
        after, started = next_step(after, desk.settings, now)
        after = await desk.write_payment(connection, before, after)
        if (
            anomaly is not None
            and isinstance(answer, Outcome)
            and await desk.keep_anomaly(connection, after, attempt_id, anomaly, answer)
        ):
            await desk.payment_event(connection, after, "anomaly_detected")
    return after, started


def next_step(payment: Payment, settings: PaymentsSettings, now: datetime) -> tuple[Payment, str | None]:
    """What follows when no provider has a payment: another connection, a wait for the job, or its end. Pure.

    Returns:
        The payment, and the attempt that is to be sent now, if any.
    """
    if payment.ended or payment.live_attempt is not None:
        return payment, None
    wanted = is_wanted(settings, payment.create_time, now)
    untried = _untried(payment)
    if wanted and untried:
        return _started(payment, untried[0], now)
    if wanted and any(is_retryable(attempt) for attempt in payment.attempts):
        return payment, None
    return payment.ended_without_money(PaymentState.FAILED, _failure(payment)), None


def _untried(payment: Payment) -> list[RouteCandidate]:
    return [
        candidate
        for candidate in payment.route.candidates
        if candidate.eligible and payment.attempt_over(candidate.connection_id) is None
    ]


def is_retryable(attempt: Attempt) -> bool:
    """Whether an attempt that was not sent can be sent later."""
    return attempt.call.state is CallState.NOT_SENT and attempt.call.fault in _RETRYABLE


def _started(payment: Payment, candidate: RouteCandidate, now: datetime) -> tuple[Payment, str]:
    call = Call(
        state=CallState.STARTED,
        provider=candidate.provider,
        connection_id=candidate.connection_id,
        send_time=now,
    )
    attempt = Attempt(attempt_id=new_id("att"), call=call, create_time=now, update_time=now)
    explanation = candidate.explanation
    if payment.attempts:
        explanation = f"{payment.attempts[-1].call.provider} could not do it; {explanation}"
    route = replace(payment.route, explanation=explanation)
    return replace(payment, route=route).started(attempt, now), attempt.attempt_id


def _failure(payment: Payment) -> Failure:
    refused = [attempt.call.failure for attempt in payment.attempts if attempt.call.failure is not None]
    if refused:
        return refused[-1]
    return _REFUSED if _all_refused_us(payment) else UNAVAILABLE


def _all_refused_us(payment: Payment) -> bool:
    return bool(payment.attempts) and all(
        attempt.call.state is CallState.NOT_SENT and attempt.call.fault is Fault.CREDENTIALS_REFUSED
        for attempt in payment.attempts
    )


def raise_if_credentials_refused(payment: Payment) -> None:
    """Tells the caller when a payment failed only because of the tenant's own credentials at the provider.

    The payment is there and FAILED: nothing is left open. A request for it is answered by the problem, so that it is
    seen as something to be put right in the connection, and not as the payer's.

    Raises:
        Problem: CONNECTION_CREDENTIALS_REFUSED.
    """
    if payment.state is PaymentState.FAILED and _all_refused_us(payment):
        last = payment.attempts[-1].call
        raise Problem(
            Reason.CONNECTION_CREDENTIALS_REFUSED,
            f"{last.provider} refuses the credentials of connection {last.connection_id}; the payment failed",
            connection_id=last.connection_id,
            provider=last.provider,
            payment_id=payment.payment_id,
        )
