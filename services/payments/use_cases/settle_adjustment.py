"""What becomes of a capture or a cancellation, and the job that each has until it is settled."""

from __future__ import annotations

from mesh.clock import utc_now
from mesh.database import Connection
from services.payments.model import Adjustment, AdjustmentKind, Call, CallState, Failure, Fault, Payment, PaymentState
from services.payments.provider import FailureCode, Outcome, OutcomeState
from services.payments.repository.adjustments import get_adjustment, save_adjustment
from services.payments.repository.payments import get_payment
from services.payments.use_cases.apply_outcome import (
    UNAVAILABLE,
    Answer,
    NoAnswer,
    apply_answer,
    refusal_of,
    unanswered,
)
from services.payments.use_cases.desk import Desk
from services.payments.use_cases.drive_payment import settle_payment
from services.payments.use_cases.instruct import find_attempt, send_adjustment
from services.payments.use_cases.pace import is_absence_proven, is_being_sent, is_wanted, pause_seconds

_DONE = {AdjustmentKind.CAPTURE: PaymentState.SUCCEEDED, AdjustmentKind.CANCEL: PaymentState.CANCELED}
# Answers to a capture or a cancellation that settle the charge itself.
_SETTLING = {
    AdjustmentKind.CAPTURE: {OutcomeState.SUCCEEDED},
    AdjustmentKind.CANCEL: {OutcomeState.CANCELED, OutcomeState.EXPIRED},
}
_REFUSALS = {OutcomeState.FAILED, OutcomeState.CANCELED, OutcomeState.EXPIRED}
_HOPELESS = {Fault.CREDENTIALS_REFUSED, Fault.CONNECTION_GONE}
_OVERTAKEN = Failure(FailureCode.REQUEST_REJECTED, "The payment ended in another way meanwhile.")


async def settle_adjustment(desk: Desk, adjustment: Adjustment, answer: Answer) -> Adjustment:
    """Writes down what the provider answered to a capture or a cancellation."""
    async with desk.database.transaction(adjustment.tenant_id) as connection:
        payment = await get_payment(connection, adjustment.payment_id, lock=True)
        before = await get_adjustment(connection, adjustment.adjustment_id)
        if not before.call.live:
            return before
        now = utc_now()
        if isinstance(answer, NoAnswer):
            call = unanswered(before.call, answer)
            if call.state is CallState.NOT_SENT and call.fault in _HOPELESS:
                call = _given_up(call)
        else:
            settling = answer.state in _SETTLING[before.kind]
            after, anomaly = apply_answer(payment, before.attempt_id, answer, now) if settling else (payment, None)
            # That the payment has ended is no proof: something else may have ended it meanwhile.
            is_settled, is_refused = settling and after.ended, answer.state in _REFUSALS
            call = _call_after(before.call, answer, settled=is_settled, refused=is_refused)
            written = await desk.write_payment(connection, payment, after)
            if anomaly is not None and await desk.keep_anomaly(
                connection, written, before.adjustment_id, anomaly, answer
            ):
                await desk.payment_event(connection, written, "anomaly_detected")
            payment = written
        return await _write(desk, connection, before, before.with_call(call, now), payment)


def _call_after(call: Call, outcome: Outcome, *, settled: bool, refused: bool) -> Call:
    if settled:
        return call.moved(CallState.SUCCEEDED, reference=outcome.reference)
    if refused:
        return call.moved(CallState.FAILED, reference=outcome.reference, failure=refusal_of(outcome))
    return call.moved(CallState.PENDING, reference=outcome.reference)


async def _write(
    desk: Desk, connection: Connection, before: Adjustment, after: Adjustment, payment: Payment
) -> Adjustment:
    """Writes an adjustment whose payment is locked; a capture that did not happen frees what it had set aside."""
    if after.call == before.call:
        return before
    await save_adjustment(connection, after)
    if after.call.state is CallState.FAILED:
        if after.kind is AdjustmentKind.CAPTURE and not payment.ended:
            payment = await desk.write_payment(connection, payment, payment.without_capture())
        await desk.payment_event(connection, payment, f"{after.kind.lower()}_failed")
    return after


