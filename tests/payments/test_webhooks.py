"""Callbacks: believed only from proven senders, once, in any order, and never needed."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any

import httpx
from kente.payments.v1 import payment_pb2, webhook_service_pb2

from mesh.errors import Reason
from mesh.ids import derive_uuid, new_id
from mesh.provider.registry import Registry
from tests.harness import eventually
from tests.payments.till import ONGOING, Till, World, card_request, money, refusal

STRIPE_SECRET = Registry("payments").adapter_class("stripe").sandbox_credentials["webhook_secret"]
SUCCEEDED = payment_pb2.Payment.STATE_SUCCEEDED


def signed_event(attempt: payment_pb2.Attempt, event_id: str, status: str, **fields: Any) -> tuple[bytes, str]:
    """An event of Stripe about a charge, and its signature."""
    charge = {
        "object": "payment_intent",
        "id": attempt.provider_reference or "pi_unknown",
        "status": status,
        "amount": 2000,
        "currency": "usd",
        "metadata": {"attempt_key": derive_uuid("attempt", attempt.attempt_id)},
        **fields,
    }
    event = {"id": event_id, "object": "event", "type": f"payment_intent.{status}", "data": {"object": charge}}
    body = json.dumps(event).encode()
    now = int(time.time())
    signature = hmac.new(STRIPE_SECRET.encode(), f"{now}.".encode() + body, hashlib.sha256).hexdigest()
    return body, f"t={now},v1={signature}"


def callback(
    provider: str, connection_id: str, body: bytes, signature: str = ""
) -> webhook_service_pb2.ReceiveWebhookRequest:
    """A callback as the gateway passes it on."""
    headers = {"stripe-signature": signature} if signature else {}
    return webhook_service_pb2.ReceiveWebhookRequest(
        provider=provider, connection_id=connection_id, headers=headers, body=body, http_method="POST"
    )


async def states_of(till: Till) -> list[str]:
    """States of the callbacks that are kept of the tenant."""
    rows = await till.rows("SELECT state FROM webhooks WHERE tenant_id = $1 ORDER BY webhook_id", till.tenant_id)
    return [row["state"] for row in rows]


async def opened(world: World, tenant_id: str) -> tuple[Till, str, payment_pb2.Payment]:
    """A client connected to Stripe, its connection, and a payment that waits for its payer."""
    till = Till(world, tenant_id)
    connection = await till.connect("stripe")
    request = card_request("pm_card_threeDSecure2Required", capture_method=payment_pb2.CAPTURE_METHOD_AUTOMATIC)
    return till, connection.connection_id, await till.create(request)


async def test_a_forged_callback_changes_nothing_and_is_not_kept(world: World, tenant_id: str) -> None:
    till, connection_id, payment = await opened(world, tenant_id)
    body, signature = signed_event(payment.attempts[0], "evt_forged", "succeeded", amount_received=2000)
    for forged_body, forged_signature in (
        (body, ""),
        (body, signature[:-1] + ("0" if signature[-1] != "0" else "1")),
        (body.replace(b"2000", b"2001"), signature),
        (b"not json", signature),
    ):
        problem = await refusal(
            till.webhooks.ReceiveWebhook(callback("stripe", connection_id, forged_body, forged_signature))
        )
        assert problem.reason is Reason.WEBHOOK_UNVERIFIED
    assert await states_of(till) == []
    assert (await till.get(payment.payment_id)).state == payment_pb2.Payment.STATE_ACTION_REQUIRED


async def test_a_proven_callback_is_kept_once_and_believed(world: World, tenant_id: str) -> None:
    till, connection_id, payment = await opened(world, tenant_id)
    body, signature = signed_event(payment.attempts[0], "evt_right", "succeeded", amount_received=2000)
    for _ in range(3):
        answer = await till.webhooks.ReceiveWebhook(callback("stripe", connection_id, body, signature))
        assert answer.http_status == httpx.codes.OK
    done = await till.ended(payment.payment_id)
    assert done.state == SUCCEEDED
    assert len(await till.entries(payment.payment_id)) == 2
    assert await states_of(till) == ["PROCESSED"]


async def test_a_callback_of_another_amount_holds_the_payment(world: World, tenant_id: str) -> None:
    till, connection_id, payment = await opened(world, tenant_id)
    body, signature = signed_event(payment.attempts[0], "evt_less", "succeeded", amount_received=1)
    await till.webhooks.ReceiveWebhook(callback("stripe", connection_id, body, signature))

    async def processed() -> bool:
        return await states_of(till) == ["PROCESSED"]

    await eventually(processed)
    # The provider was asked, and says that nothing was taken.
    assert (await till.get(payment.payment_id)).state == payment_pb2.Payment.STATE_ACTION_REQUIRED
    assert await till.entries(payment.payment_id) == []


async def test_success_after_the_end_is_kept_for_people(world: World, tenant_id: str) -> None:
    till, _, payment = await opened(world, tenant_id)
    await till.cancel(payment.payment_id)
    charge = payment.attempts[0].provider_reference
    shelf = world.sandbox.simulators["stripe"].shelf
    stored = shelf.get("payment_intent", charge)
    assert stored is not None
    # What must not happen, happens: the provider takes the money after it confirmed the cancellation.
    shelf.put("payment_intent", charge, {**stored, "status": "succeeded", "amount_received": 2000})
    body, signature = signed_event(payment.attempts[0], "evt_late", "succeeded", amount_received=2000)
    await till.webhooks.ReceiveWebhook(callback("stripe", payment.attempts[0].connection_id, body, signature))

    async def anomalies() -> list[Any]:
        return await till.rows("SELECT kind FROM anomalies WHERE payment_id = $1", payment.payment_id)

    assert [row["kind"] for row in await eventually(anomalies)] == ["MONEY_AFTER_END"]
    assert (await till.get(payment.payment_id)).state == payment_pb2.Payment.STATE_CANCELED
    (row,) = await till.rows("SELECT anomaly, held FROM payments WHERE payment_id = $1", payment.payment_id)
    assert (row["anomaly"], row["held"]) == ("MONEY_AFTER_END", False)


async def test_an_unsigned_callback_makes_us_ask(till: Till) -> None:
    """MTN signs nothing: whoever claims a success only makes us look, and the payer has not approved."""
    payment = await till.create(msisdn=ONGOING)
    claim = {
        "externalId": derive_uuid("attempt", payment.attempts[0].attempt_id),
        "amount": "10.50",
        "currency": "GHS",
        "payer": {"partyIdType": "MSISDN", "partyId": ONGOING[1:]},
        "status": "SUCCESSFUL",
    }
    body = json.dumps(claim).encode()
    await till.webhooks.ReceiveWebhook(callback("mtn_momo", payment.attempts[0].connection_id, body))

    async def processed() -> bool:
        return await states_of(till) == ["PROCESSED"]

    await eventually(processed)
    assert (await till.get(payment.payment_id)).state == payment_pb2.Payment.STATE_PROCESSING


async def test_a_callback_reaches_only_the_connection_that_it_names(world: World, tenant_id: str) -> None:
    till, connection_id, payment = await opened(world, tenant_id)
    stranger = Till(world, new_id("ten"))
    other = (await stranger.connect("stripe")).connection_id
    body, signature = signed_event(payment.attempts[0], "evt_astray", "succeeded", amount_received=2000)
    await stranger.webhooks.ReceiveWebhook(callback("stripe", other, body, signature))

    async def kept() -> bool:
        return bool(await states_of(stranger))

    await eventually(kept)
    assert await states_of(till) == []
    assert (await till.get(payment.payment_id)).state == payment_pb2.Payment.STATE_ACTION_REQUIRED
    problem = await refusal(till.webhooks.ReceiveWebhook(callback("mtn_momo", connection_id, body)))
    assert problem.reason is Reason.RESOURCE_NOT_FOUND
    problem = await refusal(till.webhooks.ReceiveWebhook(callback("stripe", new_id("con"), body, signature)))
    assert problem.reason is Reason.RESOURCE_NOT_FOUND


async def test_a_refund_that_the_provider_takes_back_is_kept_for_people(world: World, tenant_id: str) -> None:
    till = Till(world, tenant_id)
    connection = await till.connect("stripe")
    paid = await till.ended(
        (await till.create(card_request(capture_method=payment_pb2.CAPTURE_METHOD_AUTOMATIC))).payment_id
    )
    refund = await till.refund_ended(await till.refund(paid.payment_id, money(500, "USD")))
    shelf = world.sandbox.simulators["stripe"].shelf
    stored = shelf.get("refund", refund.provider_reference)
    assert stored is not None
    returned = {**stored, "status": "failed", "failure_reason": "expired_or_canceled_card"}
    shelf.put("refund", refund.provider_reference, returned)
    event = {"id": "evt_back", "object": "event", "type": "refund.failed", "data": {"object": returned}}
    body = json.dumps({**event, "data": {"object": {k: v for k, v in returned.items() if k[0] != "_"}}}).encode()
    now = int(time.time())
    signature = hmac.new(STRIPE_SECRET.encode(), f"{now}.".encode() + body, hashlib.sha256).hexdigest()
    await till.webhooks.ReceiveWebhook(callback("stripe", connection.connection_id, body, f"t={now},v1={signature}"))

    async def anomalies() -> list[Any]:
        return await till.rows("SELECT kind FROM anomalies WHERE subject_id = $1", refund.refund_id)

    assert [row["kind"] for row in await eventually(anomalies)] == ["END_AFTER_SUCCESS"]
    assert (await till.refund_ended(refund)).state == payment_pb2.Refund.STATE_SUCCEEDED
