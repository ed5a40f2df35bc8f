"""Killed at any moment: one payment, one charge, one posting, and the same answer to the same request."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import asyncpg
import grpc
import pytest
from kente.payments.v1 import payment_pb2, payment_service_pb2

from mesh.errors import Reason
from mesh.ids import derive_uuid, new_id
from services.payments import convert
from services.payments.model import AdjustmentKind
from services.payments.use_cases.adjust_payment import NewAdjustment, adjust_payment
from services.payments.use_cases.create_payment import NewPayment, create_payment
from services.payments.use_cases.create_refund import NewRefund, create_refund
from services.payments.use_cases.desk import Desk
from services.payments.use_cases.post_to_ledger import post_payment
from services.payments.use_cases.resolve_payment import resolve_payment
from tests.harness import PASSWORD, eventually
from tests.payments.mortal import count_moments, live_until
from tests.payments.till import (
    APPROVES,
    Till,
    World,
    card_request,
    ghana,
    money,
    new_request_id,
    payment_request,
    refusal,
)

State = payment_pb2.Payment
# As tests.harness sets request_hash_key.
FINGERPRINT_KEY = (PASSWORD * 8).encode()


def order_of(request: payment_service_pb2.CreatePaymentRequest) -> NewPayment:
    """What the servicer makes of a request."""
    method = convert.method_from_proto(request.method)
    return NewPayment(
        request_id=request.request_id,
        request_fingerprint=convert.fingerprint(FINGERPRINT_KEY, request),
        amount=convert.money_from_proto(request.amount),
        method=method,
        payer=convert.payer_from_proto(request.payer),
        connection_id=request.connection_id,
        description=request.description,
        merchant_reference=request.merchant_reference,
        capture_method=convert.capture_method_from_proto(request.capture_method, method),
    )


async def new_till(world: World) -> Till:
    """A client of its own tenant and connection, so that its provider's breaker is its own too."""
    till = Till(world, new_id("ten"))
    await till.connect()
    return till


async def asked_again(till: Till, request: payment_service_pb2.CreatePaymentRequest) -> payment_pb2.Payment:
    """The answer that the caller gets in the end, by sending the same request until there is one."""

    async def ask() -> payment_pb2.Payment | None:
        with suppress(grpc.aio.AioRpcError):
            return await till.create(request)
        return None

    answer: payment_pb2.Payment = await eventually(ask, 30)
    return answer


async def assert_paid_once(till: Till, payment_id: str) -> None:
    """The payment has ended, with one charge at the provider and one posting in the books."""
    payment = await till.ended(payment_id, 30)
    assert payment.state == State.STATE_SUCCEEDED
    assert payment.ledger_state == State.LEDGER_STATE_POSTED
    assert await till.collects(payment) == 1
    assert len(await till.entries(payment_id)) == 2


@pytest.mark.parametrize("msisdn", [APPROVES, ghana(480), ghana(485)])
async def test_a_payment_survives_a_kill_at_every_moment(world: World, msisdn: str) -> None:
    async def pay(desk: Desk, till: Till, request: payment_service_pb2.CreatePaymentRequest) -> None:
        await create_payment(desk, till.tenant_id, order_of(request))

    first = await new_till(world)
    moments = await count_moments(first, lambda desk: pay(desk, first, payment_request(msisdn=msisdn)))
    assert moments > 8

    async def killed_at(moment: int) -> None:
        till, request = await new_till(world), payment_request(msisdn=msisdn)
        assert await live_until(till, moment, lambda desk: pay(desk, till, request))
        # The caller's answer and the job go on at the same time, as they would.
        await assert_paid_once(till, (await asked_again(till, request)).payment_id)
        assert len(await till.rows("SELECT 1 FROM payments WHERE tenant_id = $1", till.tenant_id)) == 1

    await asyncio.gather(*(killed_at(moment) for moment in range(1, moments + 1)))


