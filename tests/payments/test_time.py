"""What becomes of a payment when time passes. Nobody waits for it: the rows are made older."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from kente.payments.v1 import payment_pb2

from mesh.errors import Reason
from mesh.ids import derive_uuid, new_id
from mesh.money import Money
from services.payments.provider import CollectOrder, WalletCollect
from services.payments.use_cases.process_webhook import process_webhook
from tests.harness import eventually
from tests.payments.mortal import mortal_desk
from tests.payments.till import ONGOING, Till, World, card_request, ghana, money, refusal

State = payment_pb2.Payment


@pytest.fixture(autouse=True)
async def honest_sandbox(world: World, till: Till) -> AsyncIterator[None]:
    """Leaves no fault to the next test."""
    _ = world
    yield
    await till.clear_faults()
    await till.clear_faults("stripe")


async def age(till: Till, table: str, column: str, subject_id: str, hours: int = 2) -> None:
    """Makes a row older."""
    version = ", version = version + 1" if table == "payments" else ""
    await till.rows(
        f"UPDATE {table} SET create_time = create_time - make_interval(hours => $2){version}"  # noqa: S608 - our own names
        f" WHERE {column} = $1",
        subject_id,
        hours,
    )


async def test_what_never_arrived_is_given_up_when_it_is_no_longer_wanted(till: Till) -> None:
    await till.fault("collect", "timeout_before", count=None)
    created = await till.create()
    assert created.attempts[0].state == payment_pb2.Attempt.STATE_UNKNOWN
    await age(till, "payments", "payment_id", created.payment_id)
    payment = await till.ended(created.payment_id)
    assert (payment.state, payment.failure.code) == (State.STATE_FAILED, payment_pb2.Failure.CODE_PROVIDER_UNAVAILABLE)
    assert payment.attempts[0].state == payment_pb2.Attempt.STATE_NOT_SENT
    assert await till.entries(payment.payment_id) == []
    # The unthinkable: it does arrive, hours later, and the payer approves.
    await till.clear_faults()
    attempt = payment.attempts[0]
    async with mortal_desk(till, 0) as (desk, _):
        adapter = await desk.providers.adapter(till.tenant_id, attempt.connection_id)
        assert isinstance(adapter, WalletCollect)
        key = derive_uuid("attempt", attempt.attempt_id)
        await adapter.collect(CollectOrder(key, payment.payment_id, Money(1050, "GHS"), "+233241234567", "Order 1"))

    async def anomalies() -> list[Any]:
        return await till.rows("SELECT kind FROM anomalies WHERE payment_id = $1", payment.payment_id)

    assert [row["kind"] for row in await eventually(anomalies)] == ["MONEY_AFTER_END"]
    assert (await till.get(payment.payment_id)).state == State.STATE_FAILED
    assert await till.entries(payment.payment_id) == []


async def test_an_unreachable_provider_fails_the_payment_when_it_is_no_longer_wanted(world: World) -> None:
    till = Till(world, new_id("ten"))
    await till.connect(base_url="http://127.0.0.1:9")
    created = await till.create()
    await age(till, "payments", "payment_id", created.payment_id)
    payment = await till.ended(created.payment_id)
    assert (payment.state, payment.failure.code) == (State.STATE_FAILED, payment_pb2.Failure.CODE_PROVIDER_UNAVAILABLE)


async def test_a_payer_who_takes_hours_is_waited_for_and_reported(till: Till) -> None:
    created = await till.create(msisdn=ONGOING)
    await age(till, "payments", "payment_id", created.payment_id)

    async def reported() -> bool:
        rows = await till.rows("SELECT delay_reported FROM attempts WHERE payment_id = $1", created.payment_id)
        return bool(rows[0]["delay_reported"])

    assert await eventually(reported)
    payment = await till.get(created.payment_id)
    assert (payment.state, payment.attempts[0].state) == (
        State.STATE_PROCESSING,
        payment_pb2.Attempt.STATE_PENDING,
    )


async def test_a_refund_that_never_arrived_frees_its_amount_when_it_is_no_longer_wanted(till: Till) -> None:
    paid = await till.ended((await till.create()).payment_id)
    await till.fault("refund", "timeout_before", count=None)
    refund = await till.refund(paid.payment_id, money(100))
    assert refund.state == payment_pb2.Refund.STATE_PROCESSING
    assert (await till.get(paid.payment_id)).refunded_amount == money(100)
    await age(till, "refunds", "refund_id", refund.refund_id)
    done = await till.refund_ended(refund)
    assert (done.state, done.failure.code) == (
        payment_pb2.Refund.STATE_FAILED,
        payment_pb2.Failure.CODE_PROVIDER_UNAVAILABLE,
    )
    assert (await till.get(paid.payment_id)).refunded_amount == money(0)


async def test_a_capture_that_never_arrived_leaves_the_reservation(world: World, tenant_id: str) -> None:
    till = Till(world, tenant_id)
    await till.connect("stripe")
    reserved = await till.create(card_request())
    await till.fault("capture", "timeout_before", count=None, provider="stripe")
    assert (await till.capture(reserved.payment_id, money(100, "USD"))).state == State.STATE_AUTHORIZED
    assert (await refusal(till.cancel(reserved.payment_id))).reason is Reason.STATE_CONFLICT
    await age(till, "adjustments", "payment_id", reserved.payment_id)

    async def given_up() -> bool:
        rows = await till.rows("SELECT state FROM adjustments WHERE payment_id = $1", reserved.payment_id)
        return [row["state"] for row in rows] == ["FAILED"]

    assert await eventually(given_up)
    await till.clear_faults("stripe")
    assert (await till.capture(reserved.payment_id)).captured_amount == money(2000, "USD")


async def test_a_reservation_that_lapsed_at_the_provider_ends_here_too(world: World, tenant_id: str) -> None:
    till = Till(world, tenant_id)
    await till.connect("stripe")
    reserved = await till.create(card_request())
    shelf = world.sandbox.simulators["stripe"].shelf
    reference = reserved.attempts[0].provider_reference
    stored = shelf.get("payment_intent", reference)
    assert stored is not None
    shelf.put(
        "payment_intent",
        reference,
        {**stored, "status": "canceled", "cancellation_reason": "automatic", "amount_capturable": 0},
    )
    problem = await refusal(till.capture(reserved.payment_id))
    assert problem.reason is Reason.STATE_CONFLICT
    payment = await till.ended(reserved.payment_id)
    assert payment.state in {State.STATE_CANCELED, State.STATE_EXPIRED}
    assert payment.authorized_amount == money(0, "USD")


async def test_a_callback_about_something_unknown_is_kept_apart_in_the_end(till: Till) -> None:
    payment = await till.create(msisdn=ghana(453))
    await till.rows(
        "INSERT INTO webhooks VALUES ('whk_' || $1, $1, 'mtn_momo', $2, 'e', 0, 'RECEIVED', 'collect', 'nobody', '',"
        " NULL, '{}', '', now() - interval '1 hour', NULL)",
        till.tenant_id,
        payment.attempts[0].connection_id,
    )
    async with mortal_desk(till, 0) as (desk, _):
        assert await process_webhook(desk, till.tenant_id, f"whk_{till.tenant_id}") is None
    (row,) = await till.rows("SELECT state FROM webhooks WHERE tenant_id = $1", till.tenant_id)
    assert row["state"] == "UNMATCHED"
