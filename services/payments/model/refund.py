"""What can be done to a payment that a provider has: giving money back, capturing it, canceling it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from mesh.ids import derive_uuid
from mesh.money import Money
from services.payments.model.call import Call
from services.payments.model.states import (
    REFUND_MOVES,
    AdjustmentKind,
    AnomalyKind,
    CallState,
    IllegalMoveError,
    LedgerState,
    RefundState,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """One refund of a payment; its amount is set aside on the payment until it fails.

    Attributes:
        ledger_refusals, ledger_refusal_reason: as of a Payment.
    """

    tenant_id: str
    refund_id: str
    payment_id: str
    request_id: str
    request_fingerprint: bytes = field(repr=False)
    state: RefundState = RefundState.CREATED
    amount: Money
    description: str = ""
    call: Call
    ledger_state: LedgerState = LedgerState.UNSPECIFIED
    ledger_transaction_id: str = ""
    ledger_refusals: int = 0
    ledger_refusal_reason: str = ""
    anomaly: AnomalyKind | None = None
    create_time: datetime
    update_time: datetime

    @property
    def attempt_key(self) -> str:
        """The idempotency key that the provider sees."""
        return derive_uuid("refund", self.refund_id)

    def with_call(self, call: Call, now: datetime) -> Refund:
        """The refund with what became known; its state follows that of the call."""
        state = {
            CallState.SUCCEEDED: RefundState.SUCCEEDED,
            CallState.FAILED: RefundState.FAILED,
        }.get(call.state, RefundState.PROCESSING)
        if state is not self.state and state not in REFUND_MOVES[self.state]:
            raise IllegalMoveError(f"refund from {self.state} to {state}")
        ledger_state = LedgerState.QUEUED if state is RefundState.SUCCEEDED else self.ledger_state
        return replace(self, call=call, state=state, ledger_state=ledger_state, update_time=max(now, self.update_time))

    def posted(self, transaction_id: str, now: datetime) -> Refund:
        """The refund is in the ledger."""
        return replace(
            self,
            ledger_state=LedgerState.POSTED,
            ledger_transaction_id=transaction_id,
            ledger_refusal_reason="",
            update_time=max(now, self.update_time),
        )

    def refused(self, reason: str, *, is_final: bool) -> Refund:
        """As of a Payment."""
        return replace(self, ledger_refusals=self.ledger_refusals + is_final, ledger_refusal_reason=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """A capture or a cancellation of a charge. At most one of a payment is open at a time."""

    tenant_id: str
    adjustment_id: str
    payment_id: str
    attempt_id: str
    request_id: str
    request_fingerprint: bytes = field(repr=False)
    kind: AdjustmentKind
    amount: Money
    call: Call
    create_time: datetime
    update_time: datetime

    @property
    def adjustment_key(self) -> str:
        """The idempotency key that the provider sees."""
        return derive_uuid("adjustment", self.adjustment_id)

    def with_call(self, call: Call, now: datetime) -> Adjustment:
        """The adjustment with what became known."""
        return replace(self, call=call, update_time=max(now, self.update_time))
