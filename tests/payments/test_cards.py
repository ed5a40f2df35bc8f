"""Card payments through the contract: reserve, authenticate, capture, cancel, and a line that breaks while doing so."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx
import pytest
from kente.payments.v1 import payment_pb2

from mesh.errors import Reason
from tests.harness import eventually
from tests.payments.till import Till, World, card_request, money, new_request_id, refusal

State = payment_pb2.Payment
BROKEN_LINES = [
    "timeout_after_commit",
    "reset_after_commit",
    "html_502",
    "truncated_json",
    "timeout_before",
    "storm_429",
]


@pytest.fixture
async def card_till(world: World, tenant_id: str) -> Till:
    """The client of this test's tenant, connected to Stripe."""
    till = Till(world, tenant_id)
    await till.clear_faults("stripe")
    await till.connect("stripe")
    return till


async def charges(till: Till, payment: payment_pb2.Payment) -> Sequence[str]:
    """Amounts that Stripe took for a payment, in minor units."""
    keys = [attempt.provider_reference for attempt in payment.attempts]
    return [each["amount"] for each in await till.movements(keys, "charge", "stripe")]


async def test_a_card_is_charged_at_once_when_asked_so(card_till: Till) -> None:
    request = card_request(capture_method=payment_pb2.CAPTURE_METHOD_AUTOMATIC)
    payment = await card_till.ended((await card_till.create(request)).payment_id)
    assert payment.state == State.STATE_SUCCEEDED
    assert await charges(card_till, payment) == ["2000"]
    assert await card_till.balance("assets:providers:stripe:usd") == 2000


async def test_a_reservation_takes_no_money_until_a_part_is_captured(card_till: Till) -> None:
    reserved = await card_till.create(card_request())
    assert (reserved.state, reserved.authorized_amount) == (State.STATE_AUTHORIZED, money(2000, "USD"))
    assert await card_till.entries(reserved.payment_id) == []
    taken = await card_till.capture(reserved.payment_id, money(500, "USD"))
    assert (taken.state, taken.captured_amount) == (State.STATE_SUCCEEDED, money(500, "USD"))
    payment = await card_till.ended(reserved.payment_id)
    assert await charges(card_till, payment) == ["500"]
    assert await card_till.balance("liabilities:merchant:usd") == 500


async def test_a_capture_keeps_to_the_reservation(card_till: Till) -> None:
    reserved = await card_till.create(card_request())
    problem = await refusal(card_till.capture(reserved.payment_id, money(2001, "USD")))
    assert problem.reason is Reason.CAPTURE_EXCEEDS_AUTHORIZATION
    assert problem.metadata["capturable_amount_minor"] == "2000"
    problem = await refusal(card_till.capture(reserved.payment_id, money(100, "EUR")))
    assert [violation.field for violation in problem.violations] == ["amount.currency"]
    await card_till.capture(reserved.payment_id)
    assert (await refusal(card_till.capture(reserved.payment_id))).reason is Reason.STATE_CONFLICT


async def test_only_one_of_many_captures_happens(card_till: Till) -> None:
    reserved = await card_till.create(card_request())
    asked = [card_till.capture(reserved.payment_id, money(700, "USD")) for _ in range(6)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(answer, payment_pb2.Payment) for answer in answers) == 1
    payment = await card_till.ended(reserved.payment_id)
    assert await charges(card_till, payment) == ["700"]


@pytest.mark.parametrize("fault", BROKEN_LINES)
async def test_a_capture_over_a_broken_line_happens_once(card_till: Till, fault: str) -> None:
    reserved = await card_till.create(card_request())
    await card_till.fault("capture", fault, count=2 if fault == "storm_429" else 1, provider="stripe")
    request_id = new_request_id()
    await card_till.capture(reserved.payment_id, money(600, "USD"), request_id)
    payment = await card_till.ended(reserved.payment_id)
    assert (payment.state, payment.captured_amount) == (State.STATE_SUCCEEDED, money(600, "USD"))
    assert await charges(card_till, payment) == ["600"]


