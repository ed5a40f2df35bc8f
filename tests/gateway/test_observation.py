"""Health, metrics, traces and logs of the gateway."""

from __future__ import annotations

import httpx
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from mesh.errors import Problem, Reason
from tests.gateway.far_end import API_KEY, PAYMENT_ID, FarEnd
from tests.gateway.running import DOMAINS, Running, mesh_settings, own_settings, serving

SIGNED = {"authorization": f"Bearer {API_KEY}"}
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


async def metric(client: httpx.AsyncClient, name: str, **labels: str) -> float:
    """The value of one metric; 0 when it was never counted."""
    text = (await client.get("/metrics")).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items())


async def test_a_gateway_that_runs_is_alive(client: httpx.AsyncClient) -> None:
    response = await client.get("/healthz")

    assert (response.status_code, response.json()) == (200, {"status": "alive"})


async def test_a_gateway_is_ready_when_all_services_serve(client: httpx.AsyncClient) -> None:
    response = await client.get("/readyz")

    assert response.status_code == 200
    assert response.json() == {
        "status": "ready",
        "services": dict.fromkeys(sorted(DOMAINS), "SERVING"),
        "away": [],
    }


async def test_services_that_are_away_are_named(far_end_server: tuple[object, int]) -> None:
    shared = mesh_settings(far_end_server[1], ledger_address="127.0.0.1:1")
    async with serving(own_settings(), shared, None) as running:
        alive = await running.client.get("/healthz")
        ready = await running.client.get("/readyz")

    assert (alive.status_code, ready.status_code) == (200, 503)
    assert (ready.json()["status"], ready.json()["away"]) == ("waiting", ["ledger"])
    assert ready.json()["services"]["ledger"] == "UNREACHABLE"


async def test_a_gateway_that_stops_is_not_ready(fresh_gateway: Running) -> None:
    fresh_gateway.gateway.stopping.set()

    response = await fresh_gateway.client.get("/readyz")

    assert (response.status_code, response.json()["status"]) == (503, "stopping")


async def test_requests_are_counted_by_route_and_status(fresh_gateway: Running) -> None:
    client = fresh_gateway.client
    await client.get(f"/v1/payments/{PAYMENT_ID}", headers=SIGNED)
    await client.get(f"/v1/payments/{PAYMENT_ID}")
    await client.get("/v1/nothing/4711")
    await client.request("TRACE", "/v1/nothing/4712")

    route = "/v1/payments/{payment_id}"
    name = "kente_gateway_requests_total"
    assert await metric(client, name, verb="GET", route=route, status="200") == 1
    assert await metric(client, name, verb="GET", route=route, status="401") == 1
    assert await metric(client, name, verb="GET", route="unmatched", status="404") == 1
    assert await metric(client, name, verb="other", route="unmatched", status="404") == 1
    assert await metric(client, "kente_gateway_request_seconds_count", route=route) == 2
    assert await metric(client, "kente_gateway_requests_under_way") == 1
    assert "/v1/nothing" not in (await client.get("/metrics")).text


async def test_a_trace_is_continued_to_the_service(
    client: httpx.AsyncClient, far_end: FarEnd, spans: InMemorySpanExporter
) -> None:
    headers = {**SIGNED, "traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-01"}

    response = await client.get(f"/v1/payments/{PAYMENT_ID}", headers=headers)

    assert response.headers["trace-id"] == TRACE_ID
    assert far_end.last("GetPayment").metadata["traceparent"].split("-")[1] == TRACE_ID
    (span,) = [span for span in spans.get_finished_spans() if span.name == "GET /v1/payments/{payment_id}"]
    assert span.parent is not None
    assert format(span.parent.span_id, "016x") == "00f067aa0ba902b7"
    assert span.attributes is not None
    assert span.attributes["http.response.status_code"] == 200


async def test_every_answer_has_a_trace_of_its_own(client: httpx.AsyncClient) -> None:
    garbled = {"traceparent": "00-nonsense"}
    answers = [
        await client.get("/v1/nothing"),
        await client.get("/v1/nothing", headers=garbled),
        await client.get(f"/v1/payments/{PAYMENT_ID}", headers=SIGNED),
    ]

    trace_ids = [answer.headers["trace-id"] for answer in answers]
    assert len(set(trace_ids)) == 3
    assert answers[0].json()["trace_id"] == trace_ids[0]


async def test_spans_and_logs_hold_no_address_and_no_personal_data(
    client: httpx.AsyncClient, far_end: FarEnd, spans: InMemorySpanExporter
) -> None:
    far_end.problems["GetPayment"] = Problem(Reason.RESOURCE_NOT_FOUND, "payment of +233241234567")

    await client.get(f"/v1/payments/{PAYMENT_ID}?merchant=ama@example.com", headers=SIGNED)
    await client.get(f"/v1/payments/{PAYMENT_ID}", headers=SIGNED)

    told = " ".join(span.to_json() for span in spans.get_finished_spans())
    for secret in ("+233241234567", "ama@example.com", API_KEY, PAYMENT_ID):
        assert secret not in told
