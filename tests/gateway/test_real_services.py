"""The gateway in front of real services: what a partner meets from the first key to a revoked one."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from kente.identity.v1.api_key_service_pb2 import CreateApiKeyRequest
from kente.identity.v1.api_key_service_pb2_grpc import ApiKeyServiceStub
from kente.identity.v1.tenant_service_pb2 import CreateTenantRequest
from kente.identity.v1.tenant_service_pb2_grpc import TenantServiceStub

from tests.gateway.running import own_settings, serving, until
from tests.harness import TestMesh

SCOPES = ("ledger:read", "ledger:write", "api-keys:read", "api-keys:write")
ACCOUNT = {"accountName": "assets:cash:ghs", "type": "TYPE_ASSET", "currency": "GHS"}


@pytest.fixture(scope="module")
async def url(test_mesh: TestMesh) -> AsyncIterator[str]:
    """Address of a gateway before identity and ledger; the other services are away."""
    for name in ("identity", "ledger"):
        await test_mesh.start(name)
    infrastructure = test_mesh.infrastructure
    shared = infrastructure.settings("gateway")
    async with serving(own_settings(), shared, infrastructure.identity("gateway")) as running:
        yield running.url


async def new_tenant(test_mesh: TestMesh) -> str:
    """Id of a new tenant."""
    request = CreateTenantRequest(request_id=str(uuid.uuid4()), display_name="test")
    made: Any = await TenantServiceStub(test_mesh.peer("identity", "operator")).CreateTenant(request)
    tenant_id: str = made.tenant.tenant_id
    return tenant_id


async def api_key(test_mesh: TestMesh, tenant_id: str, *scopes: str) -> tuple[str, str]:
    """Id and text of a new key of a tenant."""
    channel = test_mesh.client("identity", tenant_id, {*scopes, "api-keys:write"})
    request = CreateApiKeyRequest(request_id=str(uuid.uuid4()), display_name="test", scopes=scopes)
    made: Any = await ApiKeyServiceStub(channel).CreateApiKey(request)
    return made.api_key.api_key_id, made.secret


@pytest.fixture
async def tenant_id(url: str, test_mesh: TestMesh) -> str:  # noqa: ARG001 - the services run
    return await new_tenant(test_mesh)


@pytest.fixture
async def partner(url: str, test_mesh: TestMesh, tenant_id: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a key of its own tenant."""
    _, secret = await api_key(test_mesh, tenant_id, *SCOPES)
    headers = {"authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=20) as client:
        yield client


def key() -> dict[str, str]:
    """The header of a new write."""
    return {"idempotency-key": str(uuid.uuid4())}


async def test_a_write_sent_twice_has_one_answer(partner: httpx.AsyncClient) -> None:
    once = key()
    first = await partner.post("/v1/ledger/accounts", json=ACCOUNT, headers=once)
    again = await partner.post("/v1/ledger/accounts", json=ACCOUNT, headers=once)
    other = await partner.post("/v1/ledger/accounts", json={**ACCOUNT, "currency": "NGN"}, headers=once)
    read = await partner.get("/v1/ledger/accounts/assets:cash:ghs")

    assert first.status_code == 200, first.text
    assert again.content == first.content
    assert (other.status_code, other.json()["reason"]) == (409, "REQUEST_ID_REUSED")
    assert read.json()["account"]["accountName"] == "assets:cash:ghs"


async def test_rules_of_the_contract_are_told_by_field(partner: httpx.AsyncClient) -> None:
    response = await partner.post("/v1/ledger/accounts", json={**ACCOUNT, "currency": "cedi"}, headers=key())

    assert (response.status_code, response.json()["reason"]) == (400, "FIELD_INVALID")
    assert [violation["field"] for violation in response.json()["field_violations"]] == ["currency"]


async def test_a_key_is_good_for_its_scopes_only(url: str, test_mesh: TestMesh, tenant_id: str) -> None:
    _, secret = await api_key(test_mesh, tenant_id, "ledger:read")
    async with httpx.AsyncClient(base_url=url, headers={"x-api-key": secret}, trust_env=False) as reader:
        response = await reader.post("/v1/ledger/accounts", json=ACCOUNT, headers=key())

    assert (response.status_code, response.json()["reason"]) == (403, "SCOPE_MISSING")
    assert response.json()["metadata"]["scope"] == "ledger:write"


async def test_what_is_anothers_does_not_exist(partner: httpx.AsyncClient, url: str, test_mesh: TestMesh) -> None:
    await partner.post("/v1/ledger/accounts", json=ACCOUNT, headers=key())
    _, secret = await api_key(test_mesh, await new_tenant(test_mesh), "ledger:read")
    async with httpx.AsyncClient(base_url=url, headers={"x-api-key": secret}, trust_env=False) as stranger:
        foreign = await stranger.get("/v1/ledger/accounts/assets:cash:ghs")
        absent = await stranger.get("/v1/ledger/accounts/assets:no:such")

    assert (foreign.status_code, absent.status_code) == (404, 404)
    assert foreign.json()["reason"] == absent.json()["reason"]


async def test_a_chart_of_accounts_is_kept_over_rest(partner: httpx.AsyncClient) -> None:
    gold = {"accountName": "assets:gold", "type": "TYPE_ASSET", "currency": "GOLDGRAMS", "scale": 4}
    body = {"accounts": [{**ACCOUNT, "metadata": {"till": "7"}}, gold]}
    made = await partner.post("/v1/ledger/accounts:batchCreate", json=body, headers=key())
    change = {"updateMask": "displayName,limits", "displayName": "Till", "limits": {"minBalanceMinor": "0"}}
    changed = await partner.patch("/v1/ledger/accounts/assets:cash:ghs", json=change, headers=key())
    frozen = await partner.post("/v1/ledger/accounts/assets:cash:ghs/freeze", headers=key())
    listed = await partner.get("/v1/ledger/accounts", params={"accountNamePrefix": "assets:", "type": "TYPE_ASSET"})
    closing = {"endTime": "2026-01-01T00:00:00Z"}
    closed = await partner.post("/v1/ledger/books/main:closePeriod", json=closing, headers=key())
    book = await partner.get("/v1/ledger/books/main")

    assert made.status_code == 200, made.text
    assert [account["scale"] for account in made.json()["accounts"]] == [2, 4]
    account = changed.json()["account"]
    assert (account["displayName"], account["metadata"]) == ("Till", {"till": "7"})
    assert account["limits"] == {"minBalanceMinor": "0"}
    assert frozen.json()["account"]["state"] == "STATE_FROZEN"
    assert [account["accountName"] for account in listed.json()["accounts"]] == ["assets:cash:ghs", "assets:gold"]
    assert closed.json() == book.json()
    assert book.json()["book"]["closedTime"] == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    "credential", ["kente_" + "0" * 26 + "_" + "A" * 43, "kente_wrong", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.x"]
)
async def test_credentials_that_are_not_ours_are_refused(url: str, credential: str) -> None:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        response = await client.get("/v1/ledger/accounts", headers={"authorization": f"Bearer {credential}"})

    assert (response.status_code, response.json()["reason"]) == (401, "CREDENTIALS_INVALID")


async def test_an_oauth2_client_gets_a_token_and_uses_it(url: str, test_mesh: TestMesh, tenant_id: str) -> None:
    client_id, secret = await api_key(test_mesh, tenant_id, "ledger:read")
    form = {"grant_type": "client_credentials", "scope": "ledger:read"}
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as client:
        granted = await client.post("/v1/oauth/token", data=form, auth=(client_id, secret))
        wrong = await client.post("/v1/oauth/token", data=form, auth=(client_id, secret[:-1] + "!"))
        unknown = await client.post(
            "/v1/oauth/token", data={**form, "grant_type": "password"}, auth=(client_id, secret)
        )
        token = granted.json()["access_token"]
        listed = await client.get("/v1/ledger/accounts", headers={"authorization": f"Bearer {token}"})

    assert (granted.status_code, granted.json()["token_type"]) == (200, "Bearer")
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")
    assert (unknown.status_code, unknown.json()["error"]) == (400, "unsupported_grant_type")
    assert (listed.status_code, listed.json()) == (200, {"accounts": [], "nextPageToken": ""})


async def test_a_key_is_made_and_revoked_over_rest(url: str, partner: httpx.AsyncClient) -> None:
    made = await partner.post("/v1/api-keys", json={"displayName": "shop", "scopes": ["ledger:read"]}, headers=key())
    revoked = await partner.post(f"/v1/api-keys/{made.json()['apiKey']['apiKeyId']}:revoke", headers=key())

    assert (made.status_code, revoked.status_code) == (200, 200), revoked.text
    assert revoked.json()["apiKey"]["state"] == "STATE_REVOKED"
    headers = {"authorization": f"Bearer {made.json()['secret']}"}
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:

        async def refused() -> bool:
            return (await client.get("/v1/ledger/accounts", headers=headers)).status_code == 401

        await until(refused)


async def test_services_that_are_away_are_told_apart(url: str, partner: httpx.AsyncClient) -> None:
    away = await partner.get("/v1/payments")
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        ready = await client.get("/readyz")

    assert (away.status_code, away.json()["reason"]) == (503, "SERVICE_UNAVAILABLE")
    assert "retry-after" in away.headers
    assert ready.json()["away"] == ["connections", "notifications", "payments"]
    assert ready.json()["services"]["ledger"] == "SERVING"


async def test_the_public_keys_verify_tokens_elsewhere(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        keys = (await client.get("/.well-known/jwks.json")).json()["keys"]

    assert {entry["kty"] for entry in keys} == {"OKP"}
    assert all("d" not in entry for entry in keys)
