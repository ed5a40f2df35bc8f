"""Calls from one service to another."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator

import grpc
import pytest
from kente.ledger.v1.ledger_service_pb2 import GetAccountRequest, GetAccountResponse

from mesh.channel import open_channel, service_config
from mesh.context import call_tenant, current_call, remaining_seconds
from mesh.errors import Problem, Reason
from mesh.policies import contract_services, methods_of
from tests.harness import Infrastructure, TestMesh, eventually
from tests.mesh.probe import (
    SCOPES,
    Counted,
    LedgerClient,
    Probe,
    account,
    create_request,
    ledger_stub,
    reason_of,
    refused,
)
from tests.mesh.process import environment_of

GET = GetAccountRequest(account_name="assets:bank")


@pytest.fixture
async def ledger(infrastructure: Infrastructure) -> AsyncIterator[Probe]:
    """A probe at the ledger's address."""
    probe = Probe()
    service = await probe.start(infrastructure)
    yield probe
    await service.stop()


@pytest.fixture
async def payments(infrastructure: Infrastructure) -> AsyncIterator[Probe]:
    """A probe at the payments service's address, which may call the ledger."""
    probe = Probe()
    service = await probe.start(infrastructure, "payments")
    yield probe
    await service.stop()


@pytest.fixture
async def peer(infrastructure: Infrastructure) -> AsyncIterator[LedgerClient]:
    """The payments service's client of the ledger, outside of any call."""
    channel = open_channel("ledger", infrastructure.settings("payments"), infrastructure.identity("payments"))
    yield ledger_stub(channel)
    await channel.close()


async def test_a_call_carries_who_calls_for_whom_and_the_time_that_is_left(
    ledger: Probe, payments: Probe, test_mesh: TestMesh, tenant_id: str
) -> None:
    seen = []

    async def get_account(_request: object, _context: object) -> GetAccountResponse:
        call = current_call()
        seen.append((call.principal.subject if call.principal else "", call.tenant_id, remaining_seconds()))
        return GetAccountResponse()

    async def ask_ledger(_run: int) -> None:
        runtime = payments.runtime
        assert runtime
        async with runtime.channel("ledger") as channel:
            await ledger_stub(channel).GetAccount(GET, timeout=60)
            seen.append(("here", "", remaining_seconds()))

    ledger.handlers["GetAccount"] = get_account
    payments.handlers["CreateAccount"] = Counted(ask_ledger)
    await ledger_stub(test_mesh.client("payments", tenant_id, SCOPES)).CreateAccount(create_request(), timeout=3)

    (subject, tenant, there), (_, _, here) = seen
    assert (subject, tenant) == ("spiffe://kente/payments", tenant_id)
    assert there < 3
    assert here < 3


async def test_no_call_is_made_when_no_time_is_left(ledger: Probe, peer: LedgerClient) -> None:
    handler = ledger.handlers["CreateAccount"] = Counted()
    with call_tenant("ten_1", timeout_seconds=0.01), pytest.raises(Problem) as raised:
        await peer.CreateAccount(create_request())

    assert raised.value.reason == Reason.DEADLINE_PASSED
    assert handler.runs == 0


async def test_a_call_of_a_job_acts_for_the_jobs_tenant(ledger: Probe, peer: LedgerClient, tenant_id: str) -> None:
    seen = []

    async def look(_run: int) -> None:
        seen.append(current_call().tenant_id)

    ledger.handlers["CreateAccount"] = Counted(look)
    with call_tenant(tenant_id):
        await peer.CreateAccount(create_request())
    with call_tenant(f"{tenant_id}-other"):
        await peer.CreateAccount(create_request())

    assert seen == [tenant_id, f"{tenant_id}-other"]


async def test_a_call_that_nobody_waits_for_has_a_deadline_too(ledger: Probe, peer: LedgerClient) -> None:
    seen = []

    async def get_account(_request: object, context: grpc.aio.ServicerContext[object, object]) -> GetAccountResponse:
        seen.append(context.time_remaining())
        return GetAccountResponse()

    ledger.handlers["GetAccount"] = get_account
    await peer.GetAccount(GET)

    assert 10 < seen[0] <= 15.1


async def test_a_read_is_tried_again_when_the_service_is_away_for_a_moment(ledger: Probe, peer: LedgerClient) -> None:
    runs = 0

    async def fail_twice(request: GetAccountRequest, _context: object) -> GetAccountResponse:
        nonlocal runs
        runs += 1
        if runs <= 2:
            raise Problem(Reason.SERVICE_UNAVAILABLE)
        return GetAccountResponse(account=account(request.account_name))

    ledger.handlers["GetAccount"] = fail_twice

    assert (await peer.GetAccount(GET)).account.account_name == "assets:bank"
    assert runs == 3


async def test_a_write_is_not_tried_again(ledger: Probe, peer: LedgerClient) -> None:
    async def fail(_run: int) -> None:
        raise Problem(Reason.SERVICE_UNAVAILABLE, retry_after_seconds=2.0)

    handler = ledger.handlers["CreateAccount"] = Counted(fail)

    problem = await refused(peer.CreateAccount(create_request()))

    assert (problem.reason, problem.retry_after_seconds) == (Reason.SERVICE_UNAVAILABLE, 2.0)
    assert handler.runs == 1


async def test_a_read_that_fails_for_good_is_not_tried_again(ledger: Probe, peer: LedgerClient) -> None:
    runs = 0

    async def fail(_request: object, _context: object) -> None:
        nonlocal runs
        runs += 1
        raise ValueError("a fault")

    ledger.handlers["GetAccount"] = fail

    assert await reason_of(peer.GetAccount(GET)) == "INTERNAL"
    assert runs == 1


