"""Tokens: fetched once, renewed before their end and after a 401, and told apart from a provider that is away."""

from __future__ import annotations

import asyncio
import base64

import httpx
import pytest

from mesh.provider.auth import ApiKeyAuth, BasicAuth, BearerAuth, ClientCredentialsAuth, SignedAuth
from mesh.provider.errors import BadCredentials, NotSent, RateLimited
from mesh.provider.http import Operation
from mesh.provider.signatures import hmac_text
from tests.harness import eventually
from tests.mesh_provider.conftest import MakeClient
from tests.providers.scripted import Heard, Reset, Say, Silence, scripted

WRITE = Operation("charge", writes=True)


class TokenServer:
    """Gives tokens "token-1", "token-2" and so on, and takes only the newest."""

    def __init__(self, *, lifetime_seconds: float = 3600) -> None:
        self.given = 0
        self.lifetime_seconds = lifetime_seconds

    async def __call__(self, heard: Heard) -> Say:
        if heard.path == "/token":
            self.given += 1
            return Say.json({"access_token": f"token-{self.given}", "expires_in": self.lifetime_seconds})
        right = heard.headers.get("authorization") == f"Bearer token-{self.given}"
        return Say.json({"ok": right}, 200 if right else 401)


async def test_many_calls_at_once_fetch_one_token(make_client: MakeClient) -> None:
    tokens = TokenServer()
    async with scripted(tokens) as server:
        client, auth = make_client(), ClientCredentialsAuth(f"{server.url}/token", "id", "secret")
        responses = await asyncio.gather(
            *(client.send(WRITE, "POST", f"{server.url}/charge", auth=auth, json={}) for _ in range(20))
        )

    assert {response.status_code for response in responses} == {200}
    assert tokens.given == 1


async def test_a_token_is_renewed_before_its_end(make_client: MakeClient) -> None:
    tokens = TokenServer(lifetime_seconds=0.05)
    async with scripted(tokens) as server:
        client, auth = make_client(), ClientCredentialsAuth(f"{server.url}/token", "id", "secret")

        async def renewed() -> bool:
            response = await client.send(WRITE, "POST", f"{server.url}/charge", auth=auth, json={})
            assert response.status_code == 200
            return tokens.given > 1

        await eventually(renewed)


async def test_a_401_renews_the_token_once_for_all(make_client: MakeClient) -> None:
    tokens = TokenServer()
    async with scripted(tokens) as server:
        client, auth = make_client(), ClientCredentialsAuth(f"{server.url}/token", "id", "secret")
        await client.send(WRITE, "POST", f"{server.url}/charge", auth=auth, json={})
        # The provider has forgotten every token.
        tokens.given = 7
        responses = await asyncio.gather(
            *(client.send(WRITE, "POST", f"{server.url}/charge", auth=auth, json={}) for _ in range(5))
        )

    assert {response.status_code for response in responses} == {200}
    assert tokens.given == 8


async def test_a_second_401_is_the_answer(make_client: MakeClient) -> None:
    async def script(heard: Heard) -> Say:
        return Say.json({"access_token": "t"}) if heard.path == "/token" else Say(401)

    async with scripted(script) as server:
        auth = ClientCredentialsAuth(f"{server.url}/token", "id", "secret")
        response = await make_client().send(WRITE, "POST", f"{server.url}/charge", auth=auth, json={})

    assert response.status_code == 401
    assert len(server.heard) == 4


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Say(401), BadCredentials),
        (Say(400), BadCredentials),
        (Say(429), RateLimited),
        (Say(503), NotSent),
        (Say(200, b"<html>"), NotSent),
        (Say.json({"no": "token"}), NotSent),
        (Say.json(["a list"]), NotSent),
        (Reset(), NotSent),
        (Silence(), NotSent),
    ],
    ids=[
        "401",
        "400",
        "429",
        "503",
        "html",
        "no_token",
        "list",
        "reset",
        "silence",
    ],
)
async def test_without_a_token_nothing_is_sent(
    make_client: MakeClient, answer: Say | Reset | Silence, expected: type[Exception]
) -> None:
    async def script(_heard: Heard) -> Say | Reset | Silence:
        return answer

    async with scripted(script) as server:
        auth = ClientCredentialsAuth(f"{server.url}/token", "id", "secret")
        with pytest.raises(expected):
            await make_client(timeout_seconds=0.3).send(WRITE, "POST", f"{server.url}/charge", auth=auth, json={})

    assert {heard.path for heard in server.heard} == {"/token"}


async def test_client_credentials_are_asked_for_as_the_standard_says(make_client: MakeClient) -> None:
    tokens = TokenServer()
    async with scripted(tokens) as server:
        auth = ClientCredentialsAuth(f"{server.url}/token", "id", "secret", scope="payments")
        await make_client().send(WRITE, "POST", f"{server.url}/charge", auth=auth, json={})
        asked = server.heard[0]

    assert asked.body == b"grant_type=client_credentials&scope=payments"
    assert base64.b64decode(asked.headers["authorization"].removeprefix("Basic ")) == b"id:secret"


async def test_fixed_credentials_go_where_they_belong(make_client: MakeClient) -> None:
    async def script(_heard: Heard) -> Say:
        return Say()

    def sign(request: httpx.Request) -> dict[str, str]:
        return {"X-Signature": hmac_text(b"key", request.content)}

    async with scripted(script) as server:
        client = make_client()
        for auth in (BearerAuth("t"), BasicAuth("u", "p"), ApiKeyAuth("X-Key", "k"), SignedAuth(sign)):
            await client.send(WRITE, "POST", server.url, auth=auth, json={"a": 1})
        bearer, basic, key, signed = (heard.headers for heard in server.heard)

    assert bearer["authorization"] == "Bearer t"
    assert basic["authorization"] == "Basic dTpw"
    assert key["x-key"] == "k"
    assert signed["x-signature"] == hmac_text(b"key", b'{"a":1}')
