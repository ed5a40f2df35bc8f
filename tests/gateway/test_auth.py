"""API keys are exchanged once, tokens are passed on, and nobody gets in without either."""

from __future__ import annotations

import asyncio
import base64
import logging

import httpx
import pytest

from gateway.settings import GatewaySettings
from mesh.errors import Problem, Reason
from mesh.tokens import TrustBundle
from tests.gateway.far_end import ACCESS_TOKEN, API_KEY, PAYMENT_ID, FarEnd
from tests.gateway.running import Running, own_settings, until

PATH = f"/v1/payments/{PAYMENT_ID}"
CLIENT_ID = "key_" + "0" * 26


def bearer(credential: str) -> dict[str, str]:
    """The header that carries a credential."""
    return {"authorization": f"Bearer {credential}"}


@pytest.fixture
def running(fresh_gateway: Running) -> Running:
    return fresh_gateway


@pytest.mark.parametrize("headers", [bearer(API_KEY), {"x-api-key": API_KEY}, {"Authorization": f"bearer  {API_KEY}"}])
async def test_an_api_key_is_exchanged_for_a_token(
    client: httpx.AsyncClient, far_end: FarEnd, headers: dict[str, str]
) -> None:
    response = await client.get(PATH, headers=headers)

    assert response.status_code == 200
    assert far_end.last("ExchangeApiKey").request.api_key == API_KEY
    assert far_end.last("GetPayment").metadata["authorization"] == f"Bearer {ACCESS_TOKEN}"


async def test_the_exchange_is_the_gateways_own_call(
    client: httpx.AsyncClient, far_end: FarEnd, trust_bundle: TrustBundle
) -> None:
    await client.get(PATH, headers=bearer(API_KEY))

    token = far_end.last("ExchangeApiKey").metadata["authorization"].removeprefix("Bearer ")
    principal = trust_bundle.verify(token)
    assert (principal.subject, principal.kind, principal.tenant_id) == ("spiffe://kente/gateway", "service", "")


