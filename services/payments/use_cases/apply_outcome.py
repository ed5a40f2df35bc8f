"""What a provider's word does to a payment or a refund. Pure: no I/O, no clock.

The rules, in the order in which they are asked:
- An amount or a currency that is not what we asked for is never believed: the call stays UNKNOWN, the payment is held.
- A word against a terminal state changes nothing. When it is about money, it is kept as an anomaly for people to see.
- A word that would go backwards (PENDING after AUTHORIZED, say) came late and is ignored.
- Everything else moves the call, and the payment with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from mesh.money import Money
from services.payments.model import (
    AnomalyKind,
    Call,
    CallState,
    Failure,
    Fault,
    NextAction,
    Payment,
    PaymentState,
    Refund,
)
from services.payments.provider import FailureCode, Outcome, OutcomeState

_MONEY = {OutcomeState.AUTHORIZED, OutcomeState.SUCCEEDED}
_ENDS = {
    OutcomeState.FAILED: PaymentState.FAILED,
    OutcomeState.CANCELED: PaymentState.CANCELED,
    OutcomeState.EXPIRED: PaymentState.EXPIRED,
}
UNAVAILABLE = Failure(FailureCode.PROVIDER_UNAVAILABLE, "The payment provider can't be reached at the moment.")
_UNEXPLAINED = Failure(FailureCode.UNKNOWN, "The provider refused it without saying why.")


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """A provider that did not say how an instruction stands.

    Attributes:
        sent: whether the provider may have the instruction nevertheless.
        retry_after_seconds: when the provider wants to be asked again; 0 when it did not say.
    """

    fault: Fault
    sent: bool
    retry_after_seconds: float = 0.0


Answer = Outcome | NoAnswer


def apply_answer(
    payment: Payment, attempt_id: str, answer: Answer, now: datetime
) -> tuple[Payment, AnomalyKind | None]:
    """A payment after the answer to an instruction or a question about one of its attempts.

    Returns:
        The payment, equal to the one given when nothing changed; and what about the answer does not fit, if anything.
    """
    call = payment.attempt(attempt_id).call
    if isinstance(answer, NoAnswer):
        return payment.with_call(attempt_id, unanswered(call, answer), now), None
    anomaly = _anomaly(payment, call, answer)
    if anomaly is not None:
        if call.live:
            call = call.moved(CallState.UNKNOWN, reference=answer.reference, fault=Fault.AMOUNT_MISMATCH)
        return payment.with_call(attempt_id, call, now).with_anomaly(anomaly), anomaly
    if call.state is CallState.NOT_SENT and payment.live_attempt is None and not payment.ended:
        # The provider has what we took for not sent: better that it is ours again than that it is forgotten.
        call = call.sent_again(call.send_time)
    if not call.live or answer.state is OutcomeState.NOT_FOUND:
        return payment, None
    moved, call = _move(payment, call, answer)
    return moved.with_call(attempt_id, call, now), None


def unanswered(call: Call, answer: NoAnswer) -> Call:
    """A call after no answer. Only a call sent once and never in doubt is proven to be NOT_SENT."""
    if call.state is not CallState.STARTED:
        return call
    return call.moved(CallState.UNKNOWN if answer.sent else CallState.NOT_SENT, fault=answer.fault)


def contradicts(payment: Payment, attempt_id: str, outcome: Outcome) -> bool:
    """Whether a callback says something that is better confirmed by asking, since callbacks come in any order."""
    call = payment.attempt(attempt_id).call
    stale = outcome.state is OutcomeState.PENDING and payment.state is PaymentState.ACTION_REQUIRED
    return stale or _anomaly(payment, call, outcome) is not None


def _anomaly(payment: Payment, call: Call, outcome: Outcome) -> AnomalyKind | None:
    if outcome.state in _MONEY:
        if call.state is CallState.FAILED or (call.state is CallState.NOT_SENT and _elsewhere(payment)):
            return AnomalyKind.MONEY_AFTER_END
        expected = _expected(payment, call, outcome.state)
        if outcome.amount is not None and outcome.amount != expected:
            return AnomalyKind.AMOUNT_MISMATCH
    elif outcome.state in _ENDS and call.state is CallState.SUCCEEDED:
        return AnomalyKind.END_AFTER_SUCCESS
    return None


def _elsewhere(payment: Payment) -> bool:
    return payment.ended or payment.live_attempt is not None


def _expected(payment: Payment, call: Call, state: OutcomeState) -> Money:
    if state is OutcomeState.AUTHORIZED:
        return payment.amount
    if call.state is CallState.SUCCEEDED:
        return payment.money(payment.captured_minor)
    if payment.state is PaymentState.AUTHORIZED:
        return payment.money(payment.capture_minor or payment.authorized_minor)
    return payment.amount


def _move(payment: Payment, call: Call, outcome: Outcome) -> tuple[Payment, Call]:
    state, reference = outcome.state, outcome.reference
    pending = call.moved(CallState.PENDING, reference=reference)
    if state is OutcomeState.SUCCEEDED:
        captured = _expected(payment, call, state)
        return payment.succeeded(captured.amount_minor), call.moved(CallState.SUCCEEDED, reference=reference)
    if state in _ENDS:
        # A cancellation or an expiry explains itself.
        failure = refusal_of(outcome) if outcome.failure or state is OutcomeState.FAILED else None
        failed = call.moved(CallState.FAILED, reference=reference, failure=failure)
        if state is OutcomeState.FAILED and _is_elsewhere_possible(payment, failure):
            # Proven not to have happened, and no word about the payer: another provider may do it.
            return replace(payment, next_action=None, held=False), failed
        return payment.ended_without_money(_ENDS[state], failure), failed
    return _progress(payment, outcome), pending


def _progress(payment: Payment, outcome: Outcome) -> Payment:
    if payment.state is PaymentState.AUTHORIZED:
        return payment
    if outcome.state is OutcomeState.AUTHORIZED:
        return payment.authorized()
    if outcome.state is OutcomeState.ACTION_REQUIRED:
        return payment.required_action(_next_action(payment, outcome) or NextAction())
    return payment.processed(_next_action(payment, outcome))


def _next_action(payment: Payment, outcome: Outcome) -> NextAction | None:
    if outcome.redirect_url or outcome.instructions:
        return NextAction(outcome.redirect_url, outcome.instructions)
    # Providers say it once; a later question about the same state does not repeat it.
    return payment.next_action


def refusal_of(outcome: Outcome) -> Failure:
    """Why a provider did not do it; says so when the provider gave no cause."""
    found = outcome.failure
    return Failure(found.code, found.message, found.provider_code) if found else _UNEXPLAINED


def _is_elsewhere_possible(payment: Payment, failure: Failure | None) -> bool:
    about_provider = failure is not None and failure.code == FailureCode.PROVIDER_UNAVAILABLE
    # A payer who was sent somewhere, or whose money was reserved, is not asked again by somebody else.
    return about_provider and payment.state is PaymentState.PROCESSING


def never_arrived(payment: Payment, attempt_id: str, now: datetime) -> Payment:
    """A payment that is no longer wanted, after the provider said that it never had the attempt."""
    call = payment.attempt(attempt_id).call.moved(CallState.NOT_SENT, fault=Fault.NEVER_ARRIVED)
    return payment.with_call(attempt_id, call, now).ended_without_money(PaymentState.FAILED, UNAVAILABLE)


def apply_refund_answer(refund: Refund, answer: Answer, now: datetime) -> tuple[Refund, AnomalyKind | None]:
    """A refund after the answer to its instruction or to a question about it. As apply_answer."""
    call = refund.call
    if isinstance(answer, NoAnswer):
        moved = unanswered(call, answer)
        return (refund if moved == call else refund.with_call(moved, now)), None
    anomaly = _refund_anomaly(refund, answer)
    if anomaly is not None:
        if call.live:
            doubted = call.moved(CallState.UNKNOWN, reference=answer.reference, fault=Fault.AMOUNT_MISMATCH)
            refund = refund.with_call(doubted, now)
        return replace(refund, anomaly=anomaly), anomaly
    if call.state is CallState.NOT_SENT and answer.state is not OutcomeState.NOT_FOUND:
        call = call.sent_again(call.send_time)
    if not call.live or answer.state is OutcomeState.NOT_FOUND:
        return refund, None
    if answer.state is OutcomeState.SUCCEEDED:
        moved = call.moved(CallState.SUCCEEDED, reference=answer.reference)
    elif answer.state in _ENDS:
        moved = call.moved(CallState.FAILED, reference=answer.reference, failure=refusal_of(answer))
    else:
        moved = call.moved(CallState.PENDING, reference=answer.reference)
    return (refund if moved == refund.call else refund.with_call(moved, now)), None


def refund_contradicts(refund: Refund, outcome: Outcome) -> bool:
    """Whether a callback about a refund is better confirmed by asking."""
    return _refund_anomaly(refund, outcome) is not None


def _refund_anomaly(refund: Refund, outcome: Outcome) -> AnomalyKind | None:
    if outcome.state is OutcomeState.SUCCEEDED:
        if refund.call.state is CallState.FAILED:
            return AnomalyKind.MONEY_AFTER_END
        if outcome.amount is not None and outcome.amount != refund.amount:
            return AnomalyKind.AMOUNT_MISMATCH
    elif outcome.state in _ENDS and refund.call.state is CallState.SUCCEEDED:
        return AnomalyKind.END_AFTER_SUCCESS
    return None
