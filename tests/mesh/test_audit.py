"""Who did what, kept for good."""

from __future__ import annotations

import asyncio
import json

import asyncpg
import pytest
from kente.common.v1.money_pb2 import Money
from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1.ledger_service_pb2 import (
    CreateTransactionRequest,
    CreateTransactionResponse,
    GetAccountRequest,
    GetAccountResponse,
)

from mesh.errors import Problem, Reason
from mesh.interceptors.audit import AuditRow, added, current_row, resource_ids
from mesh.statements import execute
from tests.harness import PASSWORD, Infrastructure, eventually
from tests.mesh.probe import Counted, LedgerClient, Probe, create_request, reason_of


def leg(side: ledger_pb2.Side.ValueType) -> ledger_pb2.Leg:
    """A leg that breaks no rule."""
    return ledger_pb2.Leg(account_name="assets:bank", side=side, amount=Money(amount_minor=5, currency="GHS"))


async def rows_of(admin: asyncpg.Connection, tenant_id: str) -> list[asyncpg.Record]:
    """The tenant's rows, in order."""
    rows: list[asyncpg.Record] = await admin.fetch(
        "SELECT * FROM audit_log WHERE tenant_id = $1 ORDER BY sequence", tenant_id
    )
    return rows


async def test_a_write_leaves_who_did_what_and_how_it_ended(
    probe: Probe, stub: LedgerClient, admin: asyncpg.Connection, tenant_id: str
) -> None:
    probe.handlers["CreateAccount"] = Counted()
    request = create_request()
    await stub.CreateAccount(request)

    (row,) = await rows_of(admin, tenant_id)

    assert row["subject"].startswith("key_")
    assert row["method"] == "/kente.ledger.v1.LedgerService/CreateAccount"
    assert row["request_id"] == request.request_id
    assert row["outcome"] == "OK"
    assert int(row["trace_id"], 16) > 0


async def test_a_repeated_call_is_one_act(
    probe: Probe, stub: LedgerClient, admin: asyncpg.Connection, tenant_id: str
) -> None:
    probe.handlers["CreateAccount"] = Counted()
    request = create_request()
    for _ in range(3):
        await stub.CreateAccount(request)

    assert len(await rows_of(admin, tenant_id)) == 1


async def test_a_write_that_failed_is_kept_with_its_reason(
    probe: Probe, stub: LedgerClient, admin: asyncpg.Connection, tenant_id: str
) -> None:
    errors = [Problem(Reason.STATE_CONFLICT), ValueError("a fault of ours"), ConnectionRefusedError()]

    async def fail(run: int) -> None:
        raise errors[run - 1]

    probe.handlers["CreateAccount"] = Counted(fail)
    reasons = [await reason_of(stub.CreateAccount(create_request())) for _ in errors]

    assert reasons == ["STATE_CONFLICT", "INTERNAL", "SERVICE_UNAVAILABLE"]
    assert [row["outcome"] for row in await rows_of(admin, tenant_id)] == reasons


async def test_a_write_whose_caller_left_is_kept(
    probe: Probe, stub: LedgerClient, admin: asyncpg.Connection, tenant_id: str
) -> None:
    begun = asyncio.Event()

    async def hang(_run: int) -> None:
        begun.set()
        await asyncio.Event().wait()

    probe.handlers["CreateAccount"] = Counted(hang)
    call = stub.CreateAccount(create_request())
    running = asyncio.ensure_future(reason_of(call))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    async def outcomes() -> list[str]:
        return [row["outcome"] for row in await rows_of(admin, tenant_id)]

    assert await eventually(outcomes) == ["CALL_CANCELED"]


async def test_a_read_that_the_contract_does_not_want_audited_leaves_nothing(
    probe: Probe, stub: LedgerClient, admin: asyncpg.Connection, tenant_id: str
) -> None:
    async def get_account(_request: object, _context: object) -> GetAccountResponse:
        return GetAccountResponse()

    probe.handlers["GetAccount"] = get_account
    await stub.GetAccount(GetAccountRequest(account_name="assets:bank"))

    assert await rows_of(admin, tenant_id) == []


def transaction_request(source_id: str = "") -> CreateTransactionRequest:
    """A valid request of an RPC whose service writes the row itself."""
    return CreateTransactionRequest(
        request_id=create_request().request_id,
        transaction_id="txn_01jd3x0r8v5m1q9z2k7c4b6t8n",
        description="for kofi@example.com",
        source_id=source_id,
        legs=[leg(ledger_pb2.SIDE_DEBIT), leg(ledger_pb2.SIDE_CREDIT)],
    )


async def test_a_service_writes_the_rows_of_many_calls_with_their_change(
    probe: Probe, stub: LedgerClient, admin: asyncpg.Connection, tenant_id: str
) -> None:
    rows: list[AuditRow] = []

    async def create(request: CreateTransactionRequest, _context: object) -> CreateTransactionResponse:
        rows.append(current_row(resource_ids(request)))
        return CreateTransactionResponse()

    probe.handlers["CreateTransaction"] = create
    requests = [transaction_request() for _ in range(3)]
    for request in requests:
        await stub.CreateTransaction(request)

    assert await rows_of(admin, tenant_id) == []

    assert probe.runtime
    async with probe.runtime.database.transaction(tenant_id) as connection:
        await execute(connection, added(rows))

    written = await rows_of(admin, tenant_id)
    assert [row["request_id"] for row in written] == [request.request_id for request in requests]
    assert {row["method"] for row in written} == {"/kente.ledger.v1.LedgerService/CreateTransaction"}
    assert {row["outcome"] for row in written} == {"OK"}
    assert all(row["subject"].startswith("key_") and int(row["trace_id"], 16) > 0 for row in written)


async def test_a_failed_call_whose_service_writes_the_row_itself_leaves_none_here(
    probe: Probe, stub: LedgerClient, admin: asyncpg.Connection, tenant_id: str
) -> None:
    async def refuse(_request: object, _context: object) -> CreateTransactionResponse:
        raise Problem(Reason.STATE_CONFLICT)

    probe.handlers["CreateTransaction"] = refuse

    assert await reason_of(stub.CreateTransaction(transaction_request())) == "STATE_CONFLICT"
    assert await rows_of(admin, tenant_id) == []


async def test_nothing_personal_is_kept(
    probe: Probe, stub: LedgerClient, admin: asyncpg.Connection, tenant_id: str
) -> None:
    async def create(request: CreateTransactionRequest, _context: object) -> CreateTransactionResponse:
        assert probe.runtime
        async with probe.runtime.database.transaction(tenant_id) as connection:
            await execute(connection, added([current_row(resource_ids(request))]))
        return CreateTransactionResponse()

    probe.handlers["CreateTransaction"] = create
    await stub.CreateTransaction(transaction_request("+233241234567"))

    (row,) = await rows_of(admin, tenant_id)

    assert json.loads(row["resources"]) == {"transaction_id": "txn_01jd3x0r8v5m1q9z2k7c4b6t8n", "source_id": "***67"}
    assert "kofi" not in str(dict(row))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET outcome = 'OK'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "ALTER TABLE audit_log DISABLE ROW LEVEL SECURITY",
        "DROP TABLE audit_log",
    ],
)
async def test_the_service_itself_cannot_change_what_is_kept(infrastructure: Infrastructure, statement: str) -> None:
    connection = await asyncpg.connect(infrastructure.postgres.url("kente_ledger", PASSWORD))
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()
