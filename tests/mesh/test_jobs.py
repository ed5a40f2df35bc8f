"""Work for later: enqueued with the change that needs it, run at least once, never forgotten."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver
from pgqueuer.domain.types import JobId

import mesh.jobs
from mesh import jobs
from mesh.context import current_tenant_id, remaining_seconds
from mesh.database import Database
from mesh.errors import Problem, Reason
from mesh.ids import new_id
from mesh.jobs import Job, JobRunner, RetryLater, job_table_settings
from tests.harness import Infrastructure, eventually
from tests.mesh.process import environment_of
from tests.mesh.stream import running

Work = Callable[[Job], Awaitable[None]]


class Worker:
    """One job's handler and its runs."""

    def __init__(self, database: Database, tenant_id: str) -> None:
        self.name = new_id("job")
        self.runs: list[Job] = []
        self.ended: list[Job] = []
        # What a test wants a run to do.
        self.work: Work = _nothing
        self._database = database
        self._tenant_id = tenant_id

    def runner(self, max_attempts: int = 3, heartbeat_seconds: float = 1.0) -> JobRunner:
        """The runner of one process."""
        return JobRunner(
            self._database,
            "ledger",
            {self.name: self._run},
            max_attempts=max_attempts,
            heartbeat_seconds=heartbeat_seconds,
        )

    async def enqueue(self, number: int = 0, *, key: str | None = None, delay_seconds: float = 0.0) -> None:
        """Enqueues a job in a transaction of its own."""
        async with self._database.transaction(self._tenant_id) as connection:
            await jobs.enqueue(
                connection,
                self.name,
                {"number": number},
                tenant_id=self._tenant_id,
                key=key,
                delay_seconds=delay_seconds,
            )

    async def waiting(self) -> list[asyncpg.Record]:
        """Its rows in the queue."""
        async with self._database.system_transaction() as connection:
            rows: list[asyncpg.Record] = await connection.fetch(
                "SELECT * FROM pgqueuer WHERE entrypoint = $1 ORDER BY id", self.name
            )
        return rows

    async def is_empty(self) -> bool:
        """Whether nothing of it is in the queue."""
        return not await self.waiting()

    async def held(self) -> list[asyncpg.Record]:
        """Its jobs that are held."""
        return [row for row in await self.waiting() if row["status"] == "failed"]

    async def _run(self, job: Job) -> None:
        self.runs.append(job)
        await self.work(job)
        self.ended.append(job)


async def _nothing(_job: Job) -> None:
    pass


