"""The same request_id and body: the same bytes, one run."""

from __future__ import annotations

import asyncio
import uuid

import asyncpg
import grpc
import pytest
from kente.ledger.v1.ledger_service_pb2 import CreateAccountRequest

from mesh.errors import Problem, Reason
from tests.harness import Infrastructure, TestMesh, eventually
from tests.mesh.probe import (
    CREATE_ACCOUNT,
    SCOPES,
    Counted,
    LedgerClient,
    Probe,
    counts,
    create_request,
    ledger_stub,
    reason_of,
    refused,
)


def raw(channel: grpc.aio.Channel) -> grpc.aio.UnaryUnaryMultiCallable[CreateAccountRequest, bytes]:
    """CreateAccount with the answer as it came over the wire."""
    return channel.unary_unary(CREATE_ACCOUNT, request_serializer=CreateAccountRequest.SerializeToString)


async def test_the_same_request_gets_the_same_bytes_and_runs_once(
    probe: Probe, test_mesh: TestMesh, tenant_id: str
) -> None:
    handler = probe.handlers["CreateAccount"] = Counted()
    call = raw(test_mesh.client("ledger", tenant_id, SCOPES))
    request = create_request()

    answers = [await call(request) for _ in range(3)]

    assert answers[0]
    assert set(answers) == {answers[0]}
    assert handler.runs == 1


async def test_twenty_at_once_run_once_and_the_others_are_told_to_wait_or_get_the_answer(
    probe: Probe, test_mesh: TestMesh, tenant_id: str
) -> None:
    release = asyncio.Event()

    async def wait(_run: int) -> None:
        await release.wait()

    handler = probe.handlers["CreateAccount"] = Counted(wait)
    stub = ledger_stub(test_mesh.client("ledger", tenant_id, SCOPES))
    request = create_request()
    calls = [asyncio.ensure_future(reason_of(stub.CreateAccount(request))) for _ in range(20)]

    async def all_but_one_answered() -> bool:
        return sum(call.done() for call in calls) == 19

    await eventually(all_but_one_answered)
    release.set()

    assert counts(await asyncio.gather(*calls)) == {"REQUEST_IN_FLIGHT": 19, "OK": 1}
    assert handler.runs == 1
    assert (await stub.CreateAccount(request)).account.display_name == "run 1"


async def test_a_call_in_flight_says_when_to_come_back(probe: Probe, stub: LedgerClient) -> None:
    release, begun = asyncio.Event(), asyncio.Event()

    async def wait(_run: int) -> None:
        begun.set()
        await release.wait()

    probe.handlers["CreateAccount"] = Counted(wait)
    request = create_request()
    first = asyncio.ensure_future(reason_of(stub.CreateAccount(request)))
    await begun.wait()

    problem = await refused(stub.CreateAccount(request))
    release.set()

    assert problem.code is grpc.StatusCode.ABORTED
    assert problem.reason == Reason.REQUEST_IN_FLIGHT
    assert 0 < (problem.retry_after_seconds or 0) <= 1
    assert await first == "OK"


async def test_another_body_under_the_same_request_id_is_refused(probe: Probe, stub: LedgerClient) -> None:
    handler = probe.handlers["CreateAccount"] = Counted()
    request = create_request()
    await stub.CreateAccount(request)

    problem = await refused(stub.CreateAccount(create_request(request.request_id, currency="NGN")))

    assert problem.reason == Reason.REQUEST_ID_REUSED
    assert problem.metadata["request_id"] == request.request_id
    assert handler.runs == 1


async def test_another_tenants_same_request_id_is_another_request(
    probe: Probe, test_mesh: TestMesh, tenant_id: str
) -> None:
    handler = probe.handlers["CreateAccount"] = Counted()
    request = create_request()
    one = ledger_stub(test_mesh.client("ledger", tenant_id, SCOPES))
    other = ledger_stub(test_mesh.client("ledger", f"{tenant_id}-other", SCOPES))

    answers = [(await stub.CreateAccount(request)).account.display_name for stub in (one, other, one, other)]

    assert answers == ["run 1", "run 2", "run 1", "run 2"]
    assert handler.runs == 2


