"""Whatever providers say, in whatever order, as often as they like: the sums hold and an end stays an end."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mesh.errors import Problem, Reason
from mesh.money import Money
from services.payments.model import (
    AnomalyKind,
    CallState,
    CaptureMethod,
    Fault,
    LedgerState,
    Payment,
    PaymentState,
    RefundState,
)
from services.payments.provider import FailureCode, Outcome, OutcomeState, ProviderFailure
from services.payments.settings import PaymentsSettings
from services.payments.use_cases.apply_outcome import NoAnswer, apply_answer, apply_refund_answer, never_arrived
from services.payments.use_cases.drive_payment import is_retryable, next_step
from tests.payments.builders import NOON, new_payment, new_refund

SETTINGS = PaymentsSettings.model_validate({})
AMOUNT = Money(1000, "GHS")
WRONG_AMOUNTS = [Money(999, "GHS"), Money(1001, "GHS"), Money(1000, "USD"), Money(0, "GHS")]

failures = st.one_of(st.none(), st.sampled_from(FailureCode).map(lambda code: ProviderFailure(code, "no")))
outcomes = st.builds(
    Outcome,
    state=st.sampled_from(OutcomeState),
    reference=st.sampled_from(["", "ref-1", "ref-2"]),
    amount=st.sampled_from([None, AMOUNT, AMOUNT, *WRONG_AMOUNTS, Money(400, "GHS")]),
    failure=failures,
    redirect_url=st.sampled_from(["", "https://bank.test/3ds"]),
)
no_answers = st.builds(NoAnswer, st.sampled_from([fault for fault in Fault if fault]), sent=st.booleans())
END_STATES = {PaymentState.SUCCEEDED, PaymentState.FAILED, PaymentState.CANCELED, PaymentState.EXPIRED}
TAKEN_STATES = {CallState.STARTED, CallState.PENDING, CallState.UNKNOWN, CallState.SUCCEEDED}


class PaymentLife(RuleBasedStateMachine):
    """A payment to which everything happens that can."""

    payment: Payment

    @initialize(manual=st.booleans(), connections=st.integers(1, 3))
    def begin(self, *, manual: bool, connections: int) -> None:
        method = CaptureMethod.MANUAL if manual else CaptureMethod.AUTOMATIC
        self.now = NOON
        self.refunds: list[Money] = []
        self.payment, started = next_step(
            new_payment(capture_method=method, connections=connections), SETTINGS, self.now
        )
        assert started is not None

    def _become(self, after: Payment) -> None:
        before = self.payment
        if before.state in END_STATES:
            assert after.state is before.state, "an end was left"
        self.payment, _ = next_step(after, SETTINGS, self.now)

    def _attempt_id(self, index: int) -> str:
        return self.payment.attempts[index % len(self.payment.attempts)].attempt_id

    @rule(seconds=st.sampled_from([0, 1, 30, 601]))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(index=st.integers(0, 5), outcome=outcomes)
    def hear(self, index: int, outcome: Outcome) -> None:
        attempt_id = self._attempt_id(index)
        before = self.payment
        after, anomaly = apply_answer(before, attempt_id, outcome, self.now)
        if after.state is PaymentState.SUCCEEDED and before.state is not PaymentState.SUCCEEDED:
            assert outcome.amount in {None, after.money(after.captured_minor)}, "another amount was believed"
        if anomaly is not None:
            assert after.state is before.state, "what does not fit was acted on"
            assert after.anomaly is anomaly
            assert before.ended or after.held
        ended = before.attempt(attempt_id).call.state is CallState.FAILED
        if ended and outcome.state is OutcomeState.SUCCEEDED:
            assert anomaly is AnomalyKind.MONEY_AFTER_END, "money after the end was dropped"
        again, _ = apply_answer(after, attempt_id, outcome, self.now)
        if anomaly is None:
            assert again == after, "the same word twice changed something"
        self._become(after)

    @rule(index=st.integers(0, 5), answer=no_answers)
    def hear_nothing(self, index: int, answer: NoAnswer) -> None:
        attempt_id = self._attempt_id(index)
        call = self.payment.attempt(attempt_id).call
        after, anomaly = apply_answer(self.payment, attempt_id, answer, self.now)
        assert anomaly is None
        if call.state is not CallState.STARTED:
            assert after == self.payment, "no answer changed what was known"
        self._become(after)

    @precondition(lambda self: self.payment.live_attempt and self.payment.live_attempt.call.state is CallState.UNKNOWN)
    @rule()
    def learn_that_it_never_arrived(self) -> None:
        attempt = self.payment.live_attempt
        assert attempt is not None
        self._become(never_arrived(self.payment, attempt.attempt_id, self.now))

    @precondition(lambda self: not self.payment.ended and self.payment.live_attempt is None)
    @rule()
    def send_again(self) -> None:
        attempt = next(attempt for attempt in self.payment.attempts if is_retryable(attempt))
        self._become(self.payment.started(replace(attempt, call=attempt.call.sent_again(self.now)), self.now))

    @rule(amount_minor=st.sampled_from([1, 400, 1000, 1001]))
    def capture(self, amount_minor: int) -> None:
        with suppress(Problem):
            self.payment = self.payment.set_aside_capture(Money(amount_minor, "GHS"))

    @rule(amount_minor=st.sampled_from([None, 1, 400, 1000, 1001]))
    def refund(self, amount_minor: int | None) -> None:
        asked = Money(amount_minor, "GHS") if amount_minor else None
        with suppress(Problem):
            self.payment, amount = self.payment.set_aside_refund(asked)
            self.refunds.append(amount)

    @precondition(lambda self: self.refunds)
    @rule()
    def fail_refund(self) -> None:
        self.payment = self.payment.freed(self.refunds.pop())

    @invariant()
    def sums_hold(self) -> None:
        payment = self.payment
        refunded_minor = sum(amount.amount_minor for amount in self.refunds)
        assert payment.refunded_minor == refunded_minor
        assert 0 <= refunded_minor <= payment.captured_minor <= payment.authorized_minor <= payment.amount.amount_minor
        assert payment.captured_minor <= payment.capture_minor <= payment.authorized_minor

    @invariant()
    def only_one_provider_can_have_it(self) -> None:
        assert sum(attempt.call.state in TAKEN_STATES for attempt in self.payment.attempts) <= 1

    @invariant()
    def success_is_money_and_is_booked(self) -> None:
        succeeded = self.payment.state is PaymentState.SUCCEEDED
        assert (self.payment.captured_minor > 0) == succeeded
        assert (self.payment.ledger_state is not LedgerState.UNSPECIFIED) == succeeded

    @invariant()
    def an_end_leaves_nothing_open(self) -> None:
        if self.payment.ended:
            assert self.payment.live_attempt is None


PaymentLife.TestCase.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
test_life_of_a_payment = PaymentLife.TestCase


def _started(**options: object) -> tuple[Payment, str]:
    payment, attempt_id = next_step(new_payment(**options), SETTINGS, NOON)  # type: ignore[arg-type]  # names of new_payment
    assert attempt_id is not None
    return payment, attempt_id


@given(wrong=st.sampled_from(WRONG_AMOUNTS))
def test_success_of_another_amount_holds_the_payment(wrong: Money) -> None:
    payment, attempt_id = _started()
    held, anomaly = apply_answer(payment, attempt_id, Outcome(OutcomeState.SUCCEEDED, "ref", wrong), NOON)
    assert (held.state, held.held, anomaly) == (PaymentState.PROCESSING, True, AnomalyKind.AMOUNT_MISMATCH)
    assert held.attempt(attempt_id).call.state is CallState.UNKNOWN
    right, anomaly = apply_answer(held, attempt_id, Outcome(OutcomeState.SUCCEEDED, "ref", AMOUNT), NOON)
    assert (right.state, right.held, anomaly) == (PaymentState.SUCCEEDED, False, None)


def test_money_after_failure_is_kept_and_not_believed() -> None:
    payment, attempt_id = _started()
    failure = ProviderFailure(FailureCode.DECLINED, "no")
    failed, _ = apply_answer(payment, attempt_id, Outcome(OutcomeState.FAILED, failure=failure), NOON)
    after, anomaly = apply_answer(failed, attempt_id, Outcome(OutcomeState.SUCCEEDED, "ref", AMOUNT), NOON)
    assert (after.state, after.anomaly, anomaly) == (
        PaymentState.FAILED,
        AnomalyKind.MONEY_AFTER_END,
        AnomalyKind.MONEY_AFTER_END,
    )


def test_failure_after_success_is_kept_and_not_believed() -> None:
    payment, attempt_id = _started()
    succeeded, _ = apply_answer(payment, attempt_id, Outcome(OutcomeState.SUCCEEDED, "ref", AMOUNT), NOON)
    after, anomaly = apply_answer(succeeded, attempt_id, Outcome(OutcomeState.FAILED), NOON)
    assert (after.state, anomaly) == (PaymentState.SUCCEEDED, AnomalyKind.END_AFTER_SUCCESS)


def test_not_sent_goes_to_the_next_connection_and_unknown_does_not() -> None:
    payment, first = _started()
    moved, _ = apply_answer(payment, first, NoAnswer(Fault.UNREACHABLE, sent=False), NOON)
    _, second = next_step(moved, SETTINGS, NOON)
    assert second is not None
    assert second != first
    doubted, _ = apply_answer(payment, first, NoAnswer(Fault.NO_ANSWER, sent=True), NOON)
    assert next_step(doubted, SETTINGS, NOON) == (doubted, None)


@pytest.mark.parametrize("code", [code for code in FailureCode if code is not FailureCode.PROVIDER_UNAVAILABLE])
def test_a_refusal_of_the_payer_is_no_reason_to_ask_another_provider(code: FailureCode) -> None:
    payment, attempt_id = _started()
    failed, _ = apply_answer(
        payment, attempt_id, Outcome(OutcomeState.FAILED, failure=ProviderFailure(code, "no")), NOON
    )
    assert failed.state is PaymentState.FAILED
    assert next_step(failed, SETTINGS, NOON) == (failed, None)


def test_a_provider_that_can_not_serve_is_followed_by_the_next_and_then_by_the_end() -> None:
    payment, first = _started()
    unavailable = Outcome(OutcomeState.FAILED, failure=ProviderFailure(FailureCode.PROVIDER_UNAVAILABLE, "down"))
    payment, _ = apply_answer(payment, first, unavailable, NOON)
    payment, second = next_step(payment, SETTINGS, NOON)
    assert second is not None
    payment, _ = apply_answer(payment, second, unavailable, NOON)
    payment, third = next_step(payment, SETTINGS, NOON)
    assert (third, payment.state) == (None, PaymentState.FAILED)
    assert payment.failure is not None
    assert payment.failure.code == "PROVIDER_UNAVAILABLE"


def test_an_attempt_once_in_doubt_is_never_taken_for_not_sent() -> None:
    payment, attempt_id = _started()
    doubted, _ = apply_answer(payment, attempt_id, NoAnswer(Fault.NO_ANSWER, sent=True), NOON)
    after, _ = apply_answer(doubted, attempt_id, NoAnswer(Fault.UNREACHABLE, sent=False), NOON)
    assert after.attempt(attempt_id).call.state is CallState.UNKNOWN


def test_capture_keeps_to_what_is_authorized() -> None:
    payment, attempt_id = _started(capture_method=CaptureMethod.MANUAL)
    payment, _ = apply_answer(payment, attempt_id, Outcome(OutcomeState.AUTHORIZED, "ref", AMOUNT), NOON)
    assert payment.state is PaymentState.AUTHORIZED
    with pytest.raises(Problem) as refused:
        payment.set_aside_capture(Money(1001, "GHS"))
    assert refused.value.reason is Reason.CAPTURE_EXCEEDS_AUTHORIZATION
    part = payment.set_aside_capture(Money(400, "GHS"))
    taken, _ = apply_answer(part, attempt_id, Outcome(OutcomeState.SUCCEEDED, "ref", Money(400, "GHS")), NOON)
    assert (taken.state, taken.captured_minor, taken.authorized_minor) == (PaymentState.SUCCEEDED, 400, 1000)
    with pytest.raises(Problem) as refused:
        taken.set_aside_refund(Money(401, "GHS"))
    assert refused.value.reason is Reason.REFUND_EXCEEDS_CAPTURE


def test_the_key_that_a_provider_sees_never_changes() -> None:
    payment, attempt_id = _started()
    key = payment.attempt(attempt_id).attempt_key
    moved, _ = apply_answer(payment, attempt_id, NoAnswer(Fault.UNREACHABLE, sent=False), NOON)
    attempt = moved.attempt(attempt_id)
    again = replace(attempt, call=attempt.call.sent_again(NOON))
    assert again.attempt_key == key


@given(answers=st.lists(st.one_of(outcomes, no_answers), max_size=12))
def test_a_refund_ends_once_and_only_by_its_own_amount(answers: list[Outcome | NoAnswer]) -> None:
    refund = new_refund(new_payment(), AMOUNT)
    ends = 0
    for answer in answers:
        after, anomaly = apply_refund_answer(refund, answer, NOON)
        if after.state is not refund.state:
            ends += 1
            assert anomaly is None
        if after.state is RefundState.SUCCEEDED and refund.state is not RefundState.SUCCEEDED:
            assert isinstance(answer, Outcome)
            assert answer.amount in {None, AMOUNT}
            assert after.ledger_state is LedgerState.QUEUED
        if isinstance(answer, NoAnswer) and refund.call.state is not CallState.STARTED:
            assert after == refund
        if refund.state is RefundState.FAILED and isinstance(answer, Outcome):
            assert (anomaly is AnomalyKind.MONEY_AFTER_END) == (answer.state is OutcomeState.SUCCEEDED)
        refund = after
    assert ends <= 1


def test_a_payer_who_was_asked_to_act_is_not_asked_by_another_provider() -> None:
    payment, attempt_id = _started()
    asked, _ = apply_answer(payment, attempt_id, Outcome(OutcomeState.ACTION_REQUIRED, "ref"), NOON)
    unavailable = Outcome(OutcomeState.FAILED, failure=ProviderFailure(FailureCode.PROVIDER_UNAVAILABLE, "down"))
    failed, _ = apply_answer(asked, attempt_id, unavailable, NOON)
    assert failed.state is PaymentState.FAILED
