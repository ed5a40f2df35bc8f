"""The states of payments, calls and refunds, and the moves that are legal."""

from __future__ import annotations

import enum
from collections.abc import Mapping


class PaymentState(enum.StrEnum):
    """The names of kente.payments.v1.Payment.State."""

    CREATED = "CREATED"
    PROCESSING = "PROCESSING"
    ACTION_REQUIRED = "ACTION_REQUIRED"
    AUTHORIZED = "AUTHORIZED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"


class CallState(enum.StrEnum):
    """Where one instruction to a provider is. The names of kente.payments.v1.Attempt.State."""

    STARTED = "STARTED"
    PENDING = "PENDING"
    UNKNOWN = "UNKNOWN"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    NOT_SENT = "NOT_SENT"


class RefundState(enum.StrEnum):
    """The names of kente.payments.v1.Refund.State."""

    CREATED = "CREATED"
    PROCESSING = "PROCESSING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


class LedgerState(enum.StrEnum):
    """The names of kente.payments.v1.Payment.LedgerState."""

    UNSPECIFIED = "UNSPECIFIED"
    QUEUED = "QUEUED"
    POSTED = "POSTED"


class CaptureMethod(enum.StrEnum):
    """The names of kente.payments.v1.CaptureMethod."""

    AUTOMATIC = "AUTOMATIC"
    MANUAL = "MANUAL"


class AdjustmentKind(enum.StrEnum):
    """What can be done to a charge that the provider has."""

    CAPTURE = "CAPTURE"
    CANCEL = "CANCEL"


class Fault(enum.StrEnum):
    """Why an instruction is NOT_SENT or UNKNOWN; empty otherwise."""

    NONE = ""
    UNREACHABLE = "UNREACHABLE"
    RATE_LIMITED = "RATE_LIMITED"
    CREDENTIALS_REFUSED = "CREDENTIALS_REFUSED"
    CONNECTION_GONE = "CONNECTION_GONE"
    NO_ANSWER = "NO_ANSWER"
    AMOUNT_MISMATCH = "AMOUNT_MISMATCH"
    NEVER_ARRIVED = "NEVER_ARRIVED"


class AnomalyKind(enum.StrEnum):
    """What a provider says that does not fit what we know. Never acted on by itself: people decide."""

    # Money was taken or given back after we had ended the operation without it.
    MONEY_AFTER_END = "MONEY_AFTER_END"
    # The provider takes back a success.
    END_AFTER_SUCCESS = "END_AFTER_SUCCESS"
    # The provider's amount or currency is not what we asked for.
    AMOUNT_MISMATCH = "AMOUNT_MISMATCH"


ENDS = frozenset({PaymentState.FAILED, PaymentState.CANCELED, PaymentState.EXPIRED})

TERMINAL_STATES: frozenset[PaymentState] = ENDS | {PaymentState.SUCCEEDED}
PAYMENT_MOVES: Mapping[PaymentState, frozenset[PaymentState]] = {
    PaymentState.CREATED: frozenset({PaymentState.PROCESSING}),
    PaymentState.PROCESSING: ENDS | {PaymentState.ACTION_REQUIRED, PaymentState.AUTHORIZED, PaymentState.SUCCEEDED},
    PaymentState.ACTION_REQUIRED: ENDS | {PaymentState.PROCESSING, PaymentState.AUTHORIZED, PaymentState.SUCCEEDED},
    PaymentState.AUTHORIZED: ENDS | {PaymentState.SUCCEEDED},
    PaymentState.SUCCEEDED: frozenset(),
    PaymentState.FAILED: frozenset(),
    PaymentState.CANCELED: frozenset(),
    PaymentState.EXPIRED: frozenset(),
}
# Nobody may assume that the provider has nothing.
LIVE_CALL_STATES = frozenset({CallState.STARTED, CallState.PENDING, CallState.UNKNOWN})
CALL_MOVES: Mapping[CallState, frozenset[CallState]] = {
    CallState.STARTED: frozenset(CallState) - {CallState.STARTED},
    CallState.PENDING: frozenset({CallState.UNKNOWN, CallState.SUCCEEDED, CallState.FAILED}),
    CallState.UNKNOWN: frozenset({CallState.PENDING, CallState.SUCCEEDED, CallState.FAILED, CallState.NOT_SENT}),
    # Sent again with the same key, so that even a wrong proof moves nothing twice.
    CallState.NOT_SENT: frozenset({CallState.STARTED, CallState.FAILED}),
    CallState.SUCCEEDED: frozenset(),
    CallState.FAILED: frozenset(),
}
REFUND_MOVES: Mapping[RefundState, frozenset[RefundState]] = {
    RefundState.CREATED: frozenset({RefundState.PROCESSING}),
    RefundState.PROCESSING: frozenset({RefundState.SUCCEEDED, RefundState.FAILED}),
    RefundState.SUCCEEDED: frozenset(),
    RefundState.FAILED: frozenset(),
}


class IllegalMoveError(Exception):
    """A fault of ours: code asked for a move that the tables above do not have."""