@pytest.mark.parametrize(
    "reason",
    [
        Reason.FIELD_INVALID,
        Reason.RESOURCE_NOT_FOUND,
        Reason.RESOURCE_ALREADY_EXISTS,
        Reason.STATE_CONFLICT,
        Reason.BALANCE_OVERFLOW,
    ],
)
async def test_a_definite_failure_is_the_answer_for_ever(probe: Probe, stub: LedgerClient, reason: Reason) -> None:
    async def fail(run: int) -> None:
        if run == 1:
            raise Problem(reason, "as it is", account_name="assets:bank")

    handler = probe.handlers["CreateAccount"] = Counted(fail)
    request = create_request()

    first, second = await refused(stub.CreateAccount(request)), await refused(stub.CreateAccount(request))

    assert (first.reason, first.detail, first.metadata) == (reason, "as it is", {"account_name": "assets:bank"})
    assert second.to_status() == first.to_status()
    assert handler.runs == 1


@pytest.mark.parametrize(
    "error",
    [
        Problem(Reason.SERVICE_UNAVAILABLE, retry_after_seconds=1.0),
        Problem(Reason.RATE_LIMITED, retry_after_seconds=1.0),
        ConnectionResetError(),
        ValueError("a fault of ours"),
    ],
    ids=lambda error: str(error)[:24],
)
async def test_a_failure_that_may_pass_is_not_stored(probe: Probe, stub: LedgerClient, error: Exception) -> None:
    async def fail(run: int) -> None:
        if run == 1:
            raise error

    handler = probe.handlers["CreateAccount"] = Counted(fail)
    request = create_request()

    await refused(stub.CreateAccount(request))

    assert (await stub.CreateAccount(request)).account.display_name == "run 2"
    assert handler.runs == 2


async def test_a_canceled_call_lets_the_next_begin_at_once(probe: Probe, stub: LedgerClient) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hang(run: int) -> None:
        if run == 1:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

    probe.handlers["CreateAccount"] = Counted(hang)
    request = create_request()
    call = stub.CreateAccount(request, timeout=60)
    running = asyncio.ensure_future(reason_of(call))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await ended.wait()

    async def answered() -> bool:
        return await reason_of(stub.CreateAccount(request)) == "OK"

    # The lease of the first call would have lasted a minute.
    await eventually(answered, 5)


async def test_a_call_past_its_deadline_lets_the_next_begin_at_once(probe: Probe, stub: LedgerClient) -> None:
    async def hang(run: int) -> None:
        if run == 1:
            await asyncio.Event().wait()

    handler = probe.handlers["CreateAccount"] = Counted(hang)
    request = create_request()

    assert (await refused(stub.CreateAccount(request, timeout=0.2))).reason == Reason.DEADLINE_PASSED

    async def answered() -> bool:
        return await reason_of(stub.CreateAccount(request)) == "OK"

    await eventually(answered, 1)
    assert handler.runs == 2


async def test_the_lease_of_a_process_that_died_ends_and_the_handler_runs_again(
    probe: Probe, stub: LedgerClient, admin: asyncpg.Connection, tenant_id: str
) -> None:
    handler = probe.handlers["CreateAccount"] = Counted()
    request = create_request()
    await stub.CreateAccount(request)
    # The row as a process leaves it that died in the handler, half a second before the end of its lease.
    await admin.execute(
        "UPDATE idempotency SET response = NULL, locked_until = now() + interval '0.5 s' WHERE tenant_id = $1",
        tenant_id,
    )

    assert (await refused(stub.CreateAccount(request))).reason == Reason.REQUEST_IN_FLIGHT

    async def answered() -> bool:
        return await reason_of(stub.CreateAccount(request)) == "OK"

    await eventually(answered, 3)
    assert handler.runs == 2


async def test_a_run_keeps_its_lease_for_as_long_as_it_takes(
    probe: Probe, stub: LedgerClient, admin: asyncpg.Connection, tenant_id: str
) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def wait(_run: int) -> None:
        begun.set()
        await release.wait()

    handler = probe.handlers["CreateAccount"] = Counted(wait)
    request = create_request()
    slow = asyncio.ensure_future(stub.CreateAccount(request))
    await begun.wait()
    first_end = await admin.fetchval("SELECT locked_until FROM idempotency WHERE tenant_id = $1", tenant_id)

    async def renewed() -> bool:
        return bool(
            await admin.fetchval("SELECT locked_until > $2 FROM idempotency WHERE tenant_id = $1", tenant_id, first_end)
        )

    await eventually(renewed, 5)
    assert (await refused(stub.CreateAccount(request))).reason == Reason.REQUEST_IN_FLIGHT
    release.set()

    assert (await slow).account.display_name == "run 1"
    assert handler.runs == 1