@pytest.mark.parametrize("fault", BROKEN_LINES)
async def test_a_charge_over_a_broken_line_happens_once(card_till: Till, fault: str) -> None:
    await card_till.fault("charge", fault, count=2 if fault == "storm_429" else 1, provider="stripe")
    request = card_request(capture_method=payment_pb2.CAPTURE_METHOD_AUTOMATIC)
    payment = await card_till.ended((await card_till.create(request)).payment_id)
    assert payment.state == State.STATE_SUCCEEDED
    assert await charges(card_till, payment) == ["2000"]


async def test_a_reservation_can_be_given_up(card_till: Till) -> None:
    reserved = await card_till.create(card_request())
    canceled = await card_till.cancel(reserved.payment_id)
    assert (canceled.state, canceled.authorized_amount) == (State.STATE_CANCELED, money(0, "USD"))
    assert (await refusal(card_till.capture(reserved.payment_id))).reason is Reason.STATE_CONFLICT
    assert await charges(card_till, canceled) == []


@pytest.mark.parametrize("fault", BROKEN_LINES)
async def test_a_cancellation_over_a_broken_line_happens(card_till: Till, fault: str) -> None:
    reserved = await card_till.create(card_request())
    await card_till.fault("cancel", fault, count=2 if fault == "storm_429" else 1, provider="stripe")
    await card_till.cancel(reserved.payment_id)
    payment = await card_till.ended(reserved.payment_id)
    assert payment.state == State.STATE_CANCELED


async def test_capture_and_cancellation_at_once_end_in_one_state(card_till: Till) -> None:
    reserved = await card_till.create(card_request())
    await asyncio.gather(
        card_till.capture(reserved.payment_id), card_till.cancel(reserved.payment_id), return_exceptions=True
    )
    payment = await card_till.ended(reserved.payment_id)
    taken = await charges(card_till, payment)
    assert taken == (["2000"] if payment.state == State.STATE_SUCCEEDED else [])


@pytest.mark.parametrize(("outcome", "state"), [("", State.STATE_SUCCEEDED), ("?outcome=failed", State.STATE_FAILED)])
async def test_a_bank_asks_the_payer(card_till: Till, outcome: str, state: payment_pb2.Payment.State.ValueType) -> None:
    request = card_request("pm_card_threeDSecure2Required", capture_method=payment_pb2.CAPTURE_METHOD_AUTOMATIC)
    waiting = await card_till.create(request)
    assert waiting.state == State.STATE_ACTION_REQUIRED
    async with httpx.AsyncClient() as http:
        await http.get(waiting.next_action.redirect_url + outcome)
    payment = await card_till.ended(waiting.payment_id)
    assert payment.state == state
    assert not payment.HasField("next_action")


async def test_a_payment_that_waits_for_the_payer_can_be_canceled(card_till: Till) -> None:
    waiting = await card_till.create(card_request("pm_card_threeDSecure2Required"))
    assert (await card_till.cancel(waiting.payment_id)).state == State.STATE_CANCELED


async def test_a_declined_card_is_a_failed_payment_with_its_cause(card_till: Till) -> None:
    payment = await card_till.create(card_request("pm_card_visa_chargeDeclinedInsufficientFunds"))
    assert payment.state == State.STATE_FAILED
    assert payment.failure.code == payment_pb2.Failure.CODE_INSUFFICIENT_FUNDS
    assert await charges(card_till, payment) == []


async def test_a_wallet_payment_can_be_neither_captured_nor_canceled(till: Till) -> None:
    payment = await till.create(msisdn="+233241234453")
    assert (await refusal(till.capture(payment.payment_id))).reason is Reason.STATE_CONFLICT
    problem = await refusal(till.cancel(payment.payment_id))
    assert problem.reason is Reason.CAPABILITY_MISSING
    assert problem.metadata["provider"] == "mtn_momo"


async def test_what_waits_for_a_provider_can_be_canceled_without_it(world: World, tenant_id: str) -> None:
    till = Till(world, tenant_id)
    await till.connect(base_url="http://127.0.0.1:9")
    waiting = await till.create()
    assert waiting.state == State.STATE_PROCESSING

    async def canceled() -> bool:
        # The job may be trying again at this very moment, and then the provider might have it.
        answers = await asyncio.gather(till.cancel(waiting.payment_id), return_exceptions=True)
        return isinstance(answers[0], payment_pb2.Payment) and answers[0].state == State.STATE_CANCELED

    assert await eventually(canceled)
