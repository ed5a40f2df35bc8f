"""A payment, its attempts, and the sums that must hold."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from mesh.errors import Problem, Reason, Violation
from mesh.ids import derive_uuid
from mesh.money import Money
from services.payments.model.call import Call
from services.payments.model.states import (
    ENDS,
    PAYMENT_MOVES,
    TERMINAL_STATES,
    AnomalyKind,
    CallState,
    CaptureMethod,
    IllegalMoveError,
    LedgerState,
    PaymentState,
)
from services.payments.model.values import Card, Failure, MobileMoney, NextAction, Payer, Route


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try to have a payment carried out over one connection. A payment has at most one for each connection."""

    attempt_id: str
    call: Call
    create_time: datetime
    update_time: datetime

    @property
    def attempt_key(self) -> str:
        """The idempotency key that the provider sees: the same however often the attempt is sent."""
        return derive_uuid("attempt", self.attempt_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """One payment with its attempts, oldest first.

    Attributes:
        request_fingerprint: made of the request, to tell a repetition from another request of the same id.
        refunded_minor: given back, or set aside for refunds under way.
        capture_minor: amount of the capture that is under way or done; 0 when there is none.
        ledger_refusals: how many transaction ids the ledger has refused for ever; the next try has another.
        ledger_refusal_reason: why it refused the last time, while the posting is queued.
        anomaly: the last thing a provider said that does not fit; see AnomalyKind.
        held: an anomaly keeps the payment from ending by itself until the provider says something that fits.
    """

    tenant_id: str
    payment_id: str
    request_id: str
    request_fingerprint: bytes = field(repr=False)
    state: PaymentState = PaymentState.CREATED
    amount: Money
    authorized_minor: int = 0
    captured_minor: int = 0
    refunded_minor: int = 0
    capture_minor: int = 0
    method: MobileMoney | Card
    payer: Payer
    description: str = ""
    merchant_reference: str = ""
    capture_method: CaptureMethod = CaptureMethod.AUTOMATIC
    route: Route
    attempts: tuple[Attempt, ...] = ()
    next_action: NextAction | None = None
    failure: Failure | None = None
    ledger_state: LedgerState = LedgerState.UNSPECIFIED
    ledger_transaction_id: str = ""
    ledger_refusals: int = 0
    ledger_refusal_reason: str = ""
    anomaly: AnomalyKind | None = None
    held: bool = False
    create_time: datetime
    update_time: datetime
    version: int = 1

    @property
    def ended(self) -> bool:
        """Whether the state is terminal."""
        return self.state in TERMINAL_STATES

    @property
    def waits_for_capture(self) -> bool:
        """Whether it is the tenant's turn."""
        return self.state is PaymentState.AUTHORIZED and self.capture_method is CaptureMethod.MANUAL

    @property
    def live_attempt(self) -> Attempt | None:
        """The attempt whose end is open, if any."""
        return next((attempt for attempt in self.attempts if attempt.call.live), None)

    @property
    def charge(self) -> Attempt | None:
        """The attempt that has or took the money, if any."""
        return next((a for a in self.attempts if a.call.live or a.call.state is CallState.SUCCEEDED), None)

    @property
    def refundable(self) -> Money:
        """What is captured and neither given back nor set aside."""
        return self.money(self.captured_minor - self.refunded_minor)

    def money(self, amount_minor: int) -> Money:
        """An amount in the payment's currency."""
        return Money(amount_minor, self.amount.currency)

    def attempt(self, attempt_id: str) -> Attempt:
        """One of the attempts, which must exist."""
        return next(attempt for attempt in self.attempts if attempt.attempt_id == attempt_id)

    def attempt_over(self, connection_id: str) -> Attempt | None:
        """The attempt over a connection, if there is one."""
        return next((attempt for attempt in self.attempts if attempt.call.connection_id == connection_id), None)

    def changed(self, now: datetime) -> Payment:
        """The next version."""
        return replace(self, version=self.version + 1, update_time=max(now, self.update_time))

    def started(self, attempt: Attempt, now: datetime) -> Payment:
        """The payment about to be given to a provider, by a new attempt or by one that was not sent.

        Raises:
            IllegalMoveError: it ended, or another attempt is live or has succeeded.
        """
        others = [a for a in self.attempts if a.attempt_id != attempt.attempt_id]
        if self.ended or any(a.call.live or a.call.state is CallState.SUCCEEDED for a in others):
            raise IllegalMoveError(f"attempt on a payment in {self.state}")
        payment = self if self.state is PaymentState.PROCESSING else self._moved(PaymentState.PROCESSING)
        if self.attempt_over(attempt.call.connection_id) is None:
            payment = replace(payment, attempts=(*self.attempts, attempt))
        call = attempt.call
        route = replace(self.route, provider=call.provider, connection_id=call.connection_id)
        payment = replace(payment, route=route)
        return payment.with_call(attempt.attempt_id, call, now).changed(now)

    def with_call(self, attempt_id: str, call: Call, now: datetime) -> Payment:
        """The payment with what became known of an attempt."""
        attempts = tuple(
            replace(attempt, call=call, update_time=max(now, attempt.update_time))
            if attempt.attempt_id == attempt_id and attempt.call != call
            else attempt
            for attempt in self.attempts
        )
        return replace(self, attempts=attempts)

    def processed(self, next_action: NextAction | None) -> Payment:
        """The provider has it."""
        payment = self if self.state is PaymentState.PROCESSING else self._moved(PaymentState.PROCESSING)
        return replace(payment, next_action=next_action)

    def required_action(self, next_action: NextAction) -> Payment:
        """The payer must act."""
        payment = self if self.state is PaymentState.ACTION_REQUIRED else self._moved(PaymentState.ACTION_REQUIRED)
        return replace(payment, next_action=next_action)

    def authorized(self) -> Payment:
        """All of the amount is reserved."""
        return replace(self._moved(PaymentState.AUTHORIZED), authorized_minor=self.amount.amount_minor)

    def succeeded(self, captured_minor: int) -> Payment:
        """The money was taken; it is to be posted to the ledger."""
        authorized_minor = self.authorized_minor or captured_minor
        if not 0 < captured_minor <= authorized_minor <= self.amount.amount_minor:
            raise IllegalMoveError(f"capture of {captured_minor} on {authorized_minor}")
        return replace(
            self._moved(PaymentState.SUCCEEDED),
            authorized_minor=authorized_minor,
            captured_minor=captured_minor,
            capture_minor=captured_minor,
            ledger_state=LedgerState.QUEUED,
        )

    def ended_without_money(self, state: PaymentState, failure: Failure | None) -> Payment:
        """The payment is FAILED, CANCELED or EXPIRED."""
        if state not in ENDS:
            raise IllegalMoveError(f"{state} is no end without money")
        return replace(self._moved(state), failure=failure, authorized_minor=0, capture_minor=0)

    def _moved(self, state: PaymentState) -> Payment:
        if state not in PAYMENT_MOVES[self.state]:
            raise IllegalMoveError(f"payment from {self.state} to {state}")
        return replace(self, state=state, next_action=None, failure=None, held=False)

    def with_anomaly(self, kind: AnomalyKind) -> Payment:
        """The payment with something that does not fit. While it is open it is held as well."""
        return replace(self, anomaly=kind, held=self.held or not self.ended)

    def posted(self, transaction_id: str) -> Payment:
        """The capture is in the ledger."""
        return replace(
            self, ledger_state=LedgerState.POSTED, ledger_transaction_id=transaction_id, ledger_refusal_reason=""
        )

    def refused(self, reason: str, *, is_final: bool) -> Payment:
        """The ledger refused the posting; for ever under this transaction id, when that is final."""
        return replace(self, ledger_refusals=self.ledger_refusals + is_final, ledger_refusal_reason=reason)

    def set_aside_capture(self, amount: Money | None) -> Payment:
        """The payment with a capture about to be sent.

        Args:
            amount: how much; all of the authorization when None.

        Raises:
            Problem: STATE_CONFLICT, CAPTURE_EXCEEDS_AUTHORIZATION, or FIELD_INVALID for another currency.
        """
        if self.state is not PaymentState.AUTHORIZED:
            raise self._conflict("captured", "AUTHORIZED")
        asked = amount or self.money(self.authorized_minor)
        self._check_currency(asked)
        if asked.amount_minor > self.authorized_minor:
            raise Problem(
                Reason.CAPTURE_EXCEEDS_AUTHORIZATION,
                f"only {self.money(self.authorized_minor)} is authorized",
                payment_id=self.payment_id,
                capturable_amount_minor=str(self.authorized_minor),
                currency=self.amount.currency,
            )
        return replace(self, capture_minor=asked.amount_minor)

    def without_capture(self) -> Payment:
        """The payment after a capture that did not happen."""
        return replace(self, capture_minor=0)

    def set_aside_refund(self, amount: Money | None) -> tuple[Payment, Money]:
        """The payment with a refund's amount set aside, so that no other refund can have it.

        Args:
            amount: how much; all that is left when None.

        Raises:
            Problem: STATE_CONFLICT, REFUND_EXCEEDS_CAPTURE, or FIELD_INVALID for another currency.
        """
        if self.state is not PaymentState.SUCCEEDED:
            raise self._conflict("refunded", "SUCCEEDED")
        asked = amount or self.refundable
        self._check_currency(asked)
        if not 0 < asked.amount_minor <= self.refundable.amount_minor:
            raise Problem(
                Reason.REFUND_EXCEEDS_CAPTURE,
                f"only {self.refundable} is left to refund",
                payment_id=self.payment_id,
                refundable_amount_minor=str(self.refundable.amount_minor),
                currency=self.amount.currency,
            )
        return replace(self, refunded_minor=self.refunded_minor + asked.amount_minor), asked

    def freed(self, amount: Money) -> Payment:
        """The payment after a refund that did not happen."""
        return replace(self, refunded_minor=self.refunded_minor - amount.amount_minor)

    def _check_currency(self, asked: Money) -> None:
        if asked.currency != self.amount.currency:
            detail = f"must be {self.amount.currency}, the currency of the payment"
            raise Problem(Reason.FIELD_INVALID, violations=[Violation("amount.currency", detail)])

    def _conflict(self, verb: str, allowed: str) -> Problem:
        return Problem(
            Reason.STATE_CONFLICT,
            f"a payment in state {self.state} can't be {verb}",
            payment_id=self.payment_id,
            state=self.state,
            allowed_states=allowed,
        )
