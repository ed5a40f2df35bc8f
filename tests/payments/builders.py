"""Payments and routes for tests that need no service."""

from __future__ import annotations

from datetime import UTC, datetime

from mesh.ids import new_id
from mesh.money import Money
from services.payments.model import (
    Call,
    CallState,
    CaptureMethod,
    Card,
    MobileMoney,
    Payer,
    Payment,
    Refund,
    Route,
    RouteCandidate,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def new_payment(
    *,
    amount_minor: int = 1000,
    currency: str = "GHS",
    connections: int = 2,
    capture_method: CaptureMethod = CaptureMethod.AUTOMATIC,
) -> Payment:
    """A payment that no provider was given yet, with a number of eligible connections."""
    candidates = tuple(
        RouteCandidate("mtn_momo", f"con_{number}", eligible=True, explanation="takes GHS")
        for number in range(connections)
    )
    manual = capture_method is CaptureMethod.MANUAL
    return Payment(
        tenant_id="ten_1",
        payment_id=new_id("pay"),
        request_id=new_id("req"),
        request_fingerprint=b"1",
        amount=Money(amount_minor, currency),
        method=Card("pm_1") if manual else MobileMoney("+233241234567"),
        payer=Payer("Ama", "ama@example.com"),
        capture_method=capture_method,
        route=Route("mtn_momo", "con_0", "takes GHS", candidates),
        create_time=NOON,
        update_time=NOON,
    )


def new_refund(payment: Payment, amount: Money) -> Refund:
    """A refund that is being sent."""
    call = Call(state=CallState.STARTED, provider="mtn_momo", connection_id="con_0", send_time=NOON)
    created = Refund(
        tenant_id=payment.tenant_id,
        refund_id=new_id("rfd"),
        payment_id=payment.payment_id,
        request_id=new_id("req"),
        request_fingerprint=b"1",
        amount=amount,
        call=call,
        create_time=NOON,
        update_time=NOON,
    )
    return created.with_call(call, NOON)
