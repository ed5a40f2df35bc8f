"""Payments and refunds: their states, the moves that are legal, and the sums that must hold. No I/O.

    payment   CREATED -> PROCESSING <-> ACTION_REQUIRED -> AUTHORIZED -> SUCCEEDED
              and from any of these but the last: FAILED, CANCELED, EXPIRED
    attempt   STARTED -> PENDING | UNKNOWN -> SUCCEEDED | FAILED
              STARTED <-> NOT_SENT, and UNKNOWN -> NOT_SENT once the provider says that it never had it

A terminal state is never left. At most one attempt of a payment is live or has succeeded: no other provider is tried
while one may have the payment.
"""

from __future__ import annotations

from services.payments.model.call import (
    Call,
)
from services.payments.model.payment import (
    Attempt,
    Payment,
)
from services.payments.model.refund import (
    Adjustment,
    Refund,
)
from services.payments.model.states import (
    CALL_MOVES,
    ENDS,
    LIVE_CALL_STATES,
    PAYMENT_MOVES,
    REFUND_MOVES,
    TERMINAL_STATES,
    AdjustmentKind,
    AnomalyKind,
    CallState,
    CaptureMethod,
    Fault,
    IllegalMoveError,
    LedgerState,
    PaymentState,
    RefundState,
)
from services.payments.model.values import (
    Card,
    Failure,
    Link,
    MobileMoney,
    NextAction,
    Payer,
    Route,
    RouteCandidate,
)

__all__ = [
    "CALL_MOVES",
    "ENDS",
    "LIVE_CALL_STATES",
    "PAYMENT_MOVES",
    "REFUND_MOVES",
    "TERMINAL_STATES",
    "Adjustment",
    "AdjustmentKind",
    "AnomalyKind",
    "Attempt",
    "Call",
    "CallState",
    "CaptureMethod",
    "Card",
    "Failure",
    "Fault",
    "IllegalMoveError",
    "LedgerState",
    "Link",
    "MobileMoney",
    "NextAction",
    "Payer",
    "Payment",
    "PaymentState",
    "Refund",
    "RefundState",
    "Route",
    "RouteCandidate",
]
