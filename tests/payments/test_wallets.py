"""Mobile-money payments through the contract: from the request to the books, and what can go wrong on the way."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from kente.payments.v1 import payment_pb2, payment_service_pb2

from mesh.embedded.ports import find_free
from mesh.errors import Reason
from mesh.ids import new_id
from mesh.provider.registry import Registry
from mesh.sandbox.server import Sandbox
from mesh.sandbox.settings import SandboxSettings
from tests.harness import eventually
from tests.payments.till import Till, World, ghana, money, payment_request, refusal

SUCCEEDED, FAILED = payment_pb2.Payment.STATE_SUCCEEDED, payment_pb2.Payment.STATE_FAILED
POSTED = payment_pb2.Payment.LEDGER_STATE_POSTED
PROVIDER_ACCOUNT, MERCHANT_ACCOUNT = "assets:providers:mtn_momo:ghs", "liabilities:merchant:ghs"


async def test_a_payment_is_approved_booked_and_explained(till: Till) -> None:
    created = await till.create()
    assert created.state == payment_pb2.Payment.STATE_PROCESSING
    assert created.next_action.instructions
    payment = await till.ended(created.payment_id)
    assert (payment.state, payment.ledger_state) == (SUCCEEDED, POSTED)
    assert payment.captured_amount == money(1050)
    assert "GH" in payment.route.explanation
    assert [attempt.state for attempt in payment.attempts] == [payment_pb2.Attempt.STATE_SUCCEEDED]
    entries = await till.entries(payment.payment_id)
    assert {entry.transaction_id for entry in entries} == {payment.ledger_transaction_id}
    assert await till.balance(PROVIDER_ACCOUNT) == await till.balance(MERCHANT_ACCOUNT) == 1050
    assert await till.collects(payment) == 1


@pytest.mark.parametrize(
    ("ending", "state", "code"),
    [
        (470, FAILED, payment_pb2.Failure.CODE_INSUFFICIENT_FUNDS),
        (451, payment_pb2.Payment.STATE_CANCELED, payment_pb2.Failure.CODE_PAYER_REJECTED),
        (452, payment_pb2.Payment.STATE_EXPIRED, payment_pb2.Failure.CODE_PAYER_TIMED_OUT),
    ],
)
async def test_a_payment_without_approval_ends_without_money(
    till: Till, ending: int, state: payment_pb2.Payment.State.ValueType, code: payment_pb2.Failure.Code.ValueType
) -> None:
    payment = await till.ended((await till.create(msisdn=ghana(ending))).payment_id)
    assert (payment.state, payment.failure.code) == (state, code)
    assert payment.ledger_state == payment_pb2.Payment.LEDGER_STATE_UNSPECIFIED
    assert await till.entries(payment.payment_id) == []
    assert await till.collects(payment) == 0


@pytest.mark.parametrize("ending", range(480, 490))
async def test_a_broken_line_costs_the_payer_nothing_twice(till: Till, ending: int) -> None:
    """480 time-out after commit, 481 reset, 482 HTML, 483 half an answer, 484 429, 485 time-out, 486-489 callbacks."""
    created = await till.create(msisdn=ghana(ending))
    payment = await till.ended(created.payment_id)
    assert payment.state == SUCCEEDED
    assert len(payment.attempts) == 1
    assert await till.collects(payment) == 1
    assert len(await till.entries(payment.payment_id)) == 2


async def test_a_status_that_nobody_documented_is_not_believed(till: Till) -> None:
    await till.fault("find_collect", "unknown_status", count=3)
    payment = await till.ended((await till.create()).payment_id)
    assert payment.state == SUCCEEDED
    assert await till.collects(payment) == 1


async def test_the_same_request_many_times_at_once_is_one_payment(till: Till) -> None:
    request = payment_request()

    async def ask() -> str:
        with suppress(grpc.aio.AioRpcError):
            return (await till.create(request)).payment_id
        return ""

    async def answered() -> str:
        payment_id: str = await eventually(ask)
        return payment_id

    ids = await asyncio.gather(*(answered() for _ in range(12)))
    assert len(set(ids)) == 1
    payment = await till.ended(ids[0])
    assert await till.collects(payment) == 1
    assert len(await till.rows("SELECT 1 FROM payments WHERE tenant_id = $1", till.tenant_id)) == 1


async def test_a_request_id_is_for_one_body(till: Till) -> None:
    request = payment_request()
    await till.create(request)
    other = payment_request(request_id=request.request_id, amount=money(1))
    assert (await refusal(till.create(other))).reason is Reason.REQUEST_ID_REUSED


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"msisdn": "+233302123456"}, "method.mobile_money.msisdn"),
        ({"msisdn": "+2335999"}, "method.mobile_money.msisdn"),
        ({"msisdn": "0241234567"}, "method.mobile_money.msisdn"),
        ({"amount": money(1050, "GHX")}, "amount.currency"),
        ({"amount": money(1050, "ghs")}, "amount.currency"),
        ({"amount": money(0)}, "amount"),
        ({"amount": money(-1)}, "amount"),
        ({"connection_id": new_id("con")}, "connection_id"),
        ({"request_id": "once"}, "request_id"),
    ],
)
async def test_bad_input_names_the_field_and_moves_nothing(till: Till, fields: dict[str, Any], field: str) -> None:
    problem = await refusal(till.create(**fields))
    assert problem.reason is Reason.FIELD_INVALID
    assert [violation.field for violation in problem.violations] == [field]
    assert fields.get("msisdn", "+000") not in str(problem)
    assert await till.rows("SELECT 1 FROM payments WHERE tenant_id = $1", till.tenant_id) == []


async def test_no_route_says_why_for_each_connection(till: Till) -> None:
    card = await till.connect("stripe")
    problem = await refusal(till.create(msisdn="+254712345678", amount=money(100, "KES")))
    assert problem.reason is Reason.NO_ROUTE
    assert "does not take mobile money" in problem.metadata[card.connection_id]
    assert "does not serve KE" in str(problem.metadata)
    assert "712345678" not in str(problem.metadata)


async def test_an_unreachable_provider_is_followed_by_the_next(till: Till) -> None:
    (usable,) = [found.connection_id for found in await till.listed()]
    await till.disconnect(usable)
    away = await till.connect(base_url=f"http://127.0.0.1:{find_free(1)[0]}")
    there = await till.connect()
    payment = await till.ended((await till.create()).payment_id)
    assert payment.state == SUCCEEDED
    states = {attempt.connection_id: attempt.state for attempt in payment.attempts}
    assert states == {
        away.connection_id: payment_pb2.Attempt.STATE_NOT_SENT,
        there.connection_id: payment_pb2.Attempt.STATE_SUCCEEDED,
    }
    assert payment.route.connection_id == there.connection_id
    assert "could not do it" in payment.route.explanation
    assert await till.collects(payment) == 1


async def test_a_payment_waits_for_a_provider_that_comes_back(world: World, tenant_id: str, tmp_path: Path) -> None:
    port = find_free(1)[0]
    till = Till(world, tenant_id)
    await till.connect(base_url=f"http://127.0.0.1:{port}/mtn_momo")
    created = await till.create()
    assert created.state == payment_pb2.Payment.STATE_PROCESSING
    assert [attempt.state for attempt in created.attempts] == [payment_pb2.Attempt.STATE_NOT_SENT]
    late = Sandbox(SandboxSettings(port=port, smtp_port=0, approval_seconds=0.05), "127.0.0.1", tmp_path / "late.db")
    await late.start()
    payment = await till.ended(created.payment_id)
    assert payment.state == SUCCEEDED
    assert [attempt.attempt_id for attempt in payment.attempts] == [created.attempts[0].attempt_id]
    assert len(late.simulators["mtn_momo"].shelf.movements()) == 1
    await late.stop()


async def test_refused_credentials_end_the_payment_and_name_the_connection(world: World, tenant_id: str) -> None:
    till = Till(world, tenant_id)
    right = Registry("payments").adapter_class("mtn_momo").sandbox_credentials
    wrong = {**right, "collection_api_key": "wrong-secret"}
    connection = await till.connect(credentials=wrong)
    request = payment_request()
    problem = await refusal(till.create(request))
    assert problem.reason is Reason.CONNECTION_CREDENTIALS_REFUSED
    assert problem.metadata["connection_id"] == connection.connection_id
    assert "wrong-secret" not in str(problem)
    payment = await till.get(problem.metadata["payment_id"])
    assert (payment.state, payment.failure.code) == (FAILED, payment_pb2.Failure.CODE_PROVIDER_UNAVAILABLE)
    assert (await refusal(till.create(request))).metadata == problem.metadata


async def test_another_tenants_payment_looks_like_none(world: World, till: Till) -> None:
    payment = await till.create()
    stranger = Till(world, new_id("ten"))
    problem = await refusal(stranger.get(payment.payment_id))
    assert problem.reason is Reason.RESOURCE_NOT_FOUND
    assert (await refusal(stranger.refund(payment.payment_id))).reason is Reason.RESOURCE_NOT_FOUND


async def test_payments_are_listed_newest_first_page_by_page(till: Till) -> None:
    created = [(await till.create(merchant_reference=f"order-{number % 2}")).payment_id for number in range(5)]
    request = payment_service_pb2.ListPaymentsRequest(page_size=2)
    found = []
    while True:
        page = await till.payments.ListPayments(request)
        found += [payment.payment_id for payment in page.payments]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert found == created[::-1]
    one = payment_service_pb2.ListPaymentsRequest(merchant_reference="order-1")
    assert [payment.payment_id for payment in (await till.payments.ListPayments(one)).payments] == [
        created[3],
        created[1],
    ]
    request.state = FAILED
    assert (await refusal(till.payments.ListPayments(request))).reason is Reason.PAGE_TOKEN_INVALID
