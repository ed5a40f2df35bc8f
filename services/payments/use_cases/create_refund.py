"""CreateRefund: set the amount aside, then ask the provider; and the job that every refund has until it ends."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

import structlog

from mesh.clock import utc_now
from mesh.database import Connection
from mesh.errors import Problem, Reason
from mesh.ids import new_id
from mesh.money import Money
from services.payments.model import Attempt, Call, CallState, Fault, Payment, Refund
from services.payments.provider import Outcome, OutcomeState
from services.payments.provider import Refund as RefundCapability
from services.payments.repository.payments import get_payment
from services.payments.repository.refunds import find_refund_by_request, get_refund, insert_refund
from services.payments.use_cases.apply_outcome import UNAVAILABLE, Answer, NoAnswer, apply_refund_answer
from services.payments.use_cases.desk import Desk
from services.payments.use_cases.instruct import find_refund, send_refund
from services.payments.use_cases.pace import is_absence_proven, is_being_sent, is_late, is_wanted, pause_seconds

log = structlog.get_logger()

# Trying again would change nothing.
_HOPELESS = {Fault.CREDENTIALS_REFUSED, Fault.CONNECTION_GONE}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRefund:
    """What the caller asks for. All that is left when there is no amount."""

    request_id: str
    request_fingerprint: bytes = field(repr=False)
    payment_id: str
    amount: Money | None
    description: str


async def create_refund(desk: Desk, tenant_id: str, order: NewRefund) -> Refund:
    """Refunds a payment; finds the refund of an earlier run of the same request.

    Raises:
        Problem: RESOURCE_NOT_FOUND, STATE_CONFLICT, REFUND_EXCEEDS_CAPTURE, CAPABILITY_MISSING, REQUEST_ID_REUSED,
            FIELD_INVALID for another currency, CONNECTION_CREDENTIALS_REFUSED.
    """
    async with desk.database.transaction(tenant_id) as connection:
        # The lock makes concurrent refunds of a payment come one after the other, each seeing what is left.
        payment = await get_payment(connection, order.payment_id, lock=True)
        refund = await find_refund_by_request(connection, tenant_id, order.request_id)
        fresh = refund is None
        if refund is None:
            payment, refund = await _written(desk, connection, payment, order)
    if refund.request_fingerprint != order.request_fingerprint:
        detail = f"request_id {order.request_id} was used for another refund"
        raise Problem(Reason.REQUEST_ID_REUSED, detail, request_id=order.request_id)
    if fresh:
        refund = await _send(desk, payment, refund)
    else:
        await resolve_refund(desk, tenant_id, refund.refund_id)
        async with desk.database.transaction(tenant_id) as connection:
            refund = await get_refund(connection, refund.refund_id)
    _raise_if_credentials_refused(refund)
    return refund


async def _written(desk: Desk, connection: Connection, before: Payment, order: NewRefund) -> tuple[Payment, Refund]:
    payment, amount = before.set_aside_refund(order.amount)
    charge = _charge_of(payment)
    adapter = desk.providers.adapter_classes().get(charge.call.provider)
    if adapter is None or not issubclass(adapter, RefundCapability):
        detail = f"{charge.call.provider} can't give money back"
        raise Problem(Reason.CAPABILITY_MISSING, detail, provider=charge.call.provider, capability="Refund")
    now = utc_now()
    created = Refund(
        tenant_id=payment.tenant_id,
        refund_id=new_id("rfd"),
        payment_id=payment.payment_id,
        request_id=order.request_id,
        request_fingerprint=order.request_fingerprint,
        amount=amount,
        description=order.description,
        call=Call(
            state=CallState.STARTED,
            provider=charge.call.provider,
            connection_id=charge.call.connection_id,
            send_time=now,
        ),
        create_time=now,
        update_time=now,
    )
    payment = await desk.write_payment(connection, before, payment)
    await insert_refund(connection, created)
    await desk.refund_event(connection, created, "created")
    # From now on the provider may have it.
    refund = await desk.write_refund(connection, created, created.with_call(created.call, now), payment)
    await desk.watch_over(connection, "resolve_refund", payment.tenant_id, refund_id=refund.refund_id)
    return payment, refund


def _charge_of(payment: Payment) -> Attempt:
    charge = payment.charge
    if charge is None:
        raise LookupError(f"payment {payment.payment_id} succeeded without an attempt")
    return charge


async def _send(desk: Desk, payment: Payment, refund: Refund) -> Refund:
    answer = await send_refund(desk, payment, _charge_of(payment), refund)
    return await settle_refund(desk, refund, answer)


async def settle_refund(desk: Desk, refund: Refund, answer: Answer) -> Refund:
    """Writes down what became known of a refund."""
    async with desk.database.transaction(refund.tenant_id) as connection:
        payment = await get_payment(connection, refund.payment_id, lock=True)
        before = await get_refund(connection, refund.refund_id, lock=True)
        now = utc_now()
        after, anomaly = apply_refund_answer(before, answer, now)
        if after.call.state is CallState.NOT_SENT and after.call.fault in _HOPELESS:
            after = _given_up(after, now)
        after = await desk.write_refund(connection, before, after, payment)
        if (
            anomaly is not None
            and isinstance(answer, Outcome)
            and await desk.keep_anomaly(connection, payment, refund.refund_id, anomaly, answer)
        ):
            await desk.refund_event(connection, after, "anomaly_detected")
    return after


def _given_up(refund: Refund, now: datetime) -> Refund:
    failed = refund.call.moved(CallState.FAILED, fault=refund.call.fault, failure=UNAVAILABLE)
    return refund.with_call(failed, now)


def _raise_if_credentials_refused(refund: Refund) -> None:
    if refund.call.state is CallState.FAILED and refund.call.fault is Fault.CREDENTIALS_REFUSED:
        raise Problem(
            Reason.CONNECTION_CREDENTIALS_REFUSED,
            f"{refund.call.provider} refuses the credentials of connection {refund.call.connection_id};"
            " the refund failed and its amount is free again",
            connection_id=refund.call.connection_id,
            provider=refund.call.provider,
            refund_id=refund.refund_id,
        )


async def resolve_refund(desk: Desk, tenant_id: str, refund_id: str) -> float | None:
    """Takes one step towards the end of a refund. The current call must be the tenant's.

    Returns:
        Seconds until the next step is due; None when the refund has ended.
    """
    async with desk.database.transaction(tenant_id) as connection:
        refund = await get_refund(connection, refund_id)
        payment = await get_payment(connection, refund.payment_id)
    call = refund.call
    asked_to_wait_seconds = 0.0
    if call.state is CallState.NOT_SENT:
        refund = await _send_again_or_give_up(desk, payment, refund)
    elif call.live and not is_being_sent(desk.settings, call, utc_now()):
        if call.state is CallState.STARTED:
            refund = await settle_refund(desk, refund, NoAnswer(Fault.NO_ANSWER, sent=True))
        answer = await find_refund(desk, refund)
        if isinstance(answer, NoAnswer):
            asked_to_wait_seconds = answer.retry_after_seconds
        elif answer.state is not OutcomeState.NOT_FOUND:
            refund = await settle_refund(desk, refund, answer)
        elif is_absence_proven(desk.settings, refund.call, utc_now()):
            refund = await _send_again_or_give_up(desk, payment, refund)
    if not refund.call.live and refund.call.state is not CallState.NOT_SENT:
        return None
    refund = await _report_delay(desk, refund)
    since = refund.create_time if refund.call.state is CallState.NOT_SENT else refund.call.send_time
    return max(pause_seconds(desk.settings, since, utc_now()), asked_to_wait_seconds)


async def _send_again_or_give_up(desk: Desk, payment: Payment, refund: Refund) -> Refund:
    async with desk.database.transaction(refund.tenant_id) as connection:
        locked = await get_payment(connection, refund.payment_id, lock=True)
        before = await get_refund(connection, refund.refund_id, lock=True)
        if before.call != refund.call:
            # Somebody else learned more, or sends it again already.
            return before
        now = utc_now()
        wanted = is_wanted(desk.settings, before.create_time, now)
        after = before.with_call(before.call.sent_again(now), now) if wanted else _given_up(before, now)
        refund = await desk.write_refund(connection, before, after, locked)
    return await _send(desk, payment, refund) if wanted else refund


async def _report_delay(desk: Desk, refund: Refund) -> Refund:
    if refund.call.delay_reported or not is_late(desk.settings, refund.create_time, utc_now()):
        return refund
    async with desk.database.transaction(refund.tenant_id) as connection:
        payment = await get_payment(connection, refund.payment_id, lock=True)
        before = await get_refund(connection, refund.refund_id, lock=True)
        if not before.call.live:
            return before
        reported = before.with_call(replace(before.call, delay_reported=True), utc_now())
        refund = await desk.write_refund(connection, before, reported, payment)
        await desk.refund_event(connection, refund, "resolution_delayed")
    log.error("refund_resolution_delayed", refund_id=refund.refund_id, provider=refund.call.provider)
    return refund
