"""What goes wrong behind or before the gateway is told as a problem, with the reason it has over gRPC."""

from __future__ import annotations

import asyncio

import grpc
import httpx
import pytest

from mesh.errors import Problem, Reason, Violation
from tests.gateway.far_end import FarEnd
from tests.gateway.partner import PAYMENT, SIGNED, WRITE
from tests.gateway.running import Running, mesh_settings, own_settings, serving


async def test_a_problem_of_a_service_keeps_its_reason_and_details(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    far_end.problems["CreatePayment"] = Problem(
        Reason.FIELD_INVALID, violations=[Violation("amount.currency", "is not an ISO 4217 code")], currency="ZZZ"
    )

    response = await client.post("/v1/payments", headers=WRITE, json=PAYMENT)

    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["trace_id"] == response.headers["trace-id"]
    del problem["trace_id"]
    assert problem == {
        "type": "urn:kente:problem:field-invalid",
        "title": "Field invalid",
        "status": 400,
        "detail": "amount.currency is not an ISO 4217 code",
        "reason": "FIELD_INVALID",
        "domain": "kente",
        "remedy": "Correct the fields named in field_violations and send the request again.",
        "metadata": {"currency": "ZZZ"},
        "field_violations": [{"field": "amount.currency", "description": "is not an ISO 4217 code"}],
    }


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (Reason.FIELD_INVALID, 400),
        (Reason.CREDENTIALS_INVALID, 401),
        (Reason.SCOPE_MISSING, 403),
        (Reason.RATE_LIMITED, 429),
        (Reason.RESOURCE_NOT_FOUND, 404),
        (Reason.RESOURCE_ALREADY_EXISTS, 409),
        (Reason.STATE_CONFLICT, 400),
        (Reason.REQUEST_ID_REUSED, 409),
        (Reason.REQUEST_IN_FLIGHT, 409),
        (Reason.DEADLINE_PASSED, 504),
        (Reason.SERVICE_UNAVAILABLE, 503),
        (Reason.INTERNAL, 500),
        (Reason.METHOD_UNKNOWN, 501),
        (Reason.BALANCE_OVERFLOW, 400),
        (Reason.CALL_CANCELED, 499),
    ],
)
async def test_each_reason_has_its_http_status(
    client: httpx.AsyncClient, far_end: FarEnd, reason: Reason, status: int
) -> None:
    far_end.problems["CreatePayment"] = Problem(reason, "told", retry_after_seconds=1.5)

    response = await client.post("/v1/payments", headers=WRITE, json=PAYMENT)

    assert (response.status_code, response.json()["reason"]) == (status, reason.name)
    assert (response.json()["retry_after_seconds"], response.headers["retry-after"]) == (1.5, "2")
    assert ("www-authenticate" in response.headers) == (status == 401)


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, 503, "SERVICE_UNAVAILABLE"),
        (grpc.StatusCode.UNKNOWN, 500, "INTERNAL"),
        (grpc.StatusCode.DATA_LOSS, 500, "INTERNAL"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 504, "DEADLINE_PASSED"),
    ],
)
async def test_what_the_library_says_of_addresses_is_not_passed_on(
    client: httpx.AsyncClient, far_end: FarEnd, code: grpc.StatusCode, status: int, reason: str
) -> None:
    far_end.codes["CreatePayment"] = code

    response = await client.post("/v1/payments", headers=WRITE, json=PAYMENT)

    assert (response.status_code, response.json()["reason"]) == (status, reason)
    assert "10.1.2.3" not in response.text


async def test_a_service_that_is_away_is_503_with_advice() -> None:
    async with serving(own_settings(), mesh_settings(1), None) as running:
        headers = {**WRITE, "authorization": "Bearer a.b.c"}
        response = await running.client.post("/v1/payments", headers=headers, json=PAYMENT)

    assert (response.status_code, response.json()["reason"]) == (503, "SERVICE_UNAVAILABLE")
    assert response.json()["detail"] == "the payments service is away"
    assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("verb", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/payments//", 404),
        ("POST", "/v1/payments/x:fly", 405),
        ("OPTIONS", "/v1/payments", 405),
        ("GET", "/v1/payments/%c3%28", 400),
        ("GET", "/v1/payments/%", 400),
        ("TRACE", "/healthz", 405),
        ("GET", "/webhooks/mtn_momo/x", 405),
    ],
)
async def test_every_other_address_has_a_problem(client: httpx.AsyncClient, verb: str, path: str, status: int) -> None:
    response = await client.request(verb, path, headers=SIGNED)

    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["reason"] == ("BODY_MALFORMED" if status == 400 else "METHOD_UNKNOWN")
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /v1/payments/\xff\xfe HTTP/1.1",
        b"GET /v1/payments?\xff HTTP/1.1",
        b"GET /v1/payments/a?page_size=\x01 HTTP/1.1",
        b"GET http://elsewhere/v1/payments HTTP/1.1",
        b"GET * HTTP/1.1",
    ],
)
async def test_a_garbled_request_line_is_never_a_500(running: Running, request_line: bytes) -> None:
    host, port = running.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request_line + b"\r\nhost: x\r\nauthorization: Bearer a.b.c\r\nconnection: close\r\n\r\n")

    status = await asyncio.wait_for(reader.readline(), 5)

    assert status.split()[1][:1] in (b"2", b"4")
    writer.close()
