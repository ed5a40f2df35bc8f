"""What becomes of a call: deadlines, rules, faults, streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeAlias

import asyncpg
import grpc
import pytest
from google.rpc import status_pb2
from grpc_status import rpc_status
from kente.common.v1.money_pb2 import Money
from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1.ledger_service_pb2 import (
    CreateTransactionRequest,
    GetAccountRequest,
    GetAccountResponse,
    GetBalanceRequest,
)
from kente.payments.v1.payment_service_pb2 import WatchPaymentRequest, WatchPaymentResponse
from kente.payments.v1.payment_service_pb2_grpc import PaymentServiceStub
from opentelemetry import trace

from mesh.context import current_call, current_tenant_id, remaining_seconds
from mesh.database import Database
from mesh.errors import Problem, Reason, Violation
from mesh.ids import new_id
from tests.harness import Infrastructure, TestMesh, eventually
from tests.mesh.probe import (
    SCOPES,
    Counted,
    LedgerClient,
    PaymentClient,
    Probe,
    create_request,
    ledger_stub,
    reason_of,
    refused,
)

RawCall: TypeAlias = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
GET = GetAccountRequest(account_name="assets:bank")
WATCH = WatchPaymentRequest(payment_id="pay_01jd3x0r8v5m1q9z2k7c4b6t8n")


async def test_a_handler_that_outlasts_the_deadline_is_stopped(probe: Probe, stub: LedgerClient) -> None:
    ended = asyncio.Event()

    async def hang(_request: object, _context: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    probe.handlers["GetAccount"] = hang

    problem = await refused(stub.GetAccount(GET, timeout=0.2))

    assert (problem.reason, problem.code) == (Reason.DEADLINE_PASSED, grpc.StatusCode.DEADLINE_EXCEEDED)
    await ended.wait()


async def test_a_call_whose_deadline_is_over_runs_no_handler(probe: Probe, stub: LedgerClient) -> None:
    handler = probe.handlers["CreateAccount"] = Counted()

    problem = await refused(stub.CreateAccount(create_request(), timeout=0.000_001))

    assert problem.reason == Reason.DEADLINE_PASSED
    assert handler.runs == 0


async def test_a_call_without_a_deadline_gets_the_default(infrastructure: Infrastructure, tenant_id: str) -> None:
    probe = Probe()
    service = await probe.start(infrastructure, "notifications", default_deadline_seconds=0.2)

    async def hang(_request: object, _context: object) -> None:
        await asyncio.Event().wait()

    probe.handlers["GetAccount"] = hang
    # A client of another make, which sends no deadline.
    token = infrastructure.identity("identity").access_token(new_id("key"), tenant_id, SCOPES, 60)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        call = ledger_stub(channel).GetAccount(GET, metadata=(("authorization", f"Bearer {token}"),))
        problem = await refused(call)
    await service.stop()

    assert problem.reason == Reason.DEADLINE_PASSED


async def test_the_handler_knows_its_call(probe: Probe, stub: LedgerClient, tenant_id: str) -> None:
    seen = []

    async def look(_run: int) -> None:
        seen.append((current_call(), current_tenant_id(), remaining_seconds()))

    probe.handlers["CreateAccount"] = Counted(look)
    request = create_request()
    await stub.CreateAccount(request, timeout=5)

    call, tenant, remaining = seen[0]
    assert call.method == "/kente.ledger.v1.LedgerService/CreateAccount"
    assert call.request_id == request.request_id
    assert tenant == tenant_id
    assert 4 < remaining <= 5.1


async def test_every_field_that_breaks_a_rule_is_named_with_its_path(stub: LedgerClient) -> None:
    legs = [
        ledger_pb2.Leg(
            account_name="assets:bank", side=ledger_pb2.SIDE_DEBIT, amount=Money(amount_minor=5, currency="GHS")
        ),
        ledger_pb2.Leg(account_name="Not A Name", side=ledger_pb2.SIDE_CREDIT, amount=Money(currency="ghs")),
        ledger_pb2.Leg(account_name="assets:bank"),
    ]
    request = CreateTransactionRequest(request_id="1", transaction_id="txn_1", legs=legs)

    problem = await refused(stub.CreateTransaction(request))

    assert (problem.reason, problem.code) == (Reason.FIELD_INVALID, grpc.StatusCode.INVALID_ARGUMENT)
    assert {violation.field for violation in problem.violations} == {
        "request_id",
        "transaction_id",
        "legs[1].account_name",
        "legs[1].amount",
        "legs[1].amount.currency",
        "legs[2].side",
        "legs[2].amount",
    }
    assert all(violation.description for violation in problem.violations)


async def test_a_request_with_a_thousand_faults_is_refused_for_them(stub: LedgerClient) -> None:
    legs = [ledger_pb2.Leg(account_name=f"Not a name {'x' * 300}") for _ in range(300)]

    problem = await refused(stub.CreateTransaction(CreateTransactionRequest(legs=legs)))

    assert problem.reason == Reason.FIELD_INVALID
    assert problem.violations[0].field == "request_id"


async def test_a_nul_character_is_found_wherever_it_is(stub: LedgerClient) -> None:
    request = CreateTransactionRequest(
        request_id="6f1a1c1e-0000-7000-8000-000000000001",
        transaction_id="txn_01jd3x0r8v5m1q9z2k7c4b6t8n",
        description="a\0b",
        metadata={"order": "1\0"},
        legs=[
            ledger_pb2.Leg(account_name="assets:bank", side=side, amount=Money(amount_minor=5, currency="GHS"))
            for side in (ledger_pb2.SIDE_DEBIT, ledger_pb2.SIDE_CREDIT)
        ],
    )

    problem = await refused(stub.CreateTransaction(request))

    assert [violation.field for violation in problem.violations] == ["description", "metadata"]


async def test_a_violation_found_by_the_handler_reaches_the_caller(probe: Probe, stub: LedgerClient) -> None:
    async def refuse(_run: int) -> None:
        raise Problem(Reason.FIELD_INVALID, violations=[Violation("currency", "is not in use here: take GHS")])

    probe.handlers["CreateAccount"] = Counted(refuse)

    problem = await refused(stub.CreateAccount(create_request()))

    assert problem.violations == (Violation("currency", "is not in use here: take GHS"),)


SECRET = "kofi@example.com used 4111111111111111 with whsec_abcdef123456"


@pytest.mark.parametrize("error", [ValueError(SECRET), KeyError(SECRET), RuntimeError(SECRET), AssertionError(SECRET)])
async def test_a_fault_of_ours_shows_its_trace_id_and_nothing_else(
    probe: Probe, stub: LedgerClient, error: Exception
) -> None:
    trace_ids = []

    async def fail(_run: int) -> None:
        trace_ids.append(trace.format_trace_id(trace.get_current_span().get_span_context().trace_id))
        raise error

    probe.handlers["CreateAccount"] = Counted(fail)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.CreateAccount(create_request())
    status: status_pb2.Status = rpc_status.from_call(raised.value)  # type: ignore[arg-type]  # it has what is read

    problem = Problem.from_status(status)

    assert (problem.reason, problem.code) == (Reason.INTERNAL, grpc.StatusCode.INTERNAL)
    assert problem.metadata == {"trace_id": trace_ids[0]}
    assert int(trace_ids[0], 16) > 0
    for word in ("kofi", "4111", "whsec", type(error).__name__, "probe"):
        assert word.encode() not in status.SerializeToString()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (asyncpg.ConnectionDoesNotExistError("x"), Reason.SERVICE_UNAVAILABLE),
        (asyncpg.TooManyConnectionsError("x"), Reason.SERVICE_UNAVAILABLE),
        (asyncpg.DeadlockDetectedError("x"), Reason.SERVICE_UNAVAILABLE),
        (asyncpg.SerializationError("x"), Reason.SERVICE_UNAVAILABLE),
        (asyncpg.DiskFullError("x"), Reason.SERVICE_UNAVAILABLE),
        (ConnectionRefusedError(), Reason.SERVICE_UNAVAILABLE),
        (asyncpg.UndefinedTableError("x"), Reason.INTERNAL),
        (asyncpg.UniqueViolationError("x"), Reason.INTERNAL),
        (asyncpg.InterfaceError("the server expects 1 argument for this query, 2 were passed"), Reason.INTERNAL),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_the_databases_absence_and_a_mistake_with_it_are_told_apart(
    probe: Probe, stub: LedgerClient, error: Exception, reason: Reason
) -> None:
    async def fail(_run: int) -> None:
        raise error

    probe.handlers["CreateAccount"] = Counted(fail)

    problem = await refused(stub.CreateAccount(create_request()))

    assert problem.reason == reason
    assert (problem.retry_after_seconds is not None) == (reason == Reason.SERVICE_UNAVAILABLE)


async def test_a_statement_with_wrong_arguments_is_a_fault_and_no_outage(
    probe: Probe, stub: LedgerClient, database: Database, tenant_id: str
) -> None:
    async def query(_run: int) -> None:
        async with database.transaction(tenant_id) as connection:
            await connection.fetchval("SELECT $1::int", 2**40)

    probe.handlers["CreateAccount"] = Counted(query)

    assert (await refused(stub.CreateAccount(create_request()))).reason == Reason.INTERNAL


async def test_an_unknown_rpc_is_unknown(probe: Probe, test_mesh: TestMesh, tenant_id: str) -> None:
    assert probe.runtime
    call: RawCall = test_mesh.client("ledger", tenant_id, SCOPES).unary_unary("/kente.ledger.v1.LedgerService/Nothing")

    assert (await refused(call(b""))).reason == Reason.METHOD_UNKNOWN


async def test_bytes_that_are_no_request_are_refused(probe: Probe, test_mesh: TestMesh, tenant_id: str) -> None:
    probe.handlers["GetBalance"] = Counted()
    call: RawCall = test_mesh.client("ledger", tenant_id, SCOPES).unary_unary(
        "/kente.ledger.v1.LedgerService/GetBalance"
    )

    assert await reason_of(call(b"\xff\xff\xff")) == "INTERNAL"
    assert await reason_of(call(GetBalanceRequest().SerializeToString())) == "FIELD_INVALID"


@pytest.fixture
def watcher(probe: Probe, test_mesh: TestMesh, tenant_id: str) -> PaymentClient:
    """A partner who watches payments."""
    assert probe.runtime
    return PaymentServiceStub(test_mesh.client("ledger", tenant_id, SCOPES))


async def test_a_stream_gives_its_messages_and_ends(probe: Probe, watcher: PaymentClient) -> None:
    async def watch(request: WatchPaymentRequest, _context: object) -> AsyncIterator[WatchPaymentResponse]:
        for _ in range(3):
            response = WatchPaymentResponse()
            response.payment.payment_id = request.payment_id
            yield response

    probe.handlers["WatchPayment"] = watch

    assert [answer.payment.payment_id async for answer in watcher.WatchPayment(WATCH)] == [WATCH.payment_id] * 3


async def test_a_stream_that_fails_tells_why(probe: Probe, watcher: PaymentClient) -> None:
    async def watch(_request: object, _context: object) -> AsyncIterator[WatchPaymentResponse]:
        yield WatchPaymentResponse()
        raise Problem(Reason.RESOURCE_NOT_FOUND, "it is gone")

    probe.handlers["WatchPayment"] = watch
    call = watcher.WatchPayment(WATCH)
    await call.read()

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call.read()

    assert Problem.from_rpc_error(raised.value).reason == Reason.RESOURCE_NOT_FOUND


async def test_a_watcher_who_leaves_closes_what_the_stream_has_open(
    probe: Probe, watcher: PaymentClient, database: Database, tenant_id: str
) -> None:
    closed: list[str] = []

    async def watch(_request: object, _context: object) -> AsyncIterator[WatchPaymentResponse]:
        async with database.transaction(tenant_id):
            try:
                while True:
                    yield WatchPaymentResponse()
            finally:
                closed.append(current_tenant_id())

    probe.handlers["WatchPayment"] = watch
    call = watcher.WatchPayment(WATCH)
    await call.read()
    call.cancel()

    async def connection_is_back() -> bool:
        return bool(closed) and database.pool.get_idle_size() == database.pool.get_size()

    await eventually(connection_is_back)
    # In the call's own context, where the tenant is known and the transaction can be taken back.
    assert closed == [tenant_id]


async def test_a_watcher_without_a_deadline_still_has_time_for_its_calls_after_long(
    probe: Probe, watcher: PaymentClient
) -> None:
    remaining = []

    async def watch(_request: object, _context: object) -> AsyncIterator[WatchPaymentResponse]:
        current_call().deadline_monotonic -= 3600
        remaining.append(remaining_seconds())
        yield WatchPaymentResponse()

    probe.handlers["WatchPayment"] = watch
    async for _ in watcher.WatchPayment(WATCH):
        pass

    assert remaining == [15.0]


async def test_a_stream_with_a_deadline_ends_with_it(probe: Probe, watcher: PaymentClient) -> None:
    async def watch(_request: object, _context: object) -> AsyncIterator[WatchPaymentResponse]:
        yield WatchPaymentResponse()
        await asyncio.Event().wait()

    probe.handlers["WatchPayment"] = watch
    call = watcher.WatchPayment(WATCH, timeout=0.3)
    await call.read()

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call.read()

    assert Problem.from_rpc_error(raised.value).reason == Reason.DEADLINE_PASSED


async def test_an_answer_may_be_empty(probe: Probe, stub: LedgerClient) -> None:
    async def empty(_request: object, _context: object) -> GetAccountResponse:
        return GetAccountResponse()

    probe.handlers["GetAccount"] = empty

    assert await stub.GetAccount(GET) == GetAccountResponse()
