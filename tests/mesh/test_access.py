"""Who may call what, and how often."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator

import grpc
import jwt
import pytest
from kente.identity.v1.tenant_service_pb2 import GetTenantRequest, GetTenantResponse
from kente.identity.v1.tenant_service_pb2_grpc import TenantServiceStub
from kente.identity.v1.token_service_pb2 import GetKeySetRequest, GetKeySetResponse
from kente.identity.v1.token_service_pb2_grpc import TokenServiceStub
from kente.ledger.v1.ledger_service_pb2 import GetAccountRequest, GetAccountResponse

from mesh.context import current_call
from mesh.errors import Reason
from mesh.interceptors.rate_limit import CLIENT_ADDRESS
from mesh.server import Service
from tests.harness import Infrastructure, TestMesh, free_ports
from tests.mesh.probe import (
    SCOPES,
    Counted,
    LedgerClient,
    Probe,
    TokenClient,
    create_request,
    ledger_stub,
    reason_of,
    refused,
)

GET = GetAccountRequest(account_name="assets:bank")


async def get_account(request: GetAccountRequest, _context: object) -> GetAccountResponse:
    """Answers with who asks."""
    call = current_call()
    response = GetAccountResponse()
    response.account.account_name = request.account_name
    response.account.display_name = f"{call.principal.subject if call.principal else ''} for {call.tenant_id}"
    return response


async def test_a_call_without_credentials_is_refused(probe: Probe, test_mesh: TestMesh) -> None:
    probe.handlers["GetAccount"] = get_account

    problem = await refused(ledger_stub(test_mesh.with_token("ledger", "")).GetAccount(GET))

    assert (problem.reason, problem.code) == (Reason.CREDENTIALS_MISSING, grpc.StatusCode.UNAUTHENTICATED)


@pytest.mark.parametrize("token", ["x", "a.b.c", "kente_01jd3x0r8v5m1q9z2k7c4b6t8n_secret", "ünïcode".encode().hex()])
async def test_credentials_that_are_no_token_are_refused(probe: Probe, test_mesh: TestMesh, token: str) -> None:
    probe.handlers["GetAccount"] = get_account

    problem = await refused(ledger_stub(test_mesh.with_token("ledger", token)).GetAccount(GET))

    assert problem.reason == Reason.CREDENTIALS_INVALID
    assert token not in problem.detail


async def test_a_scheme_other_than_bearer_is_refused(probe: Probe, test_mesh: TestMesh) -> None:
    probe.handlers["GetAccount"] = get_account
    stub = ledger_stub(test_mesh.with_token("ledger", ""))

    problem = await refused(stub.GetAccount(GET, metadata=(("authorization", "Basic dXNlcjpwYXNz"),)))

    assert problem.reason == Reason.CREDENTIALS_INVALID
    assert "dXNlcjpwYXNz" not in problem.detail


async def test_a_client_acts_for_its_tenant(probe: Probe, stub: LedgerClient, tenant_id: str) -> None:
    probe.handlers["GetAccount"] = get_account

    answer = (await stub.GetAccount(GET)).account.display_name

    assert answer.startswith("key_")
    assert answer.endswith(f" for {tenant_id}")


async def test_a_client_needs_the_scope_of_the_rpc(probe: Probe, test_mesh: TestMesh, tenant_id: str) -> None:
    handler = probe.handlers["CreateAccount"] = Counted()
    reader = ledger_stub(test_mesh.client("ledger", tenant_id, ["ledger:read", "ledger:write:all", "ledger"]))

    problem = await refused(reader.CreateAccount(create_request()))

    assert (problem.reason, problem.code) == (Reason.SCOPE_MISSING, grpc.StatusCode.PERMISSION_DENIED)
    assert problem.metadata == {"scope": "ledger:write"}
    assert handler.runs == 0


async def test_a_service_needs_no_scope_and_acts_for_the_tenant_that_it_names(
    probe: Probe, test_mesh: TestMesh, tenant_id: str
) -> None:
    probe.handlers["GetAccount"] = get_account

    answer = await ledger_stub(test_mesh.peer("ledger", "payments", tenant_id)).GetAccount(GET)

    assert answer.account.display_name == f"spiffe://kente/payments for {tenant_id}"


async def test_an_internal_rpc_is_closed_to_clients_whatever_their_scopes(
    probe: Probe, test_mesh: TestMesh, tenant_id: str
) -> None:
    async def get_tenant(_request: object, _context: object) -> GetTenantResponse:
        return GetTenantResponse()

    probe.handlers["GetTenant"] = get_tenant
    request = GetTenantRequest(tenant_id="ten_01jd3x0r8v5m1q9z2k7c4b6t8n")
    client = TenantServiceStub(test_mesh.client("ledger", tenant_id, ["tenants:read", "*", *SCOPES]))

    assert (await refused(client.GetTenant(request))).reason == Reason.SCOPE_MISSING
    assert await reason_of(TenantServiceStub(test_mesh.peer("ledger", "gateway")).GetTenant(request)) == "OK"


async def test_an_anonymous_rpc_is_open_to_all_and_believes_no_client(
    probe: Probe, test_mesh: TestMesh, tenant_id: str
) -> None:
    seen = []

    async def get_key_set(_request: object, _context: object) -> GetKeySetResponse:
        call = current_call()
        seen.append((call.principal.kind if call.principal else "", call.tenant_id))
        return GetKeySetResponse()

    probe.handlers["GetKeySet"] = get_key_set
    for channel in (
        test_mesh.with_token("ledger", ""),
        test_mesh.with_token("ledger", "no token"),
        test_mesh.client("ledger", tenant_id, SCOPES),
        test_mesh.peer("ledger", "gateway"),
    ):
        await TokenServiceStub(channel).GetKeySet(GetKeySetRequest())

    assert seen == [("", ""), ("", ""), ("", ""), ("service", "")]


def _forged(infrastructure: Infrastructure, **changes: object) -> str:
    """The identity service's access token with some of its claims or its header changed, signed again."""
    identity = infrastructure.identity("identity")
    now = int(time.time())
    claims = {
        "iss": identity.subject,
        "sub": "key_01jd3x0r8v5m1q9z2k7c4b6t8n",
        "aud": "kente",
        "iat": now,
        "exp": now + 60,
        "tenant": "ten_1",
        "scope": "ledger:read",
    }
    claims = {key: value for key, value in (claims | changes).items() if value is not None}
    return jwt.encode(claims, identity._key, algorithm="EdDSA", headers={"kid": identity.key_id})


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": 1_000_000_000},
        {"exp": None},
        {"aud": "other"},
        {"aud": None},
        {"iss": "spiffe://kente/payments"},
        {"iss": None},
        {"sub": None},
        {"sub": 7},
        {"tenant": ""},
        {"tenant": "*"},
        {"tenant": "ten_1.payments"},
        {"iat": None},
        {"nbf": 4_000_000_000},
    ],
    ids=str,
)
async def test_a_token_with_a_wrong_claim_is_refused(
    infrastructure: Infrastructure, probe: Probe, test_mesh: TestMesh, changes: dict[str, object]
) -> None:
    probe.handlers["GetAccount"] = get_account
    assert await reason_of(ledger_stub(test_mesh.with_token("ledger", _forged(infrastructure))).GetAccount(GET)) == "OK"

    problem = await refused(
        ledger_stub(test_mesh.with_token("ledger", _forged(infrastructure, **changes))).GetAccount(GET)
    )

    assert problem.reason == Reason.CREDENTIALS_INVALID


