"""PostgreSQL and NATS killed in the middle of everything: nothing is lost, nothing happens twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from nats.aio.client import Client

from mesh import jobs
from mesh.bus import CloudEvent, connect, ensure_stream
from mesh.database import DATABASE_ERRORS, Database
from mesh.errors import Reason
from mesh.ids import new_id
from mesh.jobs import Job, JobRunner
from mesh.outbox import OutboxRelay
from tests.harness import PASSWORD, Infrastructure, TestMesh, eventually
from tests.mesh.faults import kill, restart
from tests.mesh.probe import SCOPES, Counted, Probe, create_request, ledger_stub, reason_of, refused
from tests.mesh.stream import Recorder, published, running, write


@pytest.fixture
async def own_database(breakable: Infrastructure) -> AsyncIterator[Database]:
    """The pool of a process, as small as a process's is."""
    opened = await Database.connect(breakable.postgres.url("kente_ledger", PASSWORD), pool_size=6)
    yield opened
    await opened.close()


@pytest.fixture
async def own_client(breakable: Infrastructure) -> AsyncIterator[Client]:
    """A connection to the NATS that is killed."""
    opened = await connect(breakable.nats.url, "test")
    await ensure_stream(opened.jetstream(), 1)
    yield opened
    await opened.close()


async def write_through(database: Database, tenant_id: str, resource_id: str, step: int) -> str:
    """Writes an event, trying again as often as it takes; as a caller would, by the same step."""
    while True:
        try:
            return await write(database, tenant_id, resource_id, step)
        except DATABASE_ERRORS:
            await asyncio.sleep(0.05)


async def test_nats_killed_while_events_are_published_loses_and_repeats_none(
    breakable: Infrastructure, own_database: Database, own_client: Client, tenant_id: str
) -> None:
    recorder = Recorder(own_database, tenant_id)
    event_ids: list[str] = []
    async with running(OutboxRelay(own_database, own_client, "ledger").run(), recorder.runner(own_client).run()):
        for step in range(100):
            event_ids += await asyncio.gather(
                *(write(own_database, tenant_id, f"resource-{number}", step) for number in range(3))
            )
            if step == 40:
                killing = asyncio.create_task(restart(breakable.nats))
        await killing

        async def all_handled() -> bool:
            return len(await recorder.effects()) >= 300

        await eventually(all_handled, 30)
        events = await published(own_client, tenant_id)

    assert sorted(await recorder.effects()) == sorted(event_ids)
    assert sorted(event["id"] for event in events) == sorted(event_ids)
    for number in range(3):
        steps = [int(event["data"]["displayName"]) for event in events if event["subject"] == f"resource-{number}"]
        assert steps == list(range(100))
    assert await recorder.dead() == []


async def test_postgresql_killed_while_events_are_handled_loses_and_repeats_none(
    breakable: Infrastructure, own_database: Database, own_client: Client, tenant_id: str
) -> None:
    recorder = Recorder(own_database, tenant_id)
    half = asyncio.Event()

    async def count(_event: CloudEvent) -> None:
        if len(recorder.deliveries) >= 30:
            half.set()

    recorder.before = count
    async with running(
        OutboxRelay(own_database, own_client, "ledger").run(),
        recorder.runner(own_client, max_deliveries=2).run(),
    ):
        writing = asyncio.create_task(write_all(own_database, tenant_id, 100))
        await half.wait()
        await restart(breakable.postgres)
        await writing

        async def all_published_are_handled() -> bool:
            events = await published(own_client, tenant_id)
            async with own_database.system_transaction() as connection:
                waiting = await connection.fetchval("SELECT count(*) FROM outbox WHERE tenant_id = $1", tenant_id)
            return waiting == 0 and sorted(event["id"] for event in events) == sorted(await recorder.effects())

        await eventually(all_published_are_handled, 30)
        events = await published(own_client, tenant_id)

    # A commit whose answer was lost is written again by its caller: more steps than asked for, none missing.
    assert {int(event["data"]["displayName"]) for event in events} == set(range(100))
    assert await recorder.dead() == []
    assert own_database.pool.get_idle_size() == own_database.pool.get_size()


async def write_all(database: Database, tenant_id: str, count: int) -> None:
    """Writes events one after the other, whatever happens."""
    for step in range(count):
        await write_through(database, tenant_id, "one", step)


async def test_a_job_that_fails_while_nothing_can_be_written_is_put_back_and_not_held(
    breakable: Infrastructure, own_database: Database, tenant_id: str
) -> None:
    name, attempts, failed = new_id("job"), list[int](), asyncio.Event()
    admin = await asyncpg.connect(breakable.postgres.admin_url)

    async def work(job: Job) -> None:
        attempts.append(job.attempt)
        if job.attempt == 1:
            await admin.execute("REVOKE UPDATE ON ledger.pgqueuer FROM kente_ledger")
            failed.set()
            raise ValueError("not this time")

    runner = JobRunner(own_database, "ledger", {name: work}, max_attempts=3, heartbeat_seconds=5.0)
    async with running(runner.run()):
        await enqueue(own_database, name, tenant_id, 1)
        await failed.wait()
        # Time for several tries to put it back.
        await asyncio.sleep(0.5)
        await admin.execute("GRANT UPDATE ON ledger.pgqueuer TO kente_ledger")
        await admin.close()

        async def is_tried_again() -> bool:
            return attempts == [1, 2]

        await eventually(is_tried_again)


