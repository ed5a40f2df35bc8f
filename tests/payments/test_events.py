"""What payments tells the mesh: every step once, in order, and nothing about the payer."""

from __future__ import annotations

import json
from typing import Any

import nats
import pytest
from kente.payments.v1 import payment_pb2

from tests.harness import eventually
from tests.payments.till import Till, ghana, money

PAYER = payment_pb2.Payer(display_name="Ama Mensah", email="ama.mensah@example.com")
MSISDN = ghana(567)


async def events_of(till: Till, last: str) -> list[dict[str, Any]]:
    """The events of the till's tenant, once the last one of a type is there."""
    client = await nats.connect(till.world.mesh.infrastructure.nats.url)
    found: list[dict[str, Any]] = []
    try:
        subscription = await client.jetstream().subscribe(f"kente.{till.tenant_id}.payments.>", ordered_consumer=True)

        async def complete() -> bool:
            message = await subscription.next_msg(timeout=10)
            found.append(json.loads(message.data))
            return str(found[-1]["type"]) == last

        await eventually(complete)
    finally:
        await client.close()
    return found


async def test_a_payment_and_its_refund_are_told_step_by_step(till: Till) -> None:
    paid = await till.ended((await till.create(payer=PAYER, msisdn=MSISDN)).payment_id)
    refund = await till.refund_ended(await till.refund(paid.payment_id, money(50)))
    events = await events_of(till, "payments.refund.posted")
    assert [event["type"].removeprefix("payments.") for event in events] == [
        "payment.created",
        "payment.processing",
        "payment.succeeded",
        "payment.posted",
        "refund.created",
        "refund.processing",
        "refund.succeeded",
        "refund.posted",
    ]
    assert {event["subject"] for event in events} == {paid.payment_id, refund.refund_id}
    versions = [int(event["data"]["version"]) for event in events[:4]]
    assert versions == sorted(set(versions))
    assert events[3]["data"]["ledgerTransactionId"] == paid.ledger_transaction_id


async def test_an_end_without_money_is_told(till: Till) -> None:
    await till.ended((await till.create(msisdn=ghana(452))).payment_id)
    assert (await events_of(till, "payments.payment.expired"))[-1]["data"]["failure"]["code"] == "CODE_PAYER_TIMED_OUT"


async def test_nothing_about_the_payer_is_told_or_logged(till: Till, capfd: pytest.CaptureFixture[str]) -> None:
    for fault in ("", "html_502", "timeout_after_commit", "decline"):
        if fault:
            await till.fault("collect", fault)
        await till.ended((await till.create(payer=PAYER, msisdn=MSISDN, description="Order 77")).payment_id)
    written = json.dumps(await events_of(till, "payments.payment.failed"))
    written += "".join(capfd.readouterr())
    assert "Order 77" in written
    for secret in (MSISDN[1:], "Mensah", "ama.mensah", "sandbox-api-key-of-mtn-momo"):
        assert secret not in written
