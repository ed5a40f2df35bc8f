"""What a caller learns about a call that failed: whether the provider may have acted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.context import Call, handling
from mesh.provider.connection import ClientPolicy, RateQuota
from mesh.provider.errors import (
    BadCredentials,
    CircuitOpen,
    NotSent,
    OutcomeUnknown,
    RateLimited,
    UnexpectedResponse,
)
from mesh.provider.exchange import Operation, ProviderResponse, retry_after_seconds
from mesh.provider.masking import shape_of
from tests.harness import eventually
from tests.mesh_provider.conftest import MakeClient
from tests.providers.scripted import Heard, Reset, Say, ScriptedServer, Silence, scripted

READ = Operation("find", writes=False)
WRITE = Operation("charge", writes=True)
KEYED = Operation("charge", writes=True, resend_safe=True)
Answer = Say | Silence | Reset
UNREACHABLE = "http://127.0.0.1:9/"


def answers(*given: Answer) -> Callable[[Heard], Awaitable[Answer]]:
    """A script that gives these in order, and the last one for ever."""
    left = list(given)

    async def script(_heard: Heard) -> Answer:
        return left.pop(0) if len(left) > 1 else left[0]

    return script


async def test_a_refused_connection_is_not_sent(make_client: MakeClient) -> None:
    with pytest.raises(NotSent):
        await make_client().send(WRITE, "POST", UNREACHABLE, json={})


async def test_a_name_that_does_not_resolve_is_not_sent(make_client: MakeClient) -> None:
    with pytest.raises(NotSent):
        await make_client().send(WRITE, "POST", "http://no-such-host.invalid/", json={})


async def test_a_server_that_speaks_no_tls_is_not_sent(make_client: MakeClient) -> None:
    async with scripted(answers(Say())) as server:
        with pytest.raises(NotSent):
            await make_client().send(WRITE, "POST", server.url.replace("http:", "https:"), json={})

    assert server.heard == []


async def test_silence_after_sending_is_a_doubt_and_is_not_sent_again(make_client: MakeClient) -> None:
    async with scripted(answers(Silence())) as server:
        with pytest.raises(OutcomeUnknown):
            await make_client(timeout_seconds=0.2).send(KEYED, "POST", server.url, json={})

    assert len(server.heard) == 1


async def test_a_reset_of_a_write_without_a_key_is_a_doubt_at_once(make_client: MakeClient) -> None:
    async with scripted(answers(Reset())) as server:
        with pytest.raises(OutcomeUnknown):
            await make_client().send(WRITE, "POST", server.url, json={})

    assert len(server.heard) == 1


async def test_a_reset_of_a_write_with_a_key_is_sent_again(make_client: MakeClient) -> None:
    async with scripted(answers(Reset(), Say.json({"id": 1}))) as server:
        response = await make_client().send(KEYED, "POST", server.url, json={})

    assert response.json_object() == {"id": 1}
    assert len(server.heard) == 2


async def test_a_read_is_sent_again_after_a_reset_and_a_gateways_page(make_client: MakeClient) -> None:
    async with scripted(answers(Reset(), Say(502, b"<html>"), Say.json({"id": 1}))) as server:
        response = await make_client().send(READ, "GET", server.url)

    assert response.status_code == 200


async def test_the_last_page_of_a_gateway_is_given_to_the_adapter(make_client: MakeClient) -> None:
    async with scripted(answers(Say(502, b"<html>"))) as server:
        response = await make_client().send(READ, "GET", server.url)

    assert len(server.heard) == 3
    assert isinstance(response.refusal(), UnexpectedResponse)


@pytest.mark.parametrize("last", [Say(401), Say(403), Say(409), Say.json({}, 429)])
async def test_a_later_try_that_did_nothing_does_not_hide_an_earlier_doubt(
    make_client: MakeClient, last: Answer
) -> None:
    async with scripted(answers(Reset(), last)) as server:
        with pytest.raises(OutcomeUnknown):
            await make_client().send(KEYED, "POST", server.url, json={})


async def test_a_breaker_that_opens_between_tries_does_not_hide_a_doubt(make_client: MakeClient) -> None:
    client = make_client(policy=ClientPolicy(breaker_failures=1))
    async with scripted(answers(Reset())) as server:
        with pytest.raises(OutcomeUnknown) as doubt:
            await client.send(KEYED, "POST", server.url, json={})

    assert not isinstance(doubt.value, CircuitOpen)
    assert len(server.heard) == 1


async def test_429_is_tried_again_when_its_time_is_within_the_deadline(make_client: MakeClient) -> None:
    async with scripted(answers(Say.json({}, 429, retry_after="2"), Say())) as server:
        await make_client().send(WRITE, "POST", server.url, json={})

    assert len(server.heard) == 2


async def test_429_beyond_the_deadline_is_told_with_its_time(make_client: MakeClient) -> None:
    call = Call("test", deadline_monotonic=time.monotonic() + 5)
    async with scripted(answers(Say.json({}, 429, retry_after="30"))) as server:
        with handling(call), pytest.raises(RateLimited) as limited:
            await make_client().send(WRITE, "POST", server.url, json={})

    assert limited.value.retry_after_seconds == 30
    assert len(server.heard) == 1


async def test_no_time_left_is_not_sent(make_client: MakeClient) -> None:
    async with scripted(answers(Say())) as server:
        with handling(Call("test", deadline_monotonic=time.monotonic())), pytest.raises(NotSent):
            await make_client().send(WRITE, "POST", server.url, json={})

    assert server.heard == []


async def test_the_callers_deadline_caps_the_time_limit(make_client: MakeClient) -> None:
    start = time.monotonic()
    async with scripted(answers(Silence())) as server:
        with handling(Call("test", deadline_monotonic=start + 0.2)), pytest.raises(OutcomeUnknown):
            await make_client(timeout_seconds=30).send(WRITE, "POST", server.url, json={})

    assert time.monotonic() - start < 5


async def test_cancelling_a_call_passes_on_and_frees_its_place(make_client: MakeClient) -> None:
    client = make_client(policy=ClientPolicy(concurrent_requests=1))
    async with scripted(answers(Silence(), Say())) as server:
        task = asyncio.create_task(client.send(WRITE, "POST", server.url, json={}))
        await heard(server, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert (await client.send(WRITE, "POST", server.url, json={})).status_code == 200


async def test_an_answer_that_is_too_long_is_not_read_to_its_end(make_client: MakeClient) -> None:
    async with scripted(answers(Say(200, b"x" * 100_000))) as server:
        with pytest.raises(UnexpectedResponse):
            await make_client(policy=ClientPolicy(body_bytes_max=1000)).send(READ, "GET", server.url)


async def test_an_answer_that_ends_early_is_a_doubt(make_client: MakeClient) -> None:
    async with scripted(answers(Say(200, b"{}", {"content-length": "100"}))) as server:
        with pytest.raises(OutcomeUnknown):
            await make_client().send(WRITE, "POST", server.url, json={})


async def test_redirects_are_not_followed(make_client: MakeClient) -> None:
    async with scripted(answers(Say(302, b"", {"location": "http://127.0.0.1:9/elsewhere"}))) as server:
        response = await make_client().send(READ, "GET", server.url)

    assert response.status_code == 302


async def test_the_breaker_opens_after_five_failures_and_closes_by_one_success(make_client: MakeClient) -> None:
    client = make_client(policy=ClientPolicy(attempts=1, breaker_reset_seconds=0.2))
    async with scripted(answers(*[Reset()] * 5, Say())) as server:
        for _ in range(5):
            with pytest.raises(OutcomeUnknown):
                await client.send(WRITE, "POST", server.url, json={})
        with pytest.raises(CircuitOpen):
            await client.send(WRITE, "POST", server.url, json={})
        assert len(server.heard) == 5
        reset_time = time.monotonic() + 0.25
        await eventually(lambda: _is_past(reset_time))

        results = await asyncio.gather(
            *(client.send(WRITE, "POST", server.url, json={}) for _ in range(4)), return_exceptions=True
        )

    # Half-open lets one call through to try; the others are told at once.
    assert sum(isinstance(result, CircuitOpen) for result in results) == 3
    assert client._guard.breaker_state == "closed"


@pytest.mark.parametrize("answer", [Say.json({"code": "NO"}, 500), Say(404, b""), Say.json({}, 402)])
async def test_business_answers_do_not_open_the_breaker(make_client: MakeClient, answer: Answer) -> None:
    client = make_client()
    async with scripted(answers(answer)) as server:
        for _ in range(8):
            await client.send(WRITE, "POST", server.url, json={})

    assert client._guard.breaker_state == "closed"


async def test_429_neither_opens_the_breaker_nor_resets_its_count(make_client: MakeClient) -> None:
    client = make_client(policy=ClientPolicy(attempts=1, breaker_failures=2))
    async with scripted(answers(Reset(), Say.json({}, 429), Reset())) as server:
        for expected in (OutcomeUnknown, RateLimited, OutcomeUnknown, CircuitOpen):
            with pytest.raises(expected):
                await client.send(WRITE, "POST", server.url, json={})


async def test_calls_beyond_the_bulkhead_wait_and_then_are_not_sent(make_client: MakeClient) -> None:
    client = make_client(policy=ClientPolicy(attempts=1, concurrent_requests=2, queue_seconds=0.1))
    release = asyncio.Event()

    async def script(_heard: Heard) -> Answer:
        await release.wait()
        return Say()

    async with scripted(script) as server:
        running = [asyncio.create_task(client.send(WRITE, "POST", server.url, json={})) for _ in range(2)]
        await heard(server, 2)
        with pytest.raises(NotSent):
            await client.send(WRITE, "POST", server.url, json={})
        release.set()
        await asyncio.gather(*running)

    assert len(server.heard) == 2


async def test_the_quota_of_a_connection_is_kept(make_client: MakeClient) -> None:
    client = make_client(policy=ClientPolicy(attempts=1, queue_seconds=0.0), quota=RateQuota(3, 60))
    async with scripted(answers(Say())) as server:
        for _ in range(3):
            await client.send(WRITE, "POST", server.url, json={})
        with pytest.raises(RateLimited) as limited:
            await client.send(WRITE, "POST", server.url, json={})

    assert len(server.heard) == 3
    assert 0 < limited.value.retry_after_seconds <= 61


async def test_the_providers_advice_about_another_try_is_followed(make_client: MakeClient) -> None:
    client = make_client(policy=ClientPolicy(resend_header="should-retry"))
    async with scripted(answers(Say(503, b"", {"should-retry": "false"}))) as server:
        await client.send(KEYED, "POST", server.url, json={})

    assert len(server.heard) == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", 1.0), ("5", 5.0), ("soon", 1.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("99999999999", 3600.0)],
)
def test_retry_after_is_read_as_a_number_or_a_date(text: str, seconds: float) -> None:
    assert retry_after_seconds(httpx.Headers({"retry-after": text} if text else {})) == seconds


@given(st.binary(max_size=200))
def test_any_body_has_a_shape_and_is_an_object_or_not(body: bytes) -> None:
    response = ProviderResponse("acme", READ, 200, httpx.Headers(), body)
    shape_of(body)

    found = response.json_object_or_none()

    assert found is None or isinstance(found, dict)


def test_a_shape_shows_words_but_no_values() -> None:
    body = b'{"status": "FAILED", "msisdn": "233241234567", "code": "233241234567", "list": [{"name": "Ama"}]}'

    assert shape_of(body) == {"status": "FAILED", "msisdn": "str", "code": "str", "list": [{"name": "str"}]}


def test_numbers_of_an_answer_are_never_floats() -> None:
    response = ProviderResponse("acme", READ, 200, httpx.Headers(), b'{"amount": 0.1}')

    assert response.json_object() == {"amount": "0.1"}


@pytest.mark.parametrize("status", [401, 403])
def test_401_and_403_are_bad_credentials(status: int) -> None:
    response = ProviderResponse("acme", READ, status, httpx.Headers(), b"secret words")

    assert isinstance(response.refusal(), BadCredentials)
    assert "secret words" not in str(response.refusal())


async def _is_past(moment: float) -> bool:
    return time.monotonic() > moment


async def heard(server: ScriptedServer, count: int) -> None:
    """Waits for requests to arrive."""

    async def arrived() -> bool:
        return len(server.heard) >= count

    await eventually(arrived)