async def test_of_two_runs_the_one_that_ends_first_gives_the_answer_to_both(
    probe: Probe, stub: LedgerClient, admin: asyncpg.Connection, tenant_id: str
) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def first_is_slow(run: int) -> None:
        if run == 1:
            begun.set()
            await release.wait()

    handler = probe.handlers["CreateAccount"] = Counted(first_is_slow)
    request = create_request()
    slow = asyncio.ensure_future(stub.CreateAccount(request))
    await begun.wait()
    # As if the process had been held up for longer than its lease.
    await admin.execute("UPDATE idempotency SET locked_until = now() WHERE tenant_id = $1", tenant_id)

    quick = await stub.CreateAccount(request)
    release.set()

    assert handler.runs == 2
    assert quick.account.display_name == "run 2"
    assert await slow == quick
    assert await stub.CreateAccount(request) == quick


async def test_a_run_that_outlived_its_lease_and_failed_does_not_end_the_next_ones_lease(
    probe: Probe, stub: LedgerClient, admin: asyncpg.Connection, tenant_id: str
) -> None:
    begun = [asyncio.Event(), asyncio.Event()]
    release = [asyncio.Event(), asyncio.Event()]

    async def wait(run: int) -> None:
        begun[run - 1].set()
        await release[run - 1].wait()
        if run == 1:
            raise Problem(Reason.SERVICE_UNAVAILABLE)

    handler = probe.handlers["CreateAccount"] = Counted(wait)
    request = create_request()
    first = asyncio.ensure_future(reason_of(stub.CreateAccount(request)))
    await begun[0].wait()
    await admin.execute("UPDATE idempotency SET locked_until = now() WHERE tenant_id = $1", tenant_id)
    second = asyncio.ensure_future(reason_of(stub.CreateAccount(request)))
    await begun[1].wait()
    release[0].set()
    assert await first == "SERVICE_UNAVAILABLE"

    assert await reason_of(stub.CreateAccount(request)) == "REQUEST_IN_FLIGHT"
    release[1].set()
    assert await second == "OK"
    assert handler.runs == 2


async def test_an_answer_is_stored_though_its_caller_left_in_that_moment(
    infrastructure: Infrastructure, probe: Probe, stub: LedgerClient, admin: asyncpg.Connection, tenant_id: str
) -> None:
    request = create_request()
    # Holds up the storing of the answer, and with it the call, after the handler is done.
    blocker = await asyncpg.connect(infrastructure.postgres.admin_url)

    async def lock(_run: int) -> None:
        await blocker.execute("BEGIN")
        await blocker.execute("SELECT 1 FROM ledger.idempotency WHERE tenant_id = $1 FOR UPDATE", tenant_id)

    handler = probe.handlers["CreateAccount"] = Counted(lock)
    call = stub.CreateAccount(request)
    running = asyncio.ensure_future(reason_of(call))

    async def is_storing() -> bool:
        return bool(
            await admin.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%idempotency%'"
            )
        )

    await eventually(is_storing)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await blocker.close()

    async def stored() -> bool:
        return bool(await admin.fetchval("SELECT response FROM idempotency WHERE tenant_id = $1", tenant_id))

    await eventually(stored)
    assert (await stub.CreateAccount(request)).account.display_name == "run 1"
    assert handler.runs == 1


async def test_a_request_without_a_uuid_is_refused_before_anything_is_stored(
    probe: Probe, stub: LedgerClient, admin: asyncpg.Connection, tenant_id: str
) -> None:
    handler = probe.handlers["CreateAccount"] = Counted()

    problem = await refused(stub.CreateAccount(create_request("not-a-uuid")))

    assert [violation.field for violation in problem.violations] == ["request_id"]
    assert handler.runs == 0
    assert await admin.fetchval("SELECT count(*) FROM idempotency WHERE tenant_id = $1", tenant_id) == 0
    assert uuid.UUID(create_request().request_id)