async def test_the_same_request_in_many_processes_at_once_is_one_payment(till: Till) -> None:
    request = payment_request()

    async def pay(desk: Desk) -> None:
        await create_payment(desk, till.tenant_id, order_of(request))

    await asyncio.gather(*(live_until(till, 0, pay) for _ in range(8)))
    (row,) = await till.rows("SELECT payment_id FROM payments WHERE tenant_id = $1", till.tenant_id)
    await assert_paid_once(till, row["payment_id"])


async def test_what_was_written_is_finished_though_nobody_asks_again(till: Till) -> None:
    async def pay(desk: Desk) -> None:
        await create_payment(desk, till.tenant_id, order_of(payment_request()))

    moments = await count_moments(till, pay)
    await asyncio.gather(*(live_until(till, moment, pay) for moment in range(1, moments + 1)))
    rows = await till.rows("SELECT payment_id FROM payments WHERE tenant_id = $1", till.tenant_id)
    await asyncio.gather(*(assert_paid_once(till, row["payment_id"]) for row in rows))


async def test_the_job_survives_a_kill_at_every_moment(world: World) -> None:
    async def resolve(desk: Desk, till: Till, payment_id: str) -> None:
        async def step() -> bool:
            return await resolve_payment(desk, till.tenant_id, payment_id) is None

        await eventually(step)

    async def killed_at(moment: int) -> None:
        till = await new_till(world)
        # 485 loses the request: the job must find that out and send it again, with the same key.
        payment = await till.create(msisdn=ghana(485))
        await live_until(till, moment, lambda desk: resolve(desk, till, payment.payment_id))
        await assert_paid_once(till, payment.payment_id)

    await asyncio.gather(*(killed_at(moment) for moment in range(1, 20)))


async def test_a_refund_survives_a_kill_at_every_moment(till: Till) -> None:
    async def give_back(desk: Desk, payment_id: str, request_id: str) -> None:
        order = NewRefund(
            request_id=request_id,
            request_fingerprint=b"refund",
            payment_id=payment_id,
            amount=None,
            description="",
        )
        await create_refund(desk, till.tenant_id, order)

    async def paid() -> str:
        return (await till.ended((await till.create()).payment_id)).payment_id

    first = await paid()
    moments = await count_moments(till, lambda desk: give_back(desk, first, new_request_id()))

    async def killed_at(moment: int) -> None:
        payment_id, request_id = await paid(), new_request_id()
        assert await live_until(till, moment, lambda desk: give_back(desk, payment_id, request_id))
        await live_until(till, 0, lambda desk: give_back(desk, payment_id, request_id))
        (row,) = await till.rows("SELECT refund_id FROM refunds WHERE payment_id = $1", payment_id)
        refund = payment_pb2.Refund(payment_id=payment_id, refund_id=row["refund_id"])
        assert (await till.refund_ended(refund)).state == payment_pb2.Refund.STATE_SUCCEEDED
        assert len(await till.movements([derive_uuid("refund", refund.refund_id)], "refund")) == 1
        assert len(await till.entries(payment_id)) == 4
        assert (await till.get(payment_id)).refunded_amount == money(1050)

    await asyncio.gather(*(killed_at(moment) for moment in range(1, moments + 1)))
    assert await till.balance("liabilities:merchant:ghs") == 0


@pytest.mark.parametrize("kind", list(AdjustmentKind))
async def test_a_capture_and_a_cancellation_survive_a_kill_at_every_moment(
    world: World, tenant_id: str, kind: AdjustmentKind
) -> None:
    till = Till(world, tenant_id)
    await till.connect("stripe")

    async def adjust(desk: Desk, payment_id: str, request_id: str) -> None:
        order = NewAdjustment(kind=kind, request_id=request_id, request_fingerprint=b"adjust", payment_id=payment_id)
        await adjust_payment(desk, till.tenant_id, order)

    async def reserved() -> str:
        return (await till.create(card_request())).payment_id

    first = await reserved()
    moments = await count_moments(till, lambda desk: adjust(desk, first, new_request_id()))

    async def killed_at(moment: int) -> None:
        payment_id, request_id = await reserved(), new_request_id()
        assert await live_until(till, moment, lambda desk: adjust(desk, payment_id, request_id))
        await live_until(till, 0, lambda desk: adjust(desk, payment_id, request_id))
        payment = await till.ended(payment_id)
        capture = kind is AdjustmentKind.CAPTURE
        assert payment.state == (State.STATE_SUCCEEDED if capture else State.STATE_CANCELED)
        taken = await till.movements([payment.attempts[0].provider_reference], "charge", "stripe")
        assert [each["amount"] for each in taken] == (["2000"] if capture else [])
        assert len(await till.entries(payment_id)) == (2 if capture else 0)

    await asyncio.gather(*(killed_at(moment) for moment in range(1, moments + 1)))