async def test_an_unsigned_token_is_refused(infrastructure: Infrastructure, probe: Probe, test_mesh: TestMesh) -> None:
    probe.handlers["GetAccount"] = get_account
    header, claims, _ = _forged(infrastructure).split(".")
    document = json.loads(base64.urlsafe_b64decode(header + "=="))
    unsigned = base64.urlsafe_b64encode(json.dumps({**document, "alg": "none"}).encode()).decode().rstrip("=")

    for token in (f"{unsigned}.{claims}.", f"{header}.{claims}."):
        assert (
            await refused(ledger_stub(test_mesh.with_token("ledger", token)).GetAccount(GET))
        ).reason == Reason.CREDENTIALS_INVALID


@pytest.fixture
async def limited(infrastructure: Infrastructure) -> AsyncIterator[tuple[Probe, Service]]:
    """A probe at the address of notifications that allows three calls of each kind."""
    probe = Probe()
    service = await probe.start(
        infrastructure,
        "notifications",
        read_rate_per_second=3,
        write_rate_per_second=3,
        credential_rate_per_minute=3,
    )
    yield probe, service
    await service.stop()


async def test_a_tenant_over_its_limit_is_told_when_to_come_back(
    limited: tuple[Probe, Service], test_mesh: TestMesh, tenant_id: str
) -> None:
    limited[0].handlers["CreateAccount"] = Counted()
    stub = ledger_stub(test_mesh.client("notifications", tenant_id, SCOPES))
    other = ledger_stub(test_mesh.client("notifications", f"{tenant_id}-other", SCOPES))
    allowed = 0
    while await reason_of(call := stub.CreateAccount(create_request())) == "OK":
        allowed += 1

    problem = await refused(call)

    # The window is a second of the clock: a run of calls can lie across two.
    assert 3 <= allowed <= 6
    assert (problem.reason, problem.code) == (Reason.RATE_LIMITED, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert 0 < (problem.retry_after_seconds or 0) <= 1
    assert await reason_of(other.CreateAccount(create_request())) == "OK"


async def test_services_are_not_limited(limited: tuple[Probe, Service], test_mesh: TestMesh, tenant_id: str) -> None:
    limited[0].handlers["CreateAccount"] = Counted()
    stub = ledger_stub(test_mesh.peer("notifications", "payments", tenant_id))

    assert {await reason_of(stub.CreateAccount(create_request())) for _ in range(12)} == {"OK"}


async def test_anonymous_callers_are_limited_by_address_which_only_services_may_name(
    limited: tuple[Probe, Service], test_mesh: TestMesh
) -> None:
    async def get_key_set(_request: object, _context: object) -> GetKeySetResponse:
        return GetKeySetResponse()

    limited[0].handlers["GetKeySet"] = get_key_set
    stranger = TokenServiceStub(test_mesh.with_token("notifications", ""))
    gateway = TokenServiceStub(test_mesh.peer("notifications", "gateway"))

    async def asked(stub: TokenClient, addresses: list[str]) -> list[str]:
        return [
            await reason_of(stub.GetKeySet(GetKeySetRequest(), metadata=((CLIENT_ADDRESS, address),)))
            for address in addresses
        ]

    # Whatever a stranger says of its address, it is one.
    assert (await asked(stranger, [f"10.0.0.{number}" for number in range(12)])).count("RATE_LIMITED") >= 6
    assert await asked(gateway, [f"10.0.1.{number}" for number in range(8)]) == ["OK"] * 8
    assert (await asked(gateway, ["10.0.2.1"] * 12)).count("RATE_LIMITED") >= 6


async def test_a_lost_counter_stops_no_call(
    infrastructure: Infrastructure, test_mesh: TestMesh, tenant_id: str
) -> None:
    probe = Probe()
    (port,) = free_ports(1)
    service = await probe.start(infrastructure, "connections", cache_url=f"valkey://127.0.0.1:{port}")
    try:
        probe.handlers["CreateAccount"] = Counted()
        stub = ledger_stub(test_mesh.client("connections", tenant_id, SCOPES))

        assert await reason_of(stub.CreateAccount(create_request())) == "OK"
    finally:
        await service.stop()