async def resolve_adjustment(desk: Desk, tenant_id: str, adjustment_id: str) -> float | None:
    """Takes one step towards the end of a capture or a cancellation. The current call must be the tenant's.

    Returns:
        Seconds until the next step is due; None when it is settled.
    """
    async with desk.database.transaction(tenant_id) as connection:
        adjustment = await get_adjustment(connection, adjustment_id)
        payment = await get_payment(connection, adjustment.payment_id)
    call = adjustment.call
    asked_to_wait_seconds = 0.0
    if call.state in (CallState.SUCCEEDED, CallState.FAILED):
        if call.state is CallState.FAILED and not payment.ended:
            # Refused: the charge may not be what we think, so that is asked once.
            await _ask_charge(desk, payment, adjustment)
        return None
    if payment.ended:
        await _close(desk, adjustment)
        return None
    if call.state is CallState.NOT_SENT:
        await _send_again_or_give_up(desk, payment, adjustment)
    elif not is_being_sent(desk.settings, call, utc_now()):
        if call.state is CallState.STARTED:
            adjustment = await settle_adjustment(desk, adjustment, NoAnswer(Fault.NO_ANSWER, sent=True))
        payment, asked_to_wait_seconds = await _ask_charge(desk, payment, adjustment)
        if payment.ended:
            await _close(desk, adjustment)
            return None
        # The charge is as it was before: the capture or cancellation has not happened, or not yet.
        if asked_to_wait_seconds == 0.0 and is_absence_proven(desk.settings, adjustment.call, utc_now()):
            await _send_again_or_give_up(desk, payment, adjustment)
    since = adjustment.create_time if call.state is CallState.NOT_SENT else call.send_time
    return max(pause_seconds(desk.settings, since, utc_now()), asked_to_wait_seconds)


async def _ask_charge(desk: Desk, payment: Payment, adjustment: Adjustment) -> tuple[Payment, float]:
    answer = await find_attempt(desk, payment, payment.attempt(adjustment.attempt_id))
    if isinstance(answer, NoAnswer):
        # Unknown how long; never zero, which would read as "asked, and unchanged".
        return payment, max(answer.retry_after_seconds, desk.settings.poll_first_seconds)
    if answer.state is OutcomeState.NOT_FOUND:
        return payment, desk.settings.poll_first_seconds
    payment, _ = await settle_payment(desk, payment, adjustment.attempt_id, answer)
    return payment, 0.0


async def _close(desk: Desk, adjustment: Adjustment) -> None:
    """Settles an adjustment by the state that its payment has reached."""
    async with desk.database.transaction(adjustment.tenant_id) as connection:
        payment = await get_payment(connection, adjustment.payment_id, lock=True)
        before = await get_adjustment(connection, adjustment.adjustment_id)
        now = utc_now()
        call = before.call
        if call.state in (CallState.SUCCEEDED, CallState.FAILED):
            return
        if call.state is CallState.NOT_SENT:
            call = call.sent_again(call.send_time)
        if payment.state is _DONE[before.kind]:
            call = call.moved(CallState.SUCCEEDED)
        else:
            call = call.moved(CallState.FAILED, failure=_OVERTAKEN)
        await _write(desk, connection, before, before.with_call(call, now), payment)


async def _send_again_or_give_up(desk: Desk, payment: Payment, adjustment: Adjustment) -> None:
    async with desk.database.transaction(adjustment.tenant_id) as connection:
        locked = await get_payment(connection, adjustment.payment_id, lock=True)
        before = await get_adjustment(connection, adjustment.adjustment_id)
        if before.call != adjustment.call or locked.ended:
            # Somebody else learned more, or sends it again already.
            return
        now = utc_now()
        wanted = is_wanted(desk.settings, before.create_time, now)
        call = before.call.sent_again(now) if wanted else _given_up(before.call)
        adjustment = await _write(desk, connection, before, before.with_call(call, now), locked)
    if wanted:
        answer = await send_adjustment(desk, payment.attempt(adjustment.attempt_id), adjustment)
        await settle_adjustment(desk, adjustment, answer)


def _given_up(call: Call) -> Call:
    return call.moved(CallState.FAILED, fault=call.fault, failure=UNAVAILABLE)