async def test_many_requests_share_one_exchange(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    gate = far_end.gates["ExchangeApiKey"] = asyncio.Event()
    requests = [asyncio.create_task(client.get(PATH, headers=bearer(API_KEY))) for _ in range(20)]
    await until(lambda: bool(far_end.calls("ExchangeApiKey")))
    gate.set()

    responses = await asyncio.gather(*requests)
    responses.append(await client.get(PATH, headers=bearer(API_KEY)))

    assert {response.status_code for response in responses} == {200}
    assert len(far_end.calls("ExchangeApiKey")) == 1


async def test_a_token_is_given_up_before_it_ends(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    far_end.known_keys[API_KEY] = (ACCESS_TOKEN, 0)

    await client.get(PATH, headers=bearer(API_KEY))
    await client.get(PATH, headers=bearer(API_KEY))

    assert len(far_end.calls("ExchangeApiKey")) == 2


async def test_a_token_that_a_service_refuses_is_exchanged_anew(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    far_end.problems["GetPayment"] = Problem(Reason.CREDENTIALS_INVALID, "signed with a key of the past")
    refused = await client.get(PATH, headers=bearer(API_KEY))
    del far_end.problems["GetPayment"]

    accepted = await client.get(PATH, headers=bearer(API_KEY))

    assert (refused.status_code, accepted.status_code) == (401, 200)
    assert len(far_end.calls("ExchangeApiKey")) == 2


async def test_an_unknown_key_is_refused_and_remembered_for_a_moment(
    client: httpx.AsyncClient, far_end: FarEnd
) -> None:
    first = await client.get(PATH, headers=bearer("kente_unknown"))
    second = await client.get(PATH, headers=bearer("kente_unknown"))

    for response in (first, second):
        assert (response.status_code, response.json()["reason"]) == (401, "CREDENTIALS_INVALID")
        assert response.headers["www-authenticate"] == 'Bearer realm="kente"'
    assert len(far_end.calls("ExchangeApiKey")) == 1
    assert far_end.calls("GetPayment") == []


async def test_identity_away_is_not_remembered_against_the_key(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    far_end.problems["ExchangeApiKey"] = Problem(Reason.SERVICE_UNAVAILABLE, "away", retry_after_seconds=1.0)
    away = await client.get(PATH, headers=bearer(API_KEY))
    del far_end.problems["ExchangeApiKey"]

    back = await client.get(PATH, headers=bearer(API_KEY))

    assert (away.status_code, back.status_code) == (503, 200)


async def test_a_deadline_holds_during_the_exchange_and_does_not_end_it(
    client: httpx.AsyncClient, far_end: FarEnd
) -> None:
    gate = far_end.gates["ExchangeApiKey"] = asyncio.Event()
    late = await client.get(PATH, headers={**bearer(API_KEY), "Kente-Timeout-Seconds": "0.2"})
    gate.set()

    patient = await client.get(PATH, headers=bearer(API_KEY))

    assert (late.status_code, late.json()["reason"]) == (504, "DEADLINE_PASSED")
    assert patient.status_code == 200
    assert len(far_end.calls("ExchangeApiKey")) == 1


async def test_an_access_token_is_passed_on_as_it_is(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    response = await client.get(PATH, headers=bearer("aa.bb.cc"))

    assert response.status_code == 200
    assert far_end.last("GetPayment").metadata["authorization"] == "Bearer aa.bb.cc"
    assert far_end.calls("ExchangeApiKey") == []


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "CREDENTIALS_MISSING"),
        ({"authorization": "Bearer"}, "CREDENTIALS_MISSING"),
        ({"authorization": "Basic a2V5OnNlY3JldA=="}, "CREDENTIALS_MISSING"),
        (bearer("nonsense"), "CREDENTIALS_INVALID"),
        (bearer("kente_"), "CREDENTIALS_INVALID"),
        (bearer("kente_" + "x" * 300), "CREDENTIALS_INVALID"),
        (bearer("a.b"), "CREDENTIALS_INVALID"),
        (bearer("a.b.c d"), "CREDENTIALS_INVALID"),
        (bearer(f"{'a' * 9000}.b.c"), "CREDENTIALS_INVALID"),
        ({"x-api-key": "a.b.c"}, "CREDENTIALS_INVALID"),
        ({"x-api-key": API_KEY, **bearer("a.b.c")}, "CREDENTIALS_INVALID"),
    ],
)
async def test_what_is_no_credential_reaches_no_service(
    client: httpx.AsyncClient, far_end: FarEnd, headers: dict[str, str], reason: str
) -> None:
    response = await client.get(PATH, headers=headers)

    assert (response.status_code, response.json()["reason"]) == (401, reason)
    assert far_end.seen == []


async def test_a_stranger_learns_nothing_of_the_body(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/payments", content=b"not json")

    assert (response.status_code, response.json()["reason"]) == (401, "CREDENTIALS_MISSING")


async def test_no_key_and_no_token_is_in_a_log_or_an_answer(
    client: httpx.AsyncClient, far_end: FarEnd, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    far_end.problems["GetPayment"] = Problem(Reason.INTERNAL)

    answers = [await client.get(PATH, headers=bearer(key)) for key in (API_KEY, "kente_unknown", "aa.bb.cc")]

    told = "".join(answer.text for answer in answers) + capsys.readouterr().out + caplog.text
    for secret in (API_KEY, "kente_unknown", "aa.bb.cc", ACCESS_TOKEN):
        assert secret not in told


async def test_the_token_route_takes_a_form(
    client: httpx.AsyncClient, far_end: FarEnd, trust_bundle: TrustBundle
) -> None:
    form = {"grant_type": "client_credentials", "client_id": CLIENT_ID, "client_secret": "a+b&c", "scope": "a:b c:d"}

    response = await client.post("/v1/oauth/token", data=form)

    assert response.status_code == 200
    assert response.json() == {"access_token": "a.b.c", "token_type": "Bearer", "expires_in": 300, "scope": ""}
    assert response.headers["cache-control"] == "no-store"
    seen = far_end.last("IssueToken")
    assert (seen.request.client_secret, seen.request.scope) == ("a+b&c", "a:b c:d")
    principal = trust_bundle.verify(seen.metadata["authorization"].removeprefix("Bearer "))
    assert (principal.subject, principal.tenant_id) == ("spiffe://kente/gateway", "")
    assert seen.metadata["kente-client-address"] == "127.0.0.1"


async def test_the_token_route_takes_basic_credentials(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    response = await client.post(
        "/v1/oauth/token", data={"grant_type": "client_credentials"}, auth=(CLIENT_ID, "kente_s:%25")
    )

    assert response.status_code == 200
    request = far_end.last("IssueToken").request
    # RFC 6749, section 2.3.1: both parts are form-encoded inside of Basic.
    assert (request.client_id, request.client_secret) == (CLIENT_ID, "kente_s:%")


@pytest.mark.parametrize("encoded", ["%%%", base64.b64encode(b"\xff:\xff").decode()])
async def test_basic_credentials_that_cannot_be_read_are_refused(client: httpx.AsyncClient, encoded: str) -> None:
    headers = {"authorization": f"Basic {encoded}"}

    response = await client.post("/v1/oauth/token", headers=headers, data={"grant_type": "client_credentials"})

    assert (response.status_code, response.json()["error"]) == (401, "invalid_client")
    assert response.headers["www-authenticate"] == 'Basic realm="kente"'


async def test_basic_credentials_must_agree_with_the_body(client: httpx.AsyncClient) -> None:
    form = {"grant_type": "client_credentials", "client_id": "key_other"}

    response = await client.post("/v1/oauth/token", data=form, auth=(CLIENT_ID, "kente_s"))

    assert response.status_code == 400
    assert response.json()["field_violations"][0]["field"] == "client_id"


async def test_a_refused_token_request_speaks_oauth_too(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    far_end.problems["IssueToken"] = Problem(Reason.CREDENTIALS_INVALID, "the secret is not valid")

    response = await client.post("/v1/oauth/token", json={"grant_type": "client_credentials"})

    problem = response.json()
    assert (response.status_code, problem["reason"]) == (401, "CREDENTIALS_INVALID")
    assert (problem["error"], problem["error_description"]) == ("invalid_client", "the secret is not valid")


async def test_anyone_may_read_the_public_keys(client: httpx.AsyncClient) -> None:
    response = await client.get("/.well-known/jwks.json")

    assert response.json()["keys"][0]["kid"] == "identity-1"
    assert response.headers["cache-control"] == "public, max-age=60"


class TestShortMemory:
    """With refusals that are forgotten at once."""

    @pytest.fixture
    def gateway_settings(self) -> GatewaySettings:
        return own_settings(refusal_cache_seconds=0.05)

    async def test_a_key_that_is_made_later_is_accepted(self, client: httpx.AsyncClient, far_end: FarEnd) -> None:
        refused = await client.get(PATH, headers=bearer("kente_new"))
        far_end.known_keys["kente_new"] = ("x.y.z", 300)

        async def accepted() -> bool:
            return (await client.get(PATH, headers=bearer("kente_new"))).status_code == 200

        assert refused.status_code == 401
        await until(accepted)


class TestFlood:
    """With few refusals allowed."""

    @pytest.fixture
    def shared_settings(self) -> dict[str, int]:
        return {"credential_rate_per_minute": 3}

    async def test_an_address_that_tries_many_keys_is_not_listened_to(
        self, client: httpx.AsyncClient, far_end: FarEnd
    ) -> None:
        before = await client.get(PATH, headers=bearer(API_KEY))
        guesses = [await client.get(PATH, headers=bearer(f"kente_guess_{number}")) for number in range(5)]
        known = await client.get(PATH, headers=bearer(API_KEY))

        assert [guess.status_code for guess in guesses] == [401, 401, 401, 429, 429]
        assert guesses[-1].json()["reason"] == "RATE_LIMITED"
        assert int(guesses[-1].headers["retry-after"]) >= 1
        assert len(far_end.calls("ExchangeApiKey")) == 4
        # Who is known already is not touched.
        assert (before.status_code, known.status_code) == (200, 200)
