"""Work for later, on PgQueuer: enqueued in the transaction that makes it needed, run at least once.

A job that fails is tried again with growing pauses; after the last try it is held, visible, until it is driven again.
A job that asks to run later, or that finds a service away, has not failed.
A job whose process dies is picked up by another once its heartbeat is old. So a job's work must bear repetition.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import structlog
from opentelemetry import propagate, trace
from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment, QueryQueueBuilder, QuerySchedulerBuilder
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.core.qm import QueueManager
from pgqueuer.domain.errors import FailingListenerError, RetryRequested
from pgqueuer.domain.models import Job as QueuedJob
from pgqueuer.domain.models import TableChangedEvent, TracebackRecord
from pgqueuer.domain.settings import DBSettings
from pgqueuer.domain.types import Channel
from pgqueuer.ports.driver import Driver
from prometheus_client import Counter

from mesh.clock import utc_now
from mesh.context import call_tenant
from mesh.database import DATABASE_ERRORS, Connection, Database
from mesh.outages import is_outage, wait_out
from mesh.redaction import mask_text

log = structlog.get_logger()
tracer = trace.get_tracer("kente.jobs")

JOBS_RUN = Counter("kente_jobs_run_total", "Runs of jobs by outcome.", ["job", "outcome"])

_FIRST_PAUSE_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 60.0
_JOB_TIMEOUT_SECONDS = 30.0
# For what gives no notice: jobs of a process that died, and held ones that were released.
_POLL_SECONDS = 1.0
_RESTART_SECONDS = 1.0
_BATCH_SIZE = 10
# Header of a queued job.
_FAILURES = "failures"
# Jobs that one process runs at a time. They share a few database connections with the calls that are under way.
_RUNNING_MAX = 2 * _BATCH_SIZE
# What is waited out: the database is away, or its listening connection was lost.
_WAIT_ERRORS: tuple[type[Exception], ...] = (FailingListenerError, *DATABASE_ERRORS)


class RetryLater(Exception):  # noqa: N818 - a request, no error
    """Raised by a job that is not done yet and is to run again; as often as it takes."""

    def __init__(self, delay_seconds: float) -> None:
        super().__init__(f"again in {delay_seconds} s")
        self.delay_seconds = delay_seconds


class _HeldError(Exception):
    """A job has failed for the last time. Holds the masked failure, for the library keeps it in its table."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a job. `attempt` counts all its runs from 1."""

    name: str
    tenant_id: str
    payload: dict[str, Any]
    attempt: int


JobHandler = Callable[[Job], Awaitable[None]]


@cache
def job_table_settings(domain: str) -> DBSettings:
    """Where a service's jobs are: in its own schema, with a channel of their own."""
    return DBSettings(db_schema=domain, channel=Channel(f"kente_jobs_{domain}"))


@cache
def _search_path_settings() -> DBSettings:
    """For a connection of the service itself, whose search_path is its schema."""
    return DBSettings(db_schema=None)


class _PatientQueries(Queries):
    """Waits for the database where the library would give up a job, and gives notice where it would not."""

    async def retry_job(self, job: QueuedJob, delay: timedelta, traceback_record: TracebackRecord | None) -> None:
        # A job that can't be put back counts as failed for the library, and would be held: not for an outage.
        while True:
            try:
                await super().retry_job(job, delay, traceback_record)
                return await self._give_notice()
            except DATABASE_ERRORS as error:
                log.warning("job_waits_to_be_put_back", job=job.entrypoint, error=type(error).__name__)
                await wait_out(_RESTART_SECONDS)

    async def _give_notice(self) -> None:
        # The library's trigger tells of new jobs only. Runners would find this one when they look by themselves.
        settings = self.qbe.settings
        notice = TableChangedEvent(
            channel=settings.channel,
            sent_at=utc_now(),
            type="table_changed_event",
            operation="update",
            table=settings.queue_table,
        )
        await self.driver.notify(settings.channel, notice.model_dump_json())


def _queries(driver: Driver, settings: DBSettings) -> Queries:
    return _PatientQueries(
        driver,
        qbe=QueryBuilderEnvironment(settings=settings),
        qbq=QueryQueueBuilder(settings=settings),
        qbs=QuerySchedulerBuilder(settings=settings),
    )


async def enqueue(
    connection: Connection,
    name: str,
    payload: Mapping[str, Any],
    *,
    tenant_id: str,
    delay_seconds: float = 0.0,
    key: str | None = None,
) -> None:
    """Adds a job in the current transaction.

    Args:
        name: the name its handler is registered under.
        payload: JSON; ids only, never personal data.
        delay_seconds: earliest start.
        key: while a job with this key waits or runs, another is not added.
    """
    trace_context: dict[str, str] = {}
    propagate.inject(trace_context)
    body = {"tenant_id": tenant_id, "payload": dict(payload), "trace": trace_context}
    driver = AsyncpgDriver(connection)  # type: ignore[arg-type]  # a pooled connection is one
    await _queries(driver, _search_path_settings()).enqueue(
        name,
        json.dumps(body).encode(),
        execute_after=timedelta(seconds=delay_seconds),
        dedupe_key=key,
        on_conflict="skip",
    )


