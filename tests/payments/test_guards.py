"""The guards in the database hold against code that is wrong, and against other tenants."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
from kente.payments.v1 import payment_pb2

from tests.harness import PASSWORD
from tests.payments.till import Till, World, card_request, money

TABLES = ["payments", "attempts", "adjustments", "refunds", "anomalies", "webhooks"]


@pytest.fixture
async def service_role(world: World) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the service's own role, as a fault in the service would use it."""
    connection = await asyncpg.connect(world.mesh.infrastructure.postgres.url("kente_payments", PASSWORD))
    yield connection
    await connection.close()


@pytest.fixture
async def paid(till: Till, service_role: asyncpg.Connection) -> payment_pb2.Payment:
    """A payment that succeeded, in a session that acts for its tenant."""
    await service_role.execute("SELECT set_config('kente.tenant', $1, false)", till.tenant_id)
    return await till.ended((await till.create()).payment_id)


@pytest.mark.parametrize(
    "change",
    [
        "captured_minor = amount_minor + 1",
        "captured_minor = authorized_minor - 1, refunded_minor = authorized_minor",
        "refunded_minor = captured_minor + 1",
        "refunded_minor = -1",
        "authorized_minor = amount_minor + 1",
        "amount_minor = 0",
        "state = 'FAILED'",
        "state = 'PROCESSING'",
        "ledger_state = 'UNSPECIFIED'",
        "ledger_refusals = 1",
        "ledger_refusals = 1, ledger_state = 'QUEUED'",
        "ledger_refusal_reason = 'ACCOUNT_NOT_OPEN'",
        "version = version",
    ],
)
async def test_a_payment_keeps_its_sums_and_its_end(
    service_role: asyncpg.Connection, paid: payment_pb2.Payment, change: str
) -> None:
    bumped = change if "version" in change else f"{change}, version = version + 1"
    with pytest.raises(asyncpg.CheckViolationError):
        await service_role.execute(
            f"UPDATE payments SET {bumped} WHERE payment_id = $1",  # noqa: S608 - a change of the list above
            paid.payment_id,
        )


async def test_refunds_are_added_up_again_by_the_database(
    service_role: asyncpg.Connection, till: Till, paid: payment_pb2.Payment
) -> None:
    refund = await till.refund_ended(await till.refund(paid.payment_id, money(600)))
    copy = """
        INSERT INTO refunds SELECT (r).* FROM (
            SELECT jsonb_populate_record(refunds, jsonb_build_object(
                'refund_id', 'rfd_copy', 'request_id', 'copy', 'attempt_key', 'copy')) AS r
            FROM refunds WHERE refund_id = $1) AS copied
        """
    with pytest.raises(asyncpg.CheckViolationError, match="would exceed"):
        await service_role.execute(copy, refund.refund_id)


async def test_a_second_provider_can_not_have_the_payment(
    service_role: asyncpg.Connection, paid: payment_pb2.Payment
) -> None:
    copy = """
        INSERT INTO attempts SELECT (r).* FROM (
            SELECT jsonb_populate_record(attempts, jsonb_build_object(
                'attempt_id', 'att_copy', 'attempt_key', 'copy', 'connection_id', 'con_other', 'state', 'STARTED')) AS r
            FROM attempts WHERE payment_id = $1) AS copied
        """
    with pytest.raises(asyncpg.UniqueViolationError, match="attempts_one_live"):
        await service_role.execute(copy, paid.payment_id)


async def test_a_tenant_sees_nothing_of_another(
    world: World, service_role: asyncpg.Connection, till: Till, paid: payment_pb2.Payment
) -> None:
    await till.refund(paid.payment_id, money(1))
    cards = Till(world, till.tenant_id)
    await cards.connect("stripe")
    await cards.capture((await cards.create(card_request())).payment_id)
    # An anomaly comes from no ordinary life; the owner writes one.
    await till.rows(
        "INSERT INTO anomalies VALUES ('ano_1' || $1, $1, $2, 's' || $1, 'AMOUNT_MISMATCH', 'x', 1, 'GHS', '', now())",
        till.tenant_id,
        paid.payment_id,
    )
    for table in TABLES:
        query = f"SELECT count(*) FROM {table} WHERE tenant_id = $1"  # noqa: S608 - a name of the list above
        assert await service_role.fetchval(query, till.tenant_id) > 0, table
        await service_role.execute("SELECT set_config('kente.tenant', 'ten_stranger', false)")
        assert await service_role.fetchval(query, till.tenant_id) == 0, table
        # Every change of a payment is a new version.
        stolen = "tenant_id = 'ten_stranger'" + (", version = version + 1" if table == "payments" else "")
        update = f"UPDATE {table} SET {stolen} WHERE tenant_id = $1"  # noqa: S608 - as above
        assert await service_role.execute(update, till.tenant_id) == "UPDATE 0", table
        await service_role.execute("SELECT set_config('kente.tenant', $1, false)", till.tenant_id)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await service_role.execute(update, till.tenant_id)
