"""Watching a payment: what it is now, then every change that can be seen, until it can change no more by itself."""

from __future__ import annotations

import asyncio

import asyncpg
from kente.payments.v1 import payment_pb2, payment_service_pb2

from mesh.errors import Reason
from mesh.ids import new_id
from tests.payments.till import Till, World, card_request, ghana, refusal

State = payment_pb2.Payment


async def watched(till: Till, payment_id: str) -> list[payment_pb2.Payment]:
    """All that a watcher sees."""
    request = payment_service_pb2.WatchPaymentRequest(payment_id=payment_id)
    return [answer.payment async for answer in till.payments.WatchPayment(request)]


async def test_a_watcher_sees_rising_versions_until_the_end(till: Till) -> None:
    payment = await till.create()
    seen = await watched(till, payment.payment_id)
    versions = [each.version for each in seen]
    assert versions == sorted(set(versions))
    assert seen[0].state == State.STATE_PROCESSING
    assert seen[-1].state == State.STATE_SUCCEEDED


async def test_many_watchers_see_the_same_end(till: Till) -> None:
    payment = await till.create()
    everything = await asyncio.gather(*(watched(till, payment.payment_id) for _ in range(20)))
    assert {seen[-1].version for seen in everything} == {everything[0][-1].version}
    assert {seen[-1].state for seen in everything} == {State.STATE_SUCCEEDED}


async def test_a_payment_that_has_ended_is_seen_once(till: Till) -> None:
    payment = await till.ended((await till.create(msisdn=ghana(470))).payment_id)
    assert await watched(till, payment.payment_id) == [payment]


async def test_a_watcher_waits_through_a_reservation(world: World, tenant_id: str) -> None:
    till = Till(world, tenant_id)
    await till.connect("stripe")
    reserved = await till.create(card_request())
    request = payment_service_pb2.WatchPaymentRequest(payment_id=reserved.payment_id)
    call = till.payments.WatchPayment(request)
    first = await anext(aiter(call))
    assert first.payment.state == State.STATE_AUTHORIZED
    await till.capture(reserved.payment_id)
    assert [answer.payment.state async for answer in call][-1] == State.STATE_SUCCEEDED


async def test_watching_outlives_the_listening_connection(till: Till) -> None:
    payment = await till.create(msisdn=ghana(487))
    watching = asyncio.create_task(watched(till, payment.payment_id))
    admin = await asyncpg.connect(till.world.mesh.infrastructure.postgres.admin_url)
    # Only those that listen: the watch's own query on another connection would be told as the outage that it is.
    ended = await admin.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE usename = 'kente_payments' AND state = 'idle' AND query LIKE 'LISTEN%'"
    )
    await admin.close()
    assert ended
    assert (await watching)[-1].state == State.STATE_SUCCEEDED


async def test_what_does_not_exist_can_not_be_watched(world: World, till: Till) -> None:
    payment = await till.create()
    stranger = Till(world, new_id("ten"))
    assert (await refusal(watched(stranger, payment.payment_id))).reason is Reason.RESOURCE_NOT_FOUND