async def test_a_posting_survives_a_kill_at_every_moment(till: Till) -> None:
    queued = "UPDATE payments SET ledger_state = 'QUEUED', version = version + 1 WHERE payment_id = $1"

    async def post(desk: Desk, payment_id: str) -> None:
        await till.rows(queued, payment_id)
        await post_payment(desk, till.tenant_id, payment_id)

    first = (await till.ended((await till.create()).payment_id)).payment_id
    moments = await count_moments(till, lambda desk: post(desk, first))

    async def killed_at(moment: int) -> None:
        payment = await till.ended((await till.create()).payment_id)
        assert await live_until(till, moment, lambda desk: post(desk, payment.payment_id))
        await live_until(till, 0, lambda desk: post(desk, payment.payment_id))
        assert (await till.get(payment.payment_id)).ledger_transaction_id == payment.ledger_transaction_id
        assert len(await till.entries(payment.payment_id)) == 2

    await asyncio.gather(*(killed_at(moment) for moment in range(1, moments + 1)))


async def test_the_ledger_away_makes_a_queue_and_no_loss(world: World, till: Till) -> None:
    await world.mesh.stop("ledger")
    created = await till.create()

    async def taken() -> payment_pb2.Payment | None:
        found = await till.get(created.payment_id)
        return found if found.state == State.STATE_SUCCEEDED else None

    assert (await eventually(taken)).ledger_state == State.LEDGER_STATE_QUEUED
    # Silence is no refusal: the same transaction id is sent again.
    await world.mesh.start("ledger", {"write_rate_per_second": 100_000, "read_rate_per_second": 100_000})
    await assert_paid_once(till, created.payment_id)
    (row,) = await till.rows("SELECT ledger_refusals FROM payments WHERE payment_id = $1", created.payment_id)
    assert row["ledger_refusals"] == 0


async def test_the_connections_service_away_is_said_and_can_be_tried_again(world: World, till: Till) -> None:
    await world.mesh.stop("connections")
    request = payment_request()
    problem = await refusal(till.create(request))
    assert problem.reason in {Reason.SERVICE_UNAVAILABLE, Reason.DEADLINE_PASSED}
    assert await till.rows("SELECT 1 FROM payments WHERE tenant_id = $1", till.tenant_id) == []
    await world.mesh.start("connections", {"write_rate_per_second": 100_000, "read_rate_per_second": 100_000})
    await assert_paid_once(till, (await asked_again(till, request)).payment_id)


async def test_database_connections_that_break_cost_nothing(till: Till) -> None:
    requests = [payment_request() for _ in range(8)]
    stop = asyncio.Event()

    async def break_connections() -> None:
        admin: asyncpg.Connection[Any] = await asyncpg.connect(till.world.mesh.infrastructure.postgres.admin_url)
        while not stop.is_set():
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'kente_payments'"
            )
            await asyncio.sleep(0.3)
        await admin.close()

    breaking = asyncio.create_task(break_connections())
    payments = await asyncio.gather(*(asked_again(till, request) for request in requests))
    stop.set()
    await breaking
    await asyncio.gather(*(assert_paid_once(till, payment.payment_id) for payment in payments))
    rows = await till.rows("SELECT 1 FROM payments WHERE tenant_id = $1", till.tenant_id)
    assert len(rows) == len(requests)