@pytest.fixture
def worker(database: Database, tenant_id: str) -> Worker:
    """A job of this test's own."""
    return Worker(database, tenant_id)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first pause after a failure is short, and so are all that grow from it."""
    monkeypatch.setattr(mesh.jobs, "_FIRST_PAUSE_SECONDS", 0.01)


async def test_a_job_runs_once_with_its_payload_for_its_tenant(worker: Worker, tenant_id: str) -> None:
    seen = []

    async def look(_job: Job) -> None:
        seen.append((current_tenant_id(), remaining_seconds() > 25))

    worker.work = look
    async with running(worker.runner().run()):
        await worker.enqueue(7)
        await eventually(worker.is_empty)

    assert worker.runs == [Job(worker.name, tenant_id, {"number": 7}, 1)]
    assert seen == [(tenant_id, True)]


async def test_a_job_is_there_only_if_its_transaction_commits(
    worker: Worker, database: Database, tenant_id: str
) -> None:
    async def enqueue_and_fail() -> None:
        async with database.transaction(tenant_id) as connection:
            await jobs.enqueue(connection, worker.name, {"number": 1}, tenant_id=tenant_id)
            raise ValueError("rolled back")

    async with running(worker.runner().run()):
        with pytest.raises(ValueError, match="rolled back"):
            await enqueue_and_fail()
        await worker.enqueue(2)

        async def has_run() -> bool:
            return bool(worker.ended)

        await eventually(has_run)
        await eventually(worker.is_empty)

    assert [job.payload["number"] for job in worker.runs] == [2]


async def test_a_key_keeps_out_a_second_job_while_the_first_waits_or_runs(worker: Worker) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def wait(_job: Job) -> None:
        begun.set()
        await release.wait()

    worker.work = wait
    key = new_id("key")
    await worker.enqueue(1, key=key)
    await worker.enqueue(2, key=key)
    async with running(worker.runner().run()):
        await begun.wait()
        await worker.enqueue(3, key=key)
        assert len(await worker.waiting()) == 1
        release.set()
        await eventually(worker.is_empty)
        await worker.enqueue(4, key=key)

        async def fourth_ran() -> bool:
            return len(worker.ended) == 2

        await eventually(fourth_ran)

    assert [job.payload["number"] for job in worker.runs] == [1, 4]


async def test_a_delayed_job_waits(worker: Worker) -> None:
    await worker.enqueue(1, delay_seconds=3600)
    await worker.enqueue(2)
    async with running(worker.runner().run()):

        async def one_is_left() -> bool:
            return len(await worker.waiting()) == 1

        await eventually(one_is_left)

    assert [job.payload["number"] for job in worker.runs] == [2]


async def test_a_failing_job_is_tried_again_and_counts_its_attempts(worker: Worker) -> None:
    async def fail_twice(job: Job) -> None:
        if job.attempt <= 2:
            raise ValueError("not yet")

    worker.work = fail_twice
    async with running(worker.runner().run()):
        await worker.enqueue()
        await eventually(worker.is_empty)

    assert [job.attempt for job in worker.runs] == [1, 2, 3]


async def test_a_job_is_held_after_its_last_try_with_nothing_personal_and_runs_when_released(
    worker: Worker, database: Database
) -> None:
    is_broken = True

    async def fail(_job: Job) -> None:
        if is_broken:
            raise ValueError("no account of kofi@example.com")

    worker.work = fail
    async with running(worker.runner(max_attempts=2).run()):
        await worker.enqueue()
        (row,) = await eventually(worker.held)
        assert len(worker.runs) == 2
        async with database.system_transaction() as connection:
            log = await connection.fetch("SELECT traceback FROM pgqueuer_log WHERE job_id = $1", row["id"])
            assert "k***@example.com" in str(log)
            assert "kofi@example.com" not in str(log)

        is_broken = False
        async with database.pool.acquire() as plain:
            queries = mesh.jobs._queries(AsyncpgDriver(plain), job_table_settings("ledger"))  # type: ignore[arg-type]  # a pooled connection is one
            await queries.requeue_jobs([JobId(row["id"])])
        await eventually(worker.is_empty)

    assert [job.attempt for job in worker.ended] == [1]


async def test_a_released_job_has_all_its_tries_again(worker: Worker, database: Database) -> None:
    async def fail(_job: Job) -> None:
        raise ValueError("still broken")

    worker.work = fail
    async with running(worker.runner(max_attempts=2).run()):
        await worker.enqueue()
        (row,) = await eventually(worker.held)
        async with database.pool.acquire() as plain:
            queries = mesh.jobs._queries(AsyncpgDriver(plain), job_table_settings("ledger"))  # type: ignore[arg-type]  # a pooled connection is one
            await queries.requeue_jobs([JobId(row["id"])])

        async def held_again() -> bool:
            return len(worker.runs) == 4 and bool(await worker.held())

        await eventually(held_again)


async def test_a_job_put_off_many_times_still_has_all_its_tries(worker: Worker) -> None:
    async def put_off_then_fail(job: Job) -> None:
        if job.attempt <= 5:
            raise RetryLater(0.0)
        if job.attempt <= 7:
            raise ValueError("not yet")

    worker.work = put_off_then_fail
    async with running(worker.runner(max_attempts=3).run()):
        await worker.enqueue()
        await eventually(worker.is_empty)

    assert [job.attempt for job in worker.runs] == list(range(1, 9))


@pytest.mark.parametrize(
    "error",
    [ConnectionRefusedError(), TimeoutError(), Problem(Reason.SERVICE_UNAVAILABLE)],
    ids=lambda error: type(error).__name__,
)
async def test_an_outage_is_no_fault_of_the_job(worker: Worker, error: Exception) -> None:
    async def fail_five_times(job: Job) -> None:
        if job.attempt <= 5:
            raise error

    worker.work = fail_five_times
    async with running(worker.runner(max_attempts=1).run()):
        await worker.enqueue()
        await eventually(worker.is_empty)

    assert len(worker.runs) == 6


async def test_a_job_that_hangs_is_ended_and_counts_as_failed(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh.jobs, "_JOB_TIMEOUT_SECONDS", 0.1)

    async def hang(_job: Job) -> None:
        await asyncio.Event().wait()

    worker.work = hang
    async with running(worker.runner(max_attempts=2).run()):
        await worker.enqueue()
        await eventually(worker.held)

    assert len(worker.runs) == 2


async def test_a_flood_of_jobs_leaves_room_for_calls(worker: Worker, database: Database) -> None:
    at_once, most = 0, 0

    async def work(_job: Job) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        async with database.system_transaction() as connection:
            await connection.execute("SELECT pg_sleep(0.001)")
        at_once -= 1

    worker.work = work
    async with database.transaction("ten_1") as connection:
        for number in range(150):
            await jobs.enqueue(connection, worker.name, {"number": number}, tenant_id="ten_1")
    async with running(worker.runner().run()):
        await eventually(worker.is_empty)

    assert len(worker.ended) == 150
    assert most <= 20


async def test_two_processes_share_the_jobs_and_run_none_twice(worker: Worker) -> None:
    async with running(worker.runner().run(), worker.runner().run()):
        await asyncio.gather(*(worker.enqueue(number) for number in range(40)))
        await eventually(worker.is_empty)

    assert sorted(job.payload["number"] for job in worker.ended) == list(range(40))


async def test_a_stopping_process_waits_for_its_jobs_and_puts_back_those_that_take_too_long(worker: Worker) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def hang_at_first(job: Job) -> None:
        begun.set()
        if job.attempt == 1:
            await release.wait()

    worker.work = hang_at_first
    runner = worker.runner(heartbeat_seconds=60)
    task = asyncio.create_task(runner.run())
    await worker.enqueue()
    await begun.wait()
    task.cancel()
    await asyncio.wait({task}, timeout=0.1)
    assert not task.done()
    runner.interrupt()
    with pytest.raises(asyncio.CancelledError):
        await task

    (row,) = await worker.waiting()
    assert (row["status"], row["attempts"]) == ("queued", 1)
    async with running(worker.runner().run()):
        await eventually(worker.is_empty)
    assert [job.attempt for job in worker.ended] == [2]


async def test_a_job_of_a_killed_process_is_run_by_another(infrastructure: Infrastructure, worker: Worker) -> None:
    await worker.enqueue(5)
    environment = environment_of(infrastructure, "ledger", job_heartbeat_seconds=1.0)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.mesh.victim", "job", worker.name),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    assert await process.stdout.readline() == b"begun\n"
    process.kill()
    await process.wait()
    async with running(worker.runner(heartbeat_seconds=1.0).run()):
        await eventually(worker.is_empty, 10)

    assert [job.payload["number"] for job in worker.ended] == [5]


async def test_a_job_that_is_none_of_ours_is_held_and_holds_up_nothing(worker: Worker, database: Database) -> None:
    async with database.system_transaction() as connection:
        for payload in (b"", b"{", b"[]", json.dumps({"tenant_id": "ten_1"}).encode()):
            await connection.execute(
                "INSERT INTO pgqueuer (priority, status, entrypoint, payload) VALUES (0, 'queued', $1, $2)",
                worker.name,
                payload,
            )
    async with running(worker.runner(max_attempts=1).run()):
        await worker.enqueue(1)

        async def four_are_held() -> bool:
            return len(await worker.held()) == 4 and len(worker.ended) == 1

        await eventually(four_are_held)