async def test_jobs_go_on_after_postgresql_was_killed(
    breakable: Infrastructure, own_database: Database, tenant_id: str
) -> None:
    name, done = new_id("job"), set[int]()

    async def work(job: Job) -> None:
        async with own_database.transaction(job.tenant_id) as connection:
            await connection.fetchval("SELECT pg_sleep(0.05)")
        done.add(int(job.payload["number"]))

    runner = JobRunner(own_database, "ledger", {name: work}, max_attempts=3, heartbeat_seconds=1.0)
    async with running(runner.run()):
        await enqueue(own_database, name, tenant_id, 40)

        async def some_done() -> bool:
            return bool(done)

        await eventually(some_done)
        await restart(breakable.postgres)

        async def all_done() -> bool:
            return done == set(range(40))

        await eventually(all_done, 30)


async def enqueue(database: Database, name: str, tenant_id: str, count: int) -> None:
    """Enqueues jobs that are numbered from 0."""
    async with database.transaction(tenant_id) as connection:
        for number in range(count):
            await jobs.enqueue(connection, name, {"number": number}, tenant_id=tenant_id)


async def test_a_runner_uses_no_connection_up_however_often_the_database_goes(
    own_database: Database, tenant_id: str
) -> None:
    name, done = new_id("job"), set[int]()

    async def work(job: Job) -> None:
        done.add(int(job.payload["number"]))

    runner = JobRunner(own_database, "ledger", {name: work}, max_attempts=3, heartbeat_seconds=1.0)
    async with running(runner.run()):
        for number in range(4):
            async with own_database.transaction(tenant_id) as connection:
                await jobs.enqueue(connection, name, {"number": number}, tenant_id=tenant_id)

            async def is_done(number: int = number) -> bool:
                return number in done

            await eventually(is_done, 20)
            async with own_database.system_transaction() as connection:
                # All connections of this process but this one; its listener is among them.
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE usename = 'kente_ledger' AND pid <> pg_backend_pid()"
                )

    async def all_free() -> bool:
        return own_database.pool.get_idle_size() == own_database.pool.get_size()

    await eventually(all_free)


async def test_calls_are_refused_while_postgresql_is_away_and_served_when_it_is_back(
    breakable: Infrastructure, tenant_id: str
) -> None:
    probe, mesh = Probe(), TestMesh(breakable)
    service = await probe.start(breakable)
    handler = probe.handlers["CreateAccount"] = Counted()
    stub = ledger_stub(mesh.client("ledger", tenant_id, SCOPES))
    request = create_request()
    assert await reason_of(stub.CreateAccount(request)) == "OK"
    await kill(breakable.postgres)
    try:
        problem = await refused(stub.CreateAccount(create_request()))

        assert (problem.reason, problem.code) == (Reason.SERVICE_UNAVAILABLE, grpc.StatusCode.UNAVAILABLE)
        assert problem.retry_after_seconds
        assert "127.0.0.1" not in problem.detail
        assert handler.runs == 1
        await eventually(lambda: _health_is(service.port, "NOT_SERVING"))
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{service.metrics_port}/healthz")).status_code == 503
    finally:
        await breakable.postgres.start_async()

    async def serves() -> bool:
        return await reason_of(stub.CreateAccount(create_request())) == "OK"

    await eventually(serves)
    await eventually(lambda: _health_is(service.port, "SERVING"))
    # What was answered before the crash is still the answer.
    assert (await stub.CreateAccount(request)).account.display_name == "run 1"
    assert not service.failed.is_set()
    await mesh.close()
    await service.stop()


async def _health_is(port: int, status: str) -> bool:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest())
    return bool(answer.status == health_pb2.HealthCheckResponse.ServingStatus.Value(status))


async def test_calls_are_served_while_nats_is_away_and_their_events_follow(
    breakable: Infrastructure, own_database: Database, tenant_id: str
) -> None:
    probe, mesh = Probe(), TestMesh(breakable)
    service = await probe.start(breakable)

    async def publish(_run: int) -> None:
        await write(own_database, tenant_id, "one")

    probe.handlers["CreateAccount"] = Counted(publish)
    stub = ledger_stub(mesh.client("ledger", tenant_id, SCOPES))
    await kill(breakable.nats)
    try:
        reasons = {await reason_of(stub.CreateAccount(create_request())) for _ in range(5)}
    finally:
        await breakable.nats.start_async()
    client = await connect(breakable.nats.url, "test")

    async def all_out() -> bool:
        return len(await published(client, tenant_id)) == 5

    assert reasons == {"OK"}
    await eventually(all_out)
    assert not service.failed.is_set()
    await client.close()
    await mesh.close()
    await service.stop()


async def test_a_service_stops_in_time_while_both_are_away(breakable: Infrastructure) -> None:
    probe = Probe()
    service = await probe.start(breakable, drain_seconds=0.5)
    await kill(breakable.nats)
    await kill(breakable.postgres)
    try:
        async with asyncio.timeout(8):
            await service.stop()
    finally:
        await breakable.postgres.start_async()
        await breakable.nats.start_async()
