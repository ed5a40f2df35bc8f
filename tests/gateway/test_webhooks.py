"""Callbacks reach the domain that owns the connection, byte for byte."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from kente.connections.v1.credential_service_pb2 import LocateConnectionResponse
from kente.payments.v1.webhook_service_pb2 import ReceiveWebhookResponse

from mesh.errors import Problem, Reason
from mesh.tokens import TrustBundle
from tests.gateway.far_end import CONNECTION_ID, TENANT_ID, FarEnd
from tests.gateway.running import Running

PATH = f"/webhooks/mtn_momo/{CONNECTION_ID}"


@pytest.fixture
def running(fresh_gateway: Running) -> Running:
    return fresh_gateway


async def test_a_callback_arrives_untouched(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    body = b'{ "amount" : "10.50" ,\n "x": "\xc3\xa9" }\x00\xff'
    headers = [("X-Signature", "t=1,v1=ab"), ("X-Many", "a"), ("x-many", "b"), ("Content-Type", "text/odd")]

    response = await client.post(f"{PATH}?status=OK&x=%2F+%zz", headers=headers, content=body)

    assert (response.status_code, response.content) == (202, b'{"taken":true}')
    assert response.headers["content-type"] == "application/json"
    request = far_end.last("ReceiveWebhook").request
    assert request.body == body
    assert request.query == "status=OK&x=%2F+%zz"
    assert (request.provider, request.connection_id, request.http_method) == ("mtn_momo", CONNECTION_ID, "POST")
    kept = {name: request.headers[name] for name in ("x-signature", "x-many", "content-type")}
    assert kept == {"x-signature": "t=1,v1=ab", "x-many": "a, b", "content-type": "text/odd"}


async def test_the_call_is_the_gateways_own_for_the_tenant(
    client: httpx.AsyncClient, far_end: FarEnd, trust_bundle: TrustBundle
) -> None:
    await client.post(PATH, content=b"{}", headers={"authorization": "Basic cHJvdmlkZXI6c2VjcmV0"})

    seen = far_end.last("ReceiveWebhook")
    principal = trust_bundle.verify(seen.metadata["authorization"].removeprefix("Bearer "))
    assert (principal.subject, principal.tenant_id) == ("spiffe://kente/gateway", TENANT_ID)
    assert seen.request.headers["authorization"] == "Basic cHJvdmlkZXI6c2VjcmV0"


async def test_a_put_is_taken_and_a_get_is_not(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    put = await client.put(PATH, content=b"x")
    got = await client.get(PATH)

    assert (put.status_code, far_end.last("ReceiveWebhook").request.http_method) == (202, "PUT")
    assert (got.status_code, got.headers["allow"]) == (405, "POST, PUT")


async def test_the_owner_is_asked_for_once(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    for _ in range(3):
        await client.post(PATH, content=b"x")

    assert len(far_end.calls("LocateConnection")) == 1
    assert len(far_end.calls("ReceiveWebhook")) == 3


@pytest.mark.parametrize(
    "path",
    [
        f"/webhooks/stripe/{CONNECTION_ID}",
        f"/webhooks/mtn_momo/con_{'2' * 26}",
        "/webhooks/mtn_momo/nonsense",
        "/webhooks/mtn_momo/%00",
    ],
)
async def test_an_address_of_no_connection_is_unknown(client: httpx.AsyncClient, far_end: FarEnd, path: str) -> None:
    responses = [await client.post(path, content=b"x") for _ in range(2)]

    for response in responses:
        assert (response.status_code, response.json()["reason"]) == (404, "RESOURCE_NOT_FOUND")
        assert response.json()["detail"] == "no connection has this callback address"
    assert far_end.calls("ReceiveWebhook") == []
    assert len(far_end.calls("LocateConnection")) == 1


async def test_a_domain_without_callbacks_has_no_address(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    located = LocateConnectionResponse(tenant_id=TENANT_ID, provider="mtn_momo", domain="ledger")
    far_end.answers["LocateConnection"] = lambda _: located

    response = await client.post(PATH, content=b"x")

    assert (response.status_code, response.json()["reason"]) == (404, "RESOURCE_NOT_FOUND")


@pytest.mark.parametrize(
    ("problem", "status"),
    [
        (Problem(Reason.WEBHOOK_UNVERIFIED), 401),
        (Problem(Reason.SERVICE_UNAVAILABLE, "away", retry_after_seconds=1.0), 503),
    ],
)
async def test_a_refusal_tells_the_provider_whether_to_send_again(
    client: httpx.AsyncClient, far_end: FarEnd, problem: Problem, status: int
) -> None:
    far_end.problems["ReceiveWebhook"] = problem

    response = await client.post(PATH, content=b"x")

    assert (response.status_code, response.json()["reason"]) == (status, problem.reason_name)


async def test_connections_away_is_not_an_unknown_address(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    far_end.problems["LocateConnection"] = Problem(Reason.SERVICE_UNAVAILABLE, "away", retry_after_seconds=1.0)
    away = await client.post(PATH, content=b"x")
    del far_end.problems["LocateConnection"]

    back = await client.post(PATH, content=b"x")

    assert (away.status_code, back.status_code) == (503, 202)


async def test_a_body_beyond_the_limit_is_refused(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    largest = await client.post(PATH, content=b"x" * 1024 * 1024)
    larger = await client.post(PATH, content=b"x" * (1024 * 1024 + 1))

    assert (largest.status_code, larger.status_code) == (202, 413)
    assert len(far_end.calls("ReceiveWebhook")) == 1


@pytest.mark.parametrize(
    ("fields", "status", "content_type"),
    [
        ({"http_status": 204}, 204, None),
        ({"http_status": 200, "body": b"OK", "content_type": "text/plain"}, 200, "text/plain"),
        ({"http_status": 410, "body": b"<gone/>", "content_type": "text/xml"}, 410, "text/xml"),
    ],
)
async def test_the_domain_says_what_the_provider_gets(
    client: httpx.AsyncClient, far_end: FarEnd, fields: dict[str, Any], status: int, content_type: str | None
) -> None:
    answer = ReceiveWebhookResponse(**fields)
    far_end.answers["ReceiveWebhook"] = lambda _: answer

    response = await client.post(PATH, content=b"x")

    assert (response.status_code, response.content) == (status, answer.body)
    assert response.headers.get("content-type") == content_type


async def test_an_answer_without_a_status_is_a_fault_of_ours(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    far_end.answers["ReceiveWebhook"] = lambda _: ReceiveWebhookResponse()

    response = await client.post(PATH, content=b"x")

    assert (response.status_code, response.json()["reason"]) == (500, "INTERNAL")
