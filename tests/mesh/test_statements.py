"""Statements that go to the database together, and while others are made."""

from __future__ import annotations

import asyncpg
import pytest

from mesh.database import Database
from mesh.ids import new_id
from mesh.statements import Statement, WriteBehind, execute

LOCK_KEY = 4_711


def inserted(event_id: str, tenant_id: str) -> Statement:
    return Statement("INSERT INTO inbox (consumer, event_id, tenant_id) VALUES ('test', $1, $2)", (event_id, tenant_id))


def moved(event_id: str, consumer: str) -> Statement:
    return Statement("UPDATE inbox SET consumer = $1 WHERE event_id = $2", (consumer, event_id))


async def consumers(database: Database, tenant_id: str) -> dict[str, str]:
    async with database.transaction(tenant_id) as connection:
        rows = await connection.fetch("SELECT event_id, consumer FROM inbox ORDER BY event_id")
    return {row["event_id"]: row["consumer"] for row in rows}


async def test_statements_go_together_each_with_its_own_arguments(database: Database, tenant_id: str) -> None:
    ids = [new_id("evt") for _ in range(12)]
    async with database.transaction(tenant_id) as connection:
        await execute(connection, [inserted(id_, tenant_id) for id_ in ids])
        await execute(connection, [moved(id_, f"consumer-{number}") for number, id_ in enumerate(ids)])
        await execute(connection, [])

    assert await consumers(database, tenant_id) == {id_: f"consumer-{number}" for number, id_ in enumerate(ids)}


async def test_statements_that_go_together_do_not_see_each_other(database: Database, tenant_id: str) -> None:
    event_id = new_id("evt")
    async with database.transaction(tenant_id) as connection:
        await execute(connection, [inserted(event_id, tenant_id), moved(event_id, "later")])

    assert await consumers(database, tenant_id) == {event_id: "test"}


async def test_statements_handed_over_one_after_the_other_are_executed_in_that_order(
    database: Database, tenant_id: str
) -> None:
    event_id = new_id("evt")
    async with database.transaction(tenant_id) as connection, WriteBehind(connection) as writing:
        await writing.hand_over([inserted(event_id, tenant_id)])
        for number in range(5):
            await writing.hand_over([moved(event_id, f"consumer-{number}")])

    assert await consumers(database, tenant_id) == {event_id: "consumer-4"}


@pytest.mark.parametrize("later", [0, 1])
async def test_a_statement_that_fails_takes_everything_back(database: Database, tenant_id: str, later: int) -> None:
    event_id = new_id("evt")

    async def write() -> None:
        async with database.transaction(tenant_id) as connection, WriteBehind(connection) as writing:
            for id_ in [event_id, event_id, *(new_id("evt") for _ in range(later))]:
                await writing.hand_over([inserted(id_, tenant_id)])

    with pytest.raises(asyncpg.UniqueViolationError):
        await write()

    assert await consumers(database, tenant_id) == {}


async def test_who_fails_while_a_statement_is_on_its_way_raises_its_own_fault_and_leaves_nothing(
    database: Database, tenant_id: str
) -> None:
    async def write() -> None:
        async with database.transaction(tenant_id) as connection, WriteBehind(connection) as writing:
            await writing.hand_over([inserted(new_id("evt"), tenant_id)])
            raise LookupError("the first fault")

    with pytest.raises(LookupError, match="the first fault"):
        await write()

    assert await consumers(database, tenant_id) == {}


async def test_a_statement_may_go_along_with_the_beginning_of_a_transaction(
    database: Database, admin: asyncpg.Connection, tenant_id: str
) -> None:
    async with database.transaction(tenant_id, first=f"SELECT pg_advisory_xact_lock({LOCK_KEY})"):
        assert not await admin.fetchval(f"SELECT pg_try_advisory_lock({LOCK_KEY})")

    assert await admin.fetchval(f"SELECT pg_try_advisory_lock({LOCK_KEY})")
    await admin.execute(f"SELECT pg_advisory_unlock({LOCK_KEY})")


async def test_a_beginning_that_fails_leaves_a_connection_that_can_be_used(database: Database, tenant_id: str) -> None:
    with pytest.raises(asyncpg.DivisionByZeroError):
        async with database.transaction(tenant_id, first="SELECT 1 / 0"):
            pytest.fail("it did not begin")

    size = database.pool.get_size()
    assert await consumers(database, tenant_id) == {}
    assert database.pool.get_size() == size