@pytest.mark.parametrize("domain", ["payments", "identity", "ledger", "notifications", "connections"])
def test_exactly_the_safe_unary_rpcs_of_a_domain_are_retried(domain: str) -> None:
    methods = methods_of(contract_services(domain))
    config = json.loads(service_config(methods))

    retried = {f"/{name['service']}/{name['method']}" for name in config["methodConfig"][0]["name"]}

    assert retried == {
        name
        for name, method in methods.items()
        if name.rpartition("/")[2].startswith(("Get", "List", "Resolve", "Locate")) and not method.is_streaming
    }


async def test_a_service_that_is_down_is_an_outage_that_tells_when_to_come_back(
    payments: Probe, test_mesh: TestMesh, tenant_id: str
) -> None:
    async def ask_ledger(_run: int) -> None:
        runtime = payments.runtime
        assert runtime
        async with runtime.channel("ledger") as channel:
            await ledger_stub(channel).CreateAccount(create_request())

    payments.handlers["CreateAccount"] = Counted(ask_ledger)
    stub = ledger_stub(test_mesh.client("payments", tenant_id, SCOPES))

    problem = await refused(stub.CreateAccount(create_request()))

    assert (problem.reason, problem.code) == (Reason.SERVICE_UNAVAILABLE, grpc.StatusCode.UNAVAILABLE)
    assert problem.retry_after_seconds
    # Where the services are is not for callers.
    assert "127.0.0.1" not in problem.detail


async def test_a_refusal_of_our_own_credentials_is_no_fault_of_our_caller(
    ledger: Probe, payments: Probe, test_mesh: TestMesh, tenant_id: str
) -> None:
    async def refuse(_run: int) -> None:
        raise Problem(Reason.SCOPE_MISSING, "no")

    async def ask_ledger(_run: int) -> None:
        runtime = payments.runtime
        assert runtime
        async with runtime.channel("ledger") as channel:
            await ledger_stub(channel).CreateAccount(create_request())

    ledger.handlers["CreateAccount"] = Counted(refuse)
    payments.handlers["CreateAccount"] = Counted(ask_ledger)
    stub = ledger_stub(test_mesh.client("payments", tenant_id, SCOPES))

    assert (await refused(stub.CreateAccount(create_request()))).reason == Reason.INTERNAL


async def test_a_peers_definite_answer_is_passed_on(
    ledger: Probe, payments: Probe, test_mesh: TestMesh, tenant_id: str
) -> None:
    async def refuse(_run: int) -> None:
        raise Problem(Reason.ACCOUNT_NOT_OPEN, "it is frozen", account_name="assets:bank")

    async def ask_ledger(_run: int) -> None:
        runtime = payments.runtime
        assert runtime
        async with runtime.channel("ledger") as channel:
            await ledger_stub(channel).CreateAccount(create_request())

    ledger.handlers["CreateAccount"] = Counted(refuse)
    payments.handlers["CreateAccount"] = Counted(ask_ledger)

    problem = await refused(
        ledger_stub(test_mesh.client("payments", tenant_id, SCOPES)).CreateAccount(create_request())
    )

    assert (problem.reason, problem.detail) == (Reason.ACCOUNT_NOT_OPEN, "it is frozen")
    assert problem.metadata == {"account_name": "assets:bank"}


async def test_a_caller_who_leaves_is_left_at_the_next_hop_too(ledger: Probe, peer: LedgerClient) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hang(_run: int) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    ledger.handlers["CreateAccount"] = Counted(hang)

    async def ask() -> None:
        await peer.CreateAccount(create_request())

    task = asyncio.create_task(ask())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async with asyncio.timeout(3):
        await ended.wait()


async def test_a_channel_works_again_when_the_service_is_back(
    infrastructure: Infrastructure, peer: LedgerClient
) -> None:
    async def get_account(_request: object, _context: object) -> GetAccountResponse:
        return GetAccountResponse()

    for _ in range(3):
        probe = Probe()
        service = await probe.start(infrastructure)
        probe.handlers["GetAccount"] = get_account

        async def answers() -> bool:
            return await reason_of(peer.GetAccount(GET)) == "OK"

        await eventually(answers, 5)
        await service.stop()
        assert await reason_of(peer.GetAccount(GET)) == "SERVICE_UNAVAILABLE"


async def test_a_service_killed_in_the_middle_of_a_write_answers_the_same_request_when_it_is_back(
    infrastructure: Infrastructure, peer: LedgerClient, tenant_id: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.mesh.victim", "call", str(infrastructure.ports["ledger"])),
        env=environment_of(infrastructure, "ledger"),
        stdout=asyncio.subprocess.PIPE,
    )
    output = process.stdout
    assert output
    while await output.readline() != b"serves\n":
        pass
    request = create_request()
    with call_tenant(tenant_id, timeout_seconds=1.0):
        call = asyncio.ensure_future(reason_of(peer.CreateAccount(request)))
        while await output.readline() != b"begun\n":
            pass
    process.kill()
    await process.wait()
    assert await call == "SERVICE_UNAVAILABLE"

    probe = Probe()
    service = await probe.start(infrastructure)
    handler = probe.handlers["CreateAccount"] = Counted()
    reasons: list[str] = []

    async def answered() -> bool:
        with call_tenant(tenant_id):
            reasons.append(await reason_of(peer.CreateAccount(request)))
        return reasons[-1] == "OK"

    await eventually(answered, 10)
    await service.stop()
    # In flight, as far as anyone knows, until the lease of the dead process ends.
    assert "REQUEST_IN_FLIGHT" in reasons
    assert set(reasons) <= {"OK", "REQUEST_IN_FLIGHT", "SERVICE_UNAVAILABLE"}
    assert handler.runs == 1
