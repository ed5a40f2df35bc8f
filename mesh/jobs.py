"""Work for later, on PgQueuer: enqueued in the transaction that makes it needed, run at least once.

A job that fails is tried again with growing pauses; after the last try it is held, visible, until it is driven again.
A job whose process dies is picked up by another once its heartbeat is old. So a job's work must bear repetition.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
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
from pgqueuer.domain.settings import DBSettings
from pgqueuer.domain.types import Channel
from pgqueuer.ports.driver import Driver
from prometheus_client import Counter

from mesh.context import call_tenant
from mesh.database import DATABASE_ERRORS, UNAVAILABLE_ERRORS, Connection, Database
from mesh.redaction import mask_text

log = structlog.get_logger()
tracer = trace.get_tracer("kente.jobs")

JOBS_RUN = Counter("kente_jobs_run_total", "Runs of jobs by outcome.", ["job", "outcome"])

_FIRST_PAUSE_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 60.0
_JOB_TIMEOUT_SECONDS = 30.0
_POLL_SECONDS = 5.0
_BATCH_SIZE = 10
# What is waited out: the database is away, or its listening connection was lost.
_WAIT_ERRORS: tuple[type[Exception], ...] = (FailingListenerError, RuntimeError, *DATABASE_ERRORS)


class RetryLater(Exception):  # noqa: N818 - a request, no error
    """Raised by a job that is not done yet and is to run again; as often as it takes."""

    def __init__(self, delay_seconds: float) -> None:
        super().__init__(f"again in {delay_seconds} s")
        self.delay_seconds = delay_seconds


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a job. `attempt` counts from 1."""

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


def _queries(driver: Driver, settings: DBSettings) -> Queries:
    return Queries(
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

    async def run(self) -> None:
        """Runs until it is canceled; starts anew when the database was away."""
        settings = job_table_settings(self._domain)
        while True:
            manager = QueueManager(_queries(AsyncpgPoolDriver(self._database.pool), settings), channel=settings.channel)
            for name, handler in self._handlers.items():
                manager.entrypoint(name, on_failure="hold")(self._wrapped(name, handler))
            try:
                await manager.run(
                    dequeue_timeout=timedelta(seconds=_POLL_SECONDS),
                    batch_size=_BATCH_SIZE,
                    heartbeat_timeout=self._heartbeat,
                    shutdown_on_listener_failure=True,
                    log_aggregation_interval=timedelta(0),
                )
            except _WAIT_ERRORS as error:
                log.warning("job_runner_waits", domain=self._domain, error=type(error).__name__)
            await asyncio.sleep(1)

    def _wrapped(self, name: str, handler: JobHandler) -> Callable[[QueuedJob], Awaitable[None]]:
        async def run(queued: QueuedJob) -> None:
            body = json.loads(queued.payload or b"{}")
            job = Job(name, body["tenant_id"], body["payload"], queued.attempts + 1)
            with (
                call_tenant(job.tenant_id, method=name, timeout_seconds=_JOB_TIMEOUT_SECONDS),
                tracer.start_as_current_span(f"job {name}", context=propagate.extract(body["trace"])),
            ):
                await self._run_once(job, handler)

        return run

    async def _run_once(self, job: Job, handler: JobHandler) -> None:
        try:
            async with asyncio.timeout(_JOB_TIMEOUT_SECONDS):
                await handler(job)
        except RetryLater as later:
            JOBS_RUN.labels(job.name, "later").inc()
            raise RetryRequested(timedelta(seconds=later.delay_seconds)) from None
        except Exception as error:
            failure = mask_text(f"{type(error).__name__}: {error}")[:500]
            # The absence of a service or of the database is no fault of the job.
            if job.attempt >= self._max_attempts and not isinstance(error, UNAVAILABLE_ERRORS):
                JOBS_RUN.labels(job.name, "held").inc()
                log.exception("job_held", job=job.name, failure=failure)
                raise
            JOBS_RUN.labels(job.name, "retried").inc()
            log.warning("job_retried", job=job.name, attempt=job.attempt, failure=failure)
            pause_seconds = min(_FIRST_PAUSE_SECONDS * 2.0 ** min(job.attempt - 1, 10), _MAX_PAUSE_SECONDS)
            raise RetryRequested(timedelta(seconds=pause_seconds)) from None
        else:
            JOBS_RUN.labels(job.name, "done").inc()
