"""Many payments over lines of which a third break at random: none is lost, none is paid twice, the books agree."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kente.payments.v1 import payment_pb2

from mesh.ids import new_id
from mesh.sandbox.server import Sandbox
from mesh.sandbox.settings import SandboxSettings
from tests.payments.till import Till, World, card_request

TENANTS, PAYMENTS = 12, 4


@pytest.fixture(scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    """Providers that are unwell."""
    folder: Path = tmp_path_factory.mktemp("sandbox")
    settings = SandboxSettings(
        port=0,
        smtp_port=0,
        approval_seconds=0.05,
        late_callback_seconds=0.5,
        hang_seconds=5,
        fault_rate=0.3,
        seed=7,
    )
    started = Sandbox(settings, "127.0.0.1", folder / "sandbox.db")
    await started.start()
    yield started
    await started.stop()


async def pay_and_give_back(till: Till, provider: str) -> int:
    """One payment and one refund of a part of it, to their ends; returns what the merchant keeps, in minor units."""
    request = card_request(capture_method=payment_pb2.CAPTURE_METHOD_AUTOMATIC) if provider == "stripe" else None
    payment = await till.ended((await till.create(request)).payment_id, 90)
    assert payment.state == payment_pb2.Payment.STATE_SUCCEEDED
    part = payment_pb2.Refund(amount=payment.captured_amount).amount
    part.amount_minor //= 3
    refund = await till.refund_ended(await till.refund(payment.payment_id, part), 90)
    assert refund.state == payment_pb2.Refund.STATE_SUCCEEDED
    assert len(await till.entries(payment.payment_id)) == 4
    return int(payment.captured_amount.amount_minor - part.amount_minor)


@pytest.mark.parametrize(("provider", "currency"), [("mtn_momo", "ghs"), ("stripe", "usd")])
async def test_a_storm_costs_nothing(world: World, provider: str, currency: str) -> None:
    async def trade() -> None:
        till = Till(world, new_id("ten"))
        await till.connect(provider)
        kept = sum([await pay_and_give_back(till, provider) for _ in range(PAYMENTS)])
        assert await till.balance("liabilities:merchant:" + currency) == kept
        assert await till.balance(f"assets:providers:{provider}:{currency}") == kept

    await asyncio.gather(*(trade() for _ in range(TENANTS)))
    shelf = world.sandbox.simulators[provider].shelf
    expected = TENANTS * PAYMENTS
    taken = "charge" if provider == "stripe" else "collect"
    assert shelf.movement_counts() == {taken: expected, "refund": expected}
