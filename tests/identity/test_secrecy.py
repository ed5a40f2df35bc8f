"""A key's secret and a token are in their answer and nowhere else: no log, trace, event, error or table."""

from __future__ import annotations

import json
from pathlib import Path

import asyncpg
from kente.identity.v1 import api_key_service_pb2, token_service_pb2

from services.identity.model import PresentedKey
from tests.harness import Infrastructure, TestMesh
from tests.identity.leaks import dump, events_of, forms_of
from tests.identity.office import Office, key_request, new_request_id, refusal
from tests.identity.process import running


async def errors_about(office: Office, admin: asyncpg.Connection, secret: str, api_key_id: str) -> list[bytes]:
    """The status of every kind of failure that a request with a secret can meet."""
    wrong = token_service_pb2.IssueTokenRequest(grant_type="password", client_id=secret, client_secret=secret)
    problems = [
        await refusal(office.issue(api_key_id, secret, "ledger:write")),
        await refusal(office.issue("key_" + "0" * 26, secret)),
        await refusal(office.anyone.IssueToken(wrong)),
        await refusal(office.exchange(secret + "x" * 200)),
        await refusal(office.exchange(secret + "x")),
    ]
    await admin.execute("REVOKE SELECT ON api_keys FROM kente_identity")
    try:
        problems.append(await refusal(office.exchange(secret)))
    finally:
        await admin.execute("GRANT SELECT ON api_keys TO kente_identity")
    assert problems[-1].reason_name == "INTERNAL"
    return [problem.to_status().SerializeToString() for problem in problems]


async def test_secrets_stay_in_their_answers(
    infrastructure: Infrastructure, test_mesh: TestMesh, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    async with running("identity", infrastructure, tmp_path, {}) as output:
        office = Office(test_mesh)
        tenant = await office.new_tenant()
        request = key_request("payments:read", "api-keys:write")
        created = await office.keys_as_operator(tenant.tenant_id).CreateApiKey(request)
        await office.keys_as_operator(tenant.tenant_id).CreateApiKey(request)
        exchanged = await office.exchange(created.secret)
        issued = await office.issue(created.api_key.api_key_id, created.secret)
        by_client = type(office.keys_as_operator(tenant.tenant_id))(
            test_mesh.with_token("identity", issued.access_token)
        )
        second = await by_client.CreateApiKey(key_request("payments:read"))
        revoke = api_key_service_pb2.RevokeApiKeyRequest(
            request_id=new_request_id(), api_key_id=second.api_key.api_key_id
        )
        await by_client.RevokeApiKey(revoke)
        errors = await errors_about(office, admin, created.secret, created.api_key.api_key_id)
        events = await events_of(infrastructure, tenant.tenant_id, count=4)
        tables = await dump(infrastructure, "identity")

    written = output.text()
    assert created.api_key.api_key_id in tables
    assert "call_failed" in written
    assert "/kente.identity.v1.TokenService/ExchangeApiKey" in written
    signatures = [token.access_token.rpartition(".")[2] for token in (exchanged, issued)]
    secrets = [PresentedKey.from_text(answer.secret).secret for answer in (created, second)]
    everywhere = "\n".join([written, tables, *(event.decode() for event in events), *map(repr, errors)])
    for secret in (*secrets, *signatures):
        assert secret
        for form in forms_of(secret):
            assert form not in everywhere
    kinds = [json.loads(event)["type"] for event in events]
    assert kinds == [
        "identity.tenant.created",
        "identity.api_key.created",
        "identity.api_key.created",
        "identity.api_key.revoked",
    ]
