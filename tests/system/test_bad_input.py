"""Bad input to a whole mesh: a clear refusal with its registered reason, and nothing left behind."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import pytest
from kente.payments.v1 import payment_service_pb2, payment_service_pb2_grpc

from mesh.embedded import demo_env
from mesh.errors import Problem, Reason
from mesh.ids import new_id
from tests.system.live import LiveMesh

PAYMENT: dict[str, Any] = {
    "amount": {"amountMinor": "1050", "currency": "GHS"},
    "method": {"mobileMoney": {"msisdn": "+233241234567"}},
}


@pytest.fixture
async def partner(live: LiveMesh) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {live.environment[demo_env.API_KEY]}"}
    async with httpx.AsyncClient(base_url=live.base_url, headers=headers, timeout=20) as client:
        yield client


async def create(client: httpx.AsyncClient, body: object, **headers: str) -> httpx.Response:
    """Asks for a payment under a new key."""
    return await client.post("/v1/payments", json=body, headers={"Idempotency-Key": str(uuid.uuid4()), **headers})


async def count(client: httpx.AsyncClient) -> str:
    """The newest payment: the same before and after a refusal."""
    payments = (await client.get("/v1/payments", params={"pageSize": "1"})).json()["payments"]
    return str(payments[0]["paymentId"]) if payments else ""


@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [
        ({"amount": {"amountMinor": "0", "currency": "GHS"}}, "FIELD_INVALID", "amount"),
        ({"amount": {"amountMinor": "-1", "currency": "GHS"}}, "FIELD_INVALID", "amount"),
        ({"amount": {"amountMinor": 10.5, "currency": "GHS"}}, "BODY_MALFORMED", "amount.amount_minor"),
        ({"amount": {"amountMinor": str(2**63), "currency": "GHS"}}, "BODY_MALFORMED", "amount.amount_minor"),
        ({"amount": {"amountMinor": "1050", "currency": "ZZZ"}}, "FIELD_INVALID", "amount.currency"),
        ({"amount": {"amountMinor": "1050", "currency": "ghs"}}, "FIELD_INVALID", "amount.currency"),
        ({"method": {"mobileMoney": {"msisdn": "024 123 4567"}}}, "FIELD_INVALID", "method.mobile_money.msisdn"),
        ({"method": {"mobileMoney": {"msisdn": "+23324123"}}}, "FIELD_INVALID", "method.mobile_money.msisdn"),
        ({"colour": "red"}, "BODY_MALFORMED", "colour"),
        ({"description": "a\0b"}, "BODY_MALFORMED", "description"),
    ],
)
async def test_a_bad_field_is_named_and_nothing_is_made(
    partner: httpx.AsyncClient, body: dict[str, Any], reason: str, field: str
) -> None:
    before = await count(partner)
    response = await create(partner, PAYMENT | body)
    problem = response.json()

    assert (response.status_code, problem["reason"]) == (400, reason)
    assert field in {violation["field"] for violation in problem["field_violations"]}
    assert problem["remedy"]
    assert await count(partner) == before


async def test_malformed_json_is_refused(partner: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4()), "Content-Type": "application/json"}
    response = await partner.post("/v1/payments", content=b'{"amount": ', headers=headers)

    assert (response.status_code, response.json()["reason"]) == (400, "BODY_MALFORMED")


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [("", "CREDENTIALS_MISSING"), ("Bearer kente_00000000000000000000000000_nobody", "CREDENTIALS_INVALID")],
)
async def test_a_missing_and_an_unknown_key_are_told_apart_only_by_their_reason(
    live: LiveMesh, authorization: str, reason: str
) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    async with httpx.AsyncClient(base_url=live.base_url, headers=headers) as stranger:
        response = await create(stranger, PAYMENT)

    assert (response.status_code, response.json()["reason"]) == (401, reason)


async def test_a_key_without_the_scope_is_told_which(live: LiveMesh, partner: httpx.AsyncClient) -> None:
    made = await partner.post(
        "/v1/api-keys",
        json={"displayName": "reader", "scopes": ["payments:read"]},
        headers={"Idempotency-Key": str(uuid.uuid4())},
    )
    headers = {"Authorization": f"Bearer {made.json()['secret']}"}
    async with httpx.AsyncClient(base_url=live.base_url, headers=headers) as reader:
        response = await create(reader, PAYMENT)

    assert (response.status_code, response.json()["reason"]) == (403, "SCOPE_MISSING")
    assert response.json()["metadata"]["scope"] == "payments:write"


async def test_what_is_not_ours_looks_like_what_does_not_exist(partner: httpx.AsyncClient) -> None:
    response = await partner.get(f"/v1/payments/{new_id('pay')}")

    assert (response.status_code, response.json()["reason"]) == (404, "RESOURCE_NOT_FOUND")


async def test_a_key_with_another_body_is_refused_and_the_first_answer_stands(partner: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    first = await partner.post("/v1/payments", json=PAYMENT, headers=key)
    other = await partner.post("/v1/payments", json=PAYMENT | {"description": "another"}, headers=key)
    again = await partner.post("/v1/payments", json=PAYMENT, headers=key)

    assert first.status_code == 200
    assert (other.status_code, other.json()["reason"]) == (409, "REQUEST_ID_REUSED")
    assert again.content == first.content


async def test_a_deadline_that_is_over_makes_nothing(partner: httpx.AsyncClient) -> None:
    before = await count(partner)
    response = await create(partner, PAYMENT, **{"Kente-Timeout-Seconds": "0"})

    assert (response.status_code, response.json()["reason"]) == (504, "DEADLINE_PASSED")
    assert await count(partner) == before


async def test_grpc_refuses_with_the_same_reason_as_rest(live: LiveMesh, partner: httpx.AsyncClient) -> None:
    answer = await partner.post(
        "/v1/oauth/token",
        data={
            "grant_type": "client_credentials",
            "client_id": live.environment[demo_env.CLIENT_ID],
            "client_secret": live.environment[demo_env.API_KEY],
        },
    )
    metadata = [("authorization", f"Bearer {answer.json()['access_token']}")]
    async with grpc.aio.insecure_channel(live.environment["KENTE_GRPC_PAYMENTS"]) as channel:
        stub = payment_service_pb2_grpc.PaymentServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.CreatePayment(
                payment_service_pb2.CreatePaymentRequest(request_id=str(uuid.uuid4())), metadata=metadata
            )
    problem = Problem.from_rpc_error(refused.value)

    assert problem.reason is Reason.FIELD_INVALID
    assert {violation.field for violation in problem.violations} == {"amount", "method"}
