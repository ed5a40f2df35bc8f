"""CapturePayment and CancelPayment: written before they are sent, with a key of their own, and resolved by asking.

The truth about a capture or a cancellation is the charge at the provider. So whatever the answer, and also when there
is none, the charge is what decides how the payment goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from mesh.clock import utc_now
from mesh.database import Connection
from mesh.errors import Problem, Reason
from mesh.ids import new_id
from mesh.money import Money
from services.payments.model import (
    Adjustment,
    AdjustmentKind,
    Attempt,
    Call,
    CallState,
    Fault,
    Payment,
    PaymentState,
)
from services.payments.provider import CardCharge
from services.payments.repository.adjustments import (
    find_adjustment_by_request,
    find_open_adjustment,
    get_adjustment,
    insert_adjustment,
)
from services.payments.repository.payments import get_payment
from services.payments.use_cases.desk import Desk
from services.payments.use_cases.instruct import send_adjustment
from services.payments.use_cases.settle_adjustment import resolve_adjustment, settle_adjustment

_CANCELABLE = {PaymentState.ACTION_REQUIRED, PaymentState.AUTHORIZED}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAdjustment:
    """What the caller asks for. `amount` is for captures; all that is authorized when None."""

    kind: AdjustmentKind
    request_id: str
    request_fingerprint: bytes = field(repr=False)
    payment_id: str
    amount: Money | None = None


async def adjust_payment(desk: Desk, tenant_id: str, order: NewAdjustment) -> Payment:
    """Captures or cancels a payment; finds what an earlier run of the same request did.

    Raises:
        Problem: RESOURCE_NOT_FOUND, STATE_CONFLICT (also when the provider refuses), CAPTURE_EXCEEDS_AUTHORIZATION,
            CAPABILITY_MISSING, REQUEST_ID_REUSED, CONNECTION_CREDENTIALS_REFUSED.
    """
    async with desk.database.transaction(tenant_id) as connection:
        payment = await get_payment(connection, order.payment_id, lock=True)
        adjustment = await find_adjustment_by_request(connection, tenant_id, order.kind, order.request_id)
        fresh = adjustment is None
        if adjustment is None:
            if order.kind is AdjustmentKind.CANCEL and _no_provider_has_it(payment):
                canceled = payment.ended_without_money(PaymentState.CANCELED, None)
                return await desk.write_payment(connection, payment, canceled)
            payment, adjustment = await _written(desk, connection, payment, order)
    if adjustment.request_fingerprint != order.request_fingerprint:
        detail = f"request_id {order.request_id} was used for another request"
        raise Problem(Reason.REQUEST_ID_REUSED, detail, request_id=order.request_id)
    if fresh:
        answer = await send_adjustment(desk, payment.attempt(adjustment.attempt_id), adjustment)
        adjustment = await settle_adjustment(desk, adjustment, answer)
    if not fresh or adjustment.call.state is not CallState.NOT_SENT:
        # The answer may leave something open: the charge itself tells how it stands.
        await resolve_adjustment(desk, tenant_id, adjustment.adjustment_id)
    async with desk.database.transaction(tenant_id) as connection:
        payment = await get_payment(connection, order.payment_id)
        adjustment = await get_adjustment(connection, adjustment.adjustment_id)
    _raise_if_refused(payment, adjustment)
    return payment


def _no_provider_has_it(payment: Payment) -> bool:
    return not payment.ended and payment.charge is None


async def _written(
    desk: Desk, connection: Connection, before: Payment, order: NewAdjustment
) -> tuple[Payment, Adjustment]:
    if order.kind is AdjustmentKind.CAPTURE:
        payment = before.set_aside_capture(order.amount)
    else:
        payment = _checked_for_cancel(desk, before)
    charge = payment.charge
    if charge is None:
        raise LookupError(f"payment {payment.payment_id} is {payment.state} without an attempt")
    _check_capability(desk, charge)
    if await find_open_adjustment(connection, payment.payment_id) is not None:
        detail = "a capture or a cancellation of this payment is under way"
        raise Problem(Reason.STATE_CONFLICT, detail, payment_id=payment.payment_id, state=payment.state)
    now = utc_now()
    payment = await desk.write_payment(connection, before, payment)
    adjustment = _started(payment, charge, order, now)
    await insert_adjustment(connection, adjustment)
    await desk.watch_over(connection, "resolve_adjustment", payment.tenant_id, adjustment_id=adjustment.adjustment_id)
    return payment, adjustment


def _checked_for_cancel(desk: Desk, payment: Payment) -> Payment:
    charge = payment.charge
    if payment.state is PaymentState.PROCESSING and charge is not None:
        # Says more than the state would: this provider never can.
        _check_capability(desk, charge)
    if payment.state not in _CANCELABLE:
        raise Problem(
            Reason.STATE_CONFLICT,
            f"a payment in state {payment.state} can't be canceled",
            payment_id=payment.payment_id,
            state=payment.state,
            allowed_states=",".join(sorted(_CANCELABLE)),
        )
    return payment


def _check_capability(desk: Desk, charge: Attempt) -> None:
    adapter = desk.providers.adapter_classes().get(charge.call.provider)
    if adapter is None or not issubclass(adapter, CardCharge):
        detail = f"{charge.call.provider} can't capture or cancel a payment"
        raise Problem(Reason.CAPABILITY_MISSING, detail, provider=charge.call.provider, capability="CardCharge")


def _started(payment: Payment, charge: Attempt, order: NewAdjustment, now: datetime) -> Adjustment:
    capture = order.kind is AdjustmentKind.CAPTURE
    return Adjustment(
        tenant_id=payment.tenant_id,
        adjustment_id=new_id("adj"),
        payment_id=payment.payment_id,
        attempt_id=charge.attempt_id,
        request_id=order.request_id,
        request_fingerprint=order.request_fingerprint,
        kind=order.kind,
        amount=payment.money(payment.capture_minor) if capture else payment.amount,
        call=Call(
            state=CallState.STARTED,
            provider=charge.call.provider,
            connection_id=charge.call.connection_id,
            send_time=now,
        ),
        create_time=now,
        update_time=now,
    )


def _raise_if_refused(payment: Payment, adjustment: Adjustment) -> None:
    call = adjustment.call
    if call.state is not CallState.FAILED:
        return
    if call.fault is Fault.CREDENTIALS_REFUSED:
        raise Problem(
            Reason.CONNECTION_CREDENTIALS_REFUSED,
            f"{call.provider} refuses the credentials of connection {call.connection_id}; nothing was changed",
            connection_id=call.connection_id,
            provider=call.provider,
            payment_id=payment.payment_id,
        )
    failure = call.failure
    raise Problem(
        Reason.STATE_CONFLICT,
        f"{call.provider} refuses it: {failure.message if failure else 'without saying why'}",
        payment_id=payment.payment_id,
        state=payment.state,
        provider_code=failure.provider_code if failure else "",
    )