class JobRunner:
    """Runs the jobs of one service in one process."""

    def __init__(
        self,
        database: Database,
        domain: str,
        handlers: Mapping[str, JobHandler],
        *,
        max_attempts: int,
        heartbeat_seconds: float,
    ) -> None:
        self._database = database
        self._domain = domain
        self._handlers = handlers
        self._max_attempts = max_attempts
        self._heartbeat = timedelta(seconds=heartbeat_seconds)
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self) -> None:
        """Runs until it is canceled, then waits for the jobs that run; starts anew when the database was away."""
        settings = job_table_settings(self._domain)
        while True:
            manager = QueueManager(_queries(AsyncpgPoolDriver(self._database.pool), settings), channel=settings.channel)
            for name, handler in self._handlers.items():
                manager.entrypoint(name, on_failure="hold")(self._wrapped(name, handler))
            try:
                await manager.run(
                    dequeue_timeout=timedelta(seconds=_POLL_SECONDS),
                    batch_size=_BATCH_SIZE,
                    max_concurrent_tasks=_RUNNING_MAX,
                    heartbeat_timeout=self._heartbeat,
                    shutdown_on_listener_failure=True,
                    log_aggregation_interval=timedelta(0),
                )
            except _WAIT_ERRORS as error:
                log.warning("job_runner_waits", domain=self._domain, error=type(error).__name__, detail=str(error))
            await wait_out(_RESTART_SECONDS)

    def interrupt(self) -> None:
        """Stops the jobs that run. Each goes back to the queue."""
        for task in self._running:
            task.cancel()

    def _wrapped(self, name: str, handler: JobHandler) -> Callable[[QueuedJob], Awaitable[None]]:
        async def run(queued: QueuedJob) -> None:
            body = json.loads(queued.payload or b"{}")
            job = Job(name, body["tenant_id"], body["payload"], queued.attempts + 1)
            task = asyncio.current_task()
            if task is None:
                raise LookupError("a job runs outside of a task")
            self._running.add(task)
            try:
                with (
                    call_tenant(job.tenant_id, method=name, timeout_seconds=_JOB_TIMEOUT_SECONDS),
                    tracer.start_as_current_span(
                        f"job {name}", context=propagate.extract(body["trace"]), record_exception=False
                    ),
                ):
                    await self._run_once(queued, job, handler)
            except asyncio.CancelledError:
                # The process stops. The library would take the job for canceled by someone, and forget it.
                JOBS_RUN.labels(name, "interrupted").inc()
                raise RetryRequested(timedelta(0)) from None
            finally:
                self._running.discard(task)

        return run

    async def _run_once(self, queued: QueuedJob, job: Job, handler: JobHandler) -> None:
        try:
            async with asyncio.timeout(_JOB_TIMEOUT_SECONDS) as limit:
                await handler(job)
        except RetryLater as later:
            JOBS_RUN.labels(job.name, "later").inc()
            raise RetryRequested(timedelta(seconds=later.delay_seconds)) from None
        except Exception as error:  # noqa: BLE001 - whatever a job raises, it is tried again
            await self._fail(queued, job, error, is_too_slow=limit.expired())
        else:
            JOBS_RUN.labels(job.name, "done").inc()

    async def _fail(self, queued: QueuedJob, job: Job, error: Exception, *, is_too_slow: bool) -> None:
        failure = mask_text(f"{type(error).__name__}: {error}").replace("\0", "")[:500]
        failures = _failures(queued)
        # The absence of a service or of the database is no fault of the job.
        if is_too_slow or not is_outage(error):
            failures += 1
            if failures >= self._max_attempts:
                JOBS_RUN.labels(job.name, "held").inc()
                log.error("job_held", job=job.name, failure=failure, exc_info=error)
                raise _HeldError(failure) from None
            await self._remember(queued, failures)
        JOBS_RUN.labels(job.name, "retried").inc()
        log.warning("job_retried", job=job.name, attempt=job.attempt, failure=failure)
        pause_seconds = min(_FIRST_PAUSE_SECONDS * 2.0 ** min(job.attempt - 1, 10), _MAX_PAUSE_SECONDS)
        raise RetryRequested(timedelta(seconds=pause_seconds)) from None

    async def _remember(self, queued: QueuedJob, failures: int) -> None:
        # The library counts runs. A job that was put off twenty times must still have all its tries.
        with suppress(*DATABASE_ERRORS):
            async with self._database.system_transaction() as connection:
                await connection.execute(
                    "UPDATE pgqueuer SET headers = jsonb_build_object($2::text, $3::int) WHERE id = $1",
                    queued.id,
                    _FAILURES,
                    failures,
                )


def _failures(queued: QueuedJob) -> int:
    """How often a job has failed since it was enqueued, or released after it was held."""
    count = (queued.headers or {}).get(_FAILURES, 0)
    return count if queued.attempts > 0 and isinstance(count, int) else 0
