"""Access tokens: who gets one, what is in it, and that an outsider can check it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import asyncpg
import jwt
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp
from kente.identity.v1 import api_key_service_pb2, token_service_pb2, token_service_pb2_grpc

from mesh.clock import utc_now
from mesh.errors import Problem
from mesh.ids import new_id
from services.identity.model import PresentedKey
from tests.harness import eventually
from tests.identity.office import Office, new_request_id, refusal


async def read_as_an_outsider(office: Office, token: str) -> dict[str, Any]:
    """Verifies a token with nothing but the published key set, as any JWT library does."""
    answer = await office.anyone.GetKeySet(token_service_pb2.GetKeySetRequest())
    key_set = jwt.PyJWKSet.from_json(json.dumps(MessageToDict(answer)))
    key = key_set[jwt.get_unverified_header(token)["kid"]]
    claims: dict[str, Any] = jwt.decode(token, key, algorithms=["EdDSA"], audience="kente")
    return claims


async def test_a_token_can_be_verified_with_the_published_keys(office: Office) -> None:
    tenant = await office.new_tenant()
    created = await office.new_key(tenant.tenant_id, "payments:write", "payments:read")

    answer = await office.exchange(created.secret)
    claims = await read_as_an_outsider(office, answer.access_token)

    assert answer.expires_in_seconds == 300
    assert claims["iss"] == "spiffe://kente/identity"
    assert claims["sub"] == created.api_key.api_key_id
    assert claims["tenant"] == tenant.tenant_id
    assert claims["scope"] == "payments:read payments:write"
    assert claims["exp"] - claims["iat"] == 300
    assert claims["jti"]


async def test_the_key_set_holds_public_keys_of_the_token_issuer_only(office: Office) -> None:
    answer = MessageToDict(await office.anyone.GetKeySet(token_service_pb2.GetKeySetRequest()))

    assert [key["kid"].partition("-")[0] for key in answer["keys"]] == ["identity"]
    for key in answer["keys"]:
        assert key.keys() == {"kty", "crv", "x", "kid", "use", "alg"}
        assert (key["kty"], key["crv"], key["use"], key["alg"]) == ("OKP", "Ed25519", "sig", "EdDSA")


async def test_a_client_gets_all_its_scopes_when_it_asks_for_none(office: Office) -> None:
    tenant = await office.new_tenant()
    created = await office.new_key(tenant.tenant_id, "payments:write", "ledger:read")

    answer = await office.issue(created.api_key.api_key_id, created.secret)

    assert (answer.token_type, answer.expires_in, answer.scope) == ("Bearer", 300, "ledger:read payments:write")
    assert (await read_as_an_outsider(office, answer.access_token))["scope"] == "ledger:read payments:write"


async def test_a_client_can_ask_for_less(office: Office) -> None:
    tenant = await office.new_tenant()
    created = await office.new_key(tenant.tenant_id, "payments:write", "ledger:read")

    answer = await office.issue(created.api_key.api_key_id, created.secret, "ledger:read")

    assert answer.scope == "ledger:read"
    assert (await read_as_an_outsider(office, answer.access_token))["scope"] == "ledger:read"


async def test_a_client_cannot_ask_for_more(office: Office) -> None:
    tenant = await office.new_tenant()
    created = await office.new_key(tenant.tenant_id, "ledger:read")

    problem = await refusal(office.issue(created.api_key.api_key_id, created.secret, "ledger:read payments:write"))

    assert problem.reason_name == "SCOPE_MISSING"
    assert problem.metadata == {"scope": "payments:write"}


async def test_a_token_works_for_its_scopes_and_its_tenant(office: Office) -> None:
    tenant = await office.new_tenant()
    created = await office.new_key(tenant.tenant_id, "api-keys:read")
    token = (await office.issue(created.api_key.api_key_id, created.secret)).access_token
    stub = type(office.keys_as_client(tenant.tenant_id))(office.mesh.with_token("identity", token))

    listed = await stub.ListApiKeys(api_key_service_pb2.ListApiKeysRequest())

    assert list(listed.api_keys) == [created.api_key]


async def expired_key(office: Office, tenant_id: str) -> api_key_service_pb2.CreateApiKeyResponse:
    """A key whose time has just passed."""
    expire_time = Timestamp()
    expire_time.FromDatetime(utc_now() + timedelta(seconds=0.3))
    created = await office.new_key(tenant_id, expire_time=expire_time)

    async def is_over() -> bool:
        return utc_now() > expire_time.ToDatetime(tzinfo=utc_now().tzinfo)

    await eventually(is_over)
    return created


async def revoked_key(office: Office, tenant_id: str) -> api_key_service_pb2.CreateApiKeyResponse:
    """A key that was revoked."""
    created = await office.new_key(tenant_id)
    request = api_key_service_pb2.RevokeApiKeyRequest(
        request_id=new_request_id(), api_key_id=created.api_key.api_key_id
    )
    await office.keys_as_operator(tenant_id).RevokeApiKey(request)
    return created


async def keys_that_open_nothing(office: Office) -> dict[str, PresentedKey]:
    """A key of every kind that must be refused."""
    tenant = await office.new_tenant()
    good = PresentedKey.from_text((await office.new_key(tenant.tenant_id)).secret)
    return {
        "unknown": PresentedKey.generate(new_id("key")),
        "wrong secret": PresentedKey.generate(good.api_key_id),
        "revoked": PresentedKey.from_text((await revoked_key(office, tenant.tenant_id)).secret),
        "expired": PresentedKey.from_text((await expired_key(office, tenant.tenant_id)).secret),
    }


async def test_every_key_that_opens_nothing_is_refused_alike(office: Office) -> None:
    problems: dict[str, Problem] = {}
    for kind, presented in (await keys_that_open_nothing(office)).items():
        problems[f"{kind}, exchanged"] = await refusal(office.exchange(presented.to_text()))
        problems[f"{kind}, as a client"] = await refusal(office.issue(presented.api_key_id, presented.to_text()))
    problems["malformed, exchanged"] = await refusal(office.exchange("kente_of_some_other_shape"))
    problems["malformed, as a client"] = await refusal(office.issue(new_id("key"), "secret"))

    statuses = {problem.to_status().SerializeToString() for problem in problems.values()}
    assert {problem.reason_name for problem in problems.values()} == {"CREDENTIALS_INVALID"}
    assert len(statuses) == 1, problems


async def test_a_client_id_must_be_the_keys_own(office: Office) -> None:
    tenant = await office.new_tenant()
    one, other = await office.new_key(tenant.tenant_id), await office.new_key(tenant.tenant_id)

    problem = await refusal(office.issue(other.api_key.api_key_id, one.secret))

    assert problem.reason_name == "CREDENTIALS_INVALID"


async def test_a_token_ends_with_its_key(office: Office) -> None:
    tenant = await office.new_tenant()
    expire_time = Timestamp()
    expire_time.FromDatetime(utc_now() + timedelta(seconds=60))
    created = await office.new_key(tenant.tenant_id, expire_time=expire_time)

    answer = await office.exchange(created.secret)
    claims = await read_as_an_outsider(office, answer.access_token)

    assert answer.expires_in_seconds < 60
    assert claims["exp"] <= expire_time.seconds


@pytest.mark.parametrize("grant_type", ["", "password", "authorization_code"])
async def test_another_grant_is_refused(office: Office, grant_type: str) -> None:
    request = token_service_pb2.IssueTokenRequest(
        grant_type=grant_type, client_id=new_id("key"), client_secret="kente_x"
    )

    problem = await refusal(office.anyone.IssueToken(request))

    assert [violation.field for violation in problem.violations] == ["grant_type"]


async def test_only_a_service_exchanges_keys(office: Office) -> None:
    tenant = await office.new_tenant()
    created = await office.new_key(tenant.tenant_id)
    request = token_service_pb2.ExchangeApiKeyRequest(api_key=created.secret)
    client = token_service_pb2_grpc.TokenServiceStub(
        office.mesh.client("identity", tenant.tenant_id, ["tokens:exchange"])
    )

    assert (await refusal(client.ExchangeApiKey(request))).reason_name == "SCOPE_MISSING"
    assert (await refusal(office.anyone.ExchangeApiKey(request))).reason_name == "CREDENTIALS_MISSING"


async def test_tokens_are_given_out_without_a_write(office: Office, admin: asyncpg.Connection) -> None:
    tenant = await office.new_tenant()
    created = await office.new_key(tenant.tenant_id)
    await admin.execute("REVOKE INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA identity FROM kente_identity")
    try:
        exchanged = await office.exchange(created.secret)
        issued = await office.issue(created.api_key.api_key_id, created.secret)
    finally:
        await admin.execute("GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA identity TO kente_identity")
        await admin.execute("REVOKE INSERT, UPDATE, DELETE ON schema_migrations FROM kente_identity")

    assert exchanged.access_token
    assert issued.access_token
