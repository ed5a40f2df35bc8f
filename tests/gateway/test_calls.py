"""Requests over REST reach the right RPC with the right message, and its answer comes back as JSON."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import httpx
import pytest

from tests.gateway.far_end import ACCESS_TOKEN, CONNECTION_ID, PAYMENT_ID, FarEnd
from tests.gateway.partner import KEY, PAYMENT, SIGNED, WRITE, violations
from tests.gateway.running import Running


async def test_a_post_becomes_a_call_and_its_answer_json(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    response = await client.post("/v1/payments", headers=WRITE, json=PAYMENT)

    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.headers["cache-control"] == "no-store"
    payment = response.json()["payment"]
    assert payment["paymentId"] == PAYMENT_ID
    assert payment["state"] == "STATE_PROCESSING"
    assert payment["amount"] == {"amountMinor": "1050", "currency": "GHS"}
    assert payment["version"] == "9007199254740993"
    assert payment["attempts"] == []
    seen = far_end.last("CreatePayment")
    assert seen.request.request_id == KEY
    assert seen.request.description == "Ördér 1"
    assert seen.metadata["authorization"] == f"Bearer {ACCESS_TOKEN}"
    assert 14 < seen.seconds_left < 15.5


async def test_fields_go_by_either_of_their_names(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    body = {"request_id": KEY, "amount": {"amount_minor": 5, "currency": "GHS"}, "merchantReference": "o-1"}

    response = await client.post("/v1/payments", headers=SIGNED, json=body)

    assert response.status_code == 200
    request = far_end.last("CreatePayment").request
    assert (request.amount.amount_minor, request.merchant_reference) == (5, "o-1")


async def test_the_path_fills_its_field_beside_the_body(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    body = {"amount": {"amountMinor": "5", "currency": "GHS"}}

    response = await client.post(f"/v1/payments/{PAYMENT_ID}:capture", headers=WRITE, json=body)

    assert response.status_code == 200
    request = far_end.last("CapturePayment").request
    assert (request.payment_id, request.request_id, request.amount.amount_minor) == (PAYMENT_ID, KEY, 5)


async def test_a_write_without_a_body_needs_only_its_key(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    captured = await client.post(f"/v1/payments/{PAYMENT_ID}:capture", headers=WRITE)
    deleted = await client.delete(f"/v1/connections/{CONNECTION_ID}", headers=WRITE)

    assert (captured.status_code, deleted.status_code) == (200, 200)
    assert not far_end.last("CapturePayment").request.HasField("amount")
    assert far_end.last("DeleteConnection").request.request_id == KEY


async def test_a_path_field_that_the_body_contradicts_is_refused(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    body = {"payment_id": "pay_other"}

    response = await client.post(f"/v1/payments/{PAYMENT_ID}:capture", headers=WRITE, json=body)

    assert response.status_code == 400
    assert violations(response) == {"payment_id": "differs from the one in the address"}
    assert far_end.calls("CapturePayment") == []


async def test_the_query_fills_what_the_path_leaves(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    query = {"pageSize": "20", "state": "STATE_SUCCEEDED", "merchant_reference": "a b&c=é"}

    response = await client.get("/v1/payments", headers=SIGNED, params=query)

    assert response.status_code == 200
    request = far_end.last("ListPayments").request
    assert (request.page_size, request.state, request.merchant_reference) == (20, 5, "a b&c=é")


@pytest.mark.parametrize(
    ("query", "field", "words"),
    [
        ("pageSize=many", "page_size", "must be a whole number"),
        ("pageSize=1.0", "page_size", "must be a whole number"),
        ("pageSize=1&page_size=2", "page_size", "is given twice"),
        ("state=PAID", "state", "must be one of STATE_UNSPECIFIED"),
        ("colour=red", "colour", "is not a field of this operation"),
        ("state.inner=1", "state.inner", "is not a field of this operation"),
        ("merchantReference=%00", "merchant_reference", "U+0000"),
    ],
)
async def test_a_query_that_does_not_fit_is_told_by_field(
    client: httpx.AsyncClient, query: str, field: str, words: str
) -> None:
    response = await client.get(f"/v1/payments?{query}", headers=SIGNED)

    assert (response.status_code, response.json()["reason"]) == (400, "BODY_MALFORMED")
    assert words in violations(response)[field]


@pytest.mark.parametrize("query", ["merchantReference=%ff", "merchantReference=%zz", "&".join(["a=b"] * 300)])
async def test_a_query_that_cannot_be_read_is_refused(client: httpx.AsyncClient, query: str) -> None:
    response = await client.get(f"/v1/payments?{query}", headers=SIGNED)

    assert (response.status_code, response.json()["reason"]) == (400, "BODY_MALFORMED")


async def test_what_belongs_in_the_body_is_refused_elsewhere(client: httpx.AsyncClient) -> None:
    in_query = await client.post("/v1/payments?description=x", headers=WRITE, json=PAYMENT)
    on_get = await client.request("GET", "/v1/payments", headers=SIGNED, json={"pageSize": 3})

    assert violations(in_query) == {"description": "belongs in the body, not in the query"}
    assert (on_get.status_code, on_get.json()["reason"]) == (400, "BODY_MALFORMED")
    assert "takes no body" in on_get.json()["detail"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b'{"amount": {"amountMinor": 10.5, "currency": "GHS"}}', 400, "amount.amount_minor"),
        (b'{"amount": {"amountMinor": 99999999999999999999, "currency": "GHS"}}', 400, "amount.amount_minor"),
        (b'{"amnt": {}}', 400, "amnt"),
        (b'{"amount": 1, "amount": 2}', 400, "amount"),
        (b"[1]", 400, "body"),
        (b"null", 400, "body"),
        (b"{", 400, None),
        (b"\xff", 400, None),
    ],
)
async def test_a_malformed_body_is_told_and_reaches_no_service(
    client: httpx.AsyncClient, far_end: FarEnd, body: bytes, status: int, field: str | None
) -> None:
    response = await client.post("/v1/payments", headers={**WRITE, "content-type": "application/json"}, content=body)

    assert (response.status_code, response.json()["reason"]) == (status, "BODY_MALFORMED")
    assert list(violations(response)) == ([field] if field else [])
    assert far_end.calls("CreatePayment") == []


async def test_a_write_without_a_key_is_told_to_send_one(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    response = await client.post("/v1/payments", headers=SIGNED, json=PAYMENT)

    assert (response.status_code, response.json()["reason"]) == (400, "FIELD_INVALID")
    assert "send an Idempotency-Key header" in violations(response)["request_id"]
    assert far_end.calls("CreatePayment") == []


@pytest.mark.parametrize("sent", [KEY, f'"{KEY}"', KEY.upper()])
async def test_the_key_header_becomes_the_request_id(client: httpx.AsyncClient, far_end: FarEnd, sent: str) -> None:
    response = await client.post("/v1/payments", headers={**SIGNED, "Idempotency-Key": sent}, json=PAYMENT)

    assert response.status_code == 200
    assert far_end.last("CreatePayment").request.request_id == sent.strip('"')


async def test_a_key_that_is_no_uuid_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/payments", headers={**SIGNED, "Idempotency-Key": "order-1"}, json=PAYMENT)

    assert (response.status_code, response.json()["reason"]) == (400, "FIELD_INVALID")
    assert violations(response) == {"Idempotency-Key": "must be a UUID, such as one that uuidgen prints"}


async def test_a_key_and_a_request_id_must_agree(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    same = await client.post("/v1/payments", headers=WRITE, json={**PAYMENT, "requestId": KEY})
    other = await client.post("/v1/payments", headers=WRITE, json={**PAYMENT, "requestId": str(uuid.uuid4())})

    assert (same.status_code, other.status_code) == (200, 400)
    assert "differs from the Idempotency-Key header" in violations(other)["request_id"]
    assert len(far_end.calls("CreatePayment")) == 1


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/xml", "", "application/json; charset=latin-1", "multipart/form-data"]
)
async def test_another_content_type_is_refused(client: httpx.AsyncClient, content_type: str) -> None:
    response = await client.post("/v1/payments", headers={**WRITE, "content-type": content_type}, content=b"{}")

    assert (response.status_code, response.json()["reason"]) == (415, "BODY_MALFORMED")
    assert "application/json" in response.headers["accept"]


async def test_json_sent_as_a_form_is_told_the_header_and_not_repeated(client: httpx.AsyncClient) -> None:
    headers = {**WRITE, "content-type": "application/x-www-form-urlencoded"}
    response = await client.post("/v1/payments", headers=headers, content=json.dumps(PAYMENT).encode())

    assert (response.status_code, response.json()["reason"]) == (415, "BODY_MALFORMED")
    assert "Content-Type: application/json" in response.json()["detail"]
    assert "233241234567" not in response.text


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded"])
async def test_a_value_in_the_place_of_a_name_is_not_repeated(client: httpx.AsyncClient, content_type: str) -> None:
    body = {"application/json": b'{"+233241234567": 1}', "application/x-www-form-urlencoded": b"%2B233241234567=1"}
    headers = {**WRITE, "content-type": content_type}
    response = await client.post("/v1/payments", headers=headers, content=body[content_type])

    assert response.status_code == 400
    assert "233241234567" not in response.text


async def test_a_body_beyond_the_limit_is_refused(client: httpx.AsyncClient) -> None:
    async def chunks() -> Any:
        for _ in range(20):
            yield b" " * 65536

    headers = {**WRITE, "content-type": "application/json"}
    told = await client.post("/v1/payments", headers=headers, content=b" " * (1024 * 1024 + 1))
    untold = await client.post("/v1/payments", headers=headers, content=chunks())

    assert (told.status_code, untold.status_code) == (413, 413)
    assert told.json()["detail"] == "the body is larger than 1048576 bytes"


async def test_the_caller_sets_the_deadline(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    far_end.gates["GetPayment"] = asyncio.Event()

    response = await client.get(f"/v1/payments/{PAYMENT_ID}", headers={**SIGNED, "Kente-Timeout-Seconds": "0.3"})

    assert (response.status_code, response.json()["reason"]) == (504, "DEADLINE_PASSED")
    assert far_end.last("GetPayment").seconds_left < 0.35


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ("0", 504, "DEADLINE_PASSED"),
        ("-1", 504, "DEADLINE_PASSED"),
        ("soon", 400, "FIELD_INVALID"),
        ("nan", 400, "FIELD_INVALID"),
        ("inf", 400, "FIELD_INVALID"),
    ],
)
async def test_a_deadline_that_is_over_or_no_number_reaches_no_service(
    client: httpx.AsyncClient, far_end: FarEnd, text: str, status: int, reason: str
) -> None:
    response = await client.post("/v1/payments", headers={**WRITE, "Kente-Timeout-Seconds": text}, json=PAYMENT)

    assert (response.status_code, response.json()["reason"]) == (status, reason)
    assert far_end.seen == []


async def test_a_deadline_too_far_away_is_shortened(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    await client.get(f"/v1/payments/{PAYMENT_ID}", headers={**SIGNED, "Kente-Timeout-Seconds": "99999"})

    # gRPC rounds a deadline this far away up by a second or so.
    assert 119 < far_end.last("GetPayment").seconds_left < 125


async def test_a_body_that_never_ends_does_not_hold_the_gateway(running: Running) -> None:
    async def chunks() -> Any:
        yield b"{"
        await asyncio.Event().wait()

    headers = {**WRITE, "content-type": "application/json", "Kente-Timeout-Seconds": "0.3"}
    host, port = running.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = [f"{name}: {value}" for name, value in {**headers, "host": host, "content-length": "100"}.items()]
    writer.write(("POST /v1/payments HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n{").encode())

    status = await asyncio.wait_for(reader.readline(), 5)

    assert status.startswith(b"HTTP/1.1 408")
    writer.close()
