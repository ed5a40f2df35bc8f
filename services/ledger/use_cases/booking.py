"""Where concurrent calls meet: each tenant's calls wait in one lane, and are booked a batch at a time.

While one batch of a tenant is on its way to the disk, the calls that come meanwhile gather for the next: the
busier, the larger the batches. When many postings have gathered, they are decided while the batch before is still being
written. Processes that serve the same tenant meet at the row of its journal.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime

import asyncpg
import structlog
from opentelemetry import trace
from prometheus_client import Counter, Gauge, Histogram

from mesh.database import DATABASE_ERRORS, Database
from mesh.errors import Problem, Reason
from mesh.outages import is_outage, wait_out
from mesh.telemetry import is_exporting
from services.ledger.repository.journals import LOCK_FIRST, find_due_tenants, find_journal
from services.ledger.use_cases.book_batch import Decided, book_batch, decide_ahead
from services.ledger.use_cases.lanes import Lane, Waiting
from services.ledger.use_cases.memory import Memory
from services.ledger.use_cases.work import BatchTools, Result, Work
from services.ledger.use_cases.write_batch import SumsChangedError

log = structlog.get_logger()
tracer = trace.get_tracer("kente.ledger")

BATCH_POSTINGS = Histogram(
    "kente_ledger_batch_postings",
    "Postings in a batch.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192),
)
BATCH_SECONDS = Histogram(
    "kente_ledger_batch_seconds",
    "Time to book a batch, from the lock to the commit.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
WAITING = Gauge("kente_ledger_waiting_postings", "Postings that wait for a batch.", multiprocess_mode="livesum")
RETRIES = Counter("kente_ledger_batch_retries_total", "Batches that were tried again, by reason.", ["reason"])

# A batch that met another in the database, or lost its connection, is tried again: ids tell what was booked. So is one
# that was decided on sums which somebody had changed by hand.
_CONTENTION_ERRORS = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, SumsChangedError)
# A batch costs much by itself. After one of so many calls, the next waits a moment for so many.
_BUSY_CALLS = 10
_MANY_CALLS = 32
_GATHER_SECONDS = 0.008
_GATHER_STEP_SECONDS = 0.002
# Some 430 bytes each: 20 MB.
_REMEMBERED_ACCOUNTS = 50_000
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.5
_OUTAGE_SECONDS = 2.0
_LOOK_SECONDS = 1.0
_OVERLOAD_SECONDS = 0.5


def _nothing() -> None:
    """For whom nobody waits to go on."""


class Bookkeeper:
    """Books for all tenants in this process.

    Args:
        batch_limit: most postings of one batch; a call with more is a batch by itself.
        queue_limit: most postings that may wait in this process.
        ahead_postings: when so many wait, they are decided while the batch before is being written.
    """

    def __init__(
        self, database: Database, tools: BatchTools, *, batch_limit: int, queue_limit: int, ahead_postings: int
    ) -> None:
        self._database = database
        self._tools = tools
        self._batch_limit = batch_limit
        self._queue_limit = queue_limit
        self._ahead_postings = ahead_postings
        self._memory = Memory(_REMEMBERED_ACCOUNTS)
        self._lanes: dict[str, Lane] = {}
        self._waiting_postings = 0
        self._watchers: dict[str, asyncio.Event] = {}

    async def book(self, tenant_id: str, work: Work, deadline_monotonic: float = math.inf) -> list[Result]:
        """Books one call, together with others.

        Returns:
            How each of its postings ended.

        Raises:
            Problem: SERVICE_OVERLOADED, nothing of it was booked; REQUEST_ID_REUSED.
        """
        if self._waiting_postings and self._waiting_postings + len(work.postings) > self._queue_limit:
            raise Problem(
                Reason.SERVICE_OVERLOADED,
                f"{self._waiting_postings} postings wait already",
                retry_after_seconds=_OVERLOAD_SECONDS,
                waiting=str(self._waiting_postings),
            )
        ended: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        waiting = Waiting(work, deadline_monotonic, ended, trace.get_current_span().get_span_context())
        lane = self._lanes.get(tenant_id)
        if lane is None:
            lane = self._lanes[tenant_id] = Lane(self._ahead_postings)
        lane.add(waiting)
        self._waiting_postings += len(work.postings)
        if lane.task is None:
            # In a context of its own: a batch belongs to no single call.
            lane.task = asyncio.create_task(self._serve(tenant_id, lane), context=contextvars.Context())
        return await ended

    async def expire_due(self, tenant_id: str) -> None:
        """Lets the tenant's holds expire whose time is over, so that who reads next sees them gone."""
        async with self._database.transaction(tenant_id) as connection:
            journal = await find_journal(connection, tenant_id)
        if journal is not None and journal.is_any_due(self._tools.clock()):
            await self._book_works(tenant_id, [])

    async def run(self) -> None:
        """Lets holds expire when their time is over, until it is canceled."""
        while True:
            try:
                async with self._database.system_transaction() as connection:
                    tenant_ids, next_time = await find_due_tenants(connection, self._tools.clock())
                for tenant_id in tenant_ids:
                    await self._expire(tenant_id)
            except DATABASE_ERRORS as error:
                log.warning("hold_expiry_waits", error=type(error).__name__)
                await wait_out(_LOOK_SECONDS)
                continue
            await asyncio.sleep(self._pause_seconds(next_time))

    async def _expire(self, tenant_id: str) -> None:
        try:
            await self._book_works(tenant_id, [])
        except DATABASE_ERRORS:
            raise
        except Exception:
            # The holds of the other tenants end all the same.
            log.exception("hold_expiry_failed", tenant_id=tenant_id)

    def _pause_seconds(self, next_time: datetime | None) -> float:
        if next_time is None:
            return _LOOK_SECONDS
        return min(_LOOK_SECONDS, max(0.01, (next_time - self._tools.clock()).total_seconds()))

    async def wait_for_booking(self, tenant_id: str, timeout_seconds: float) -> None:
        """Returns when this process booked something for the tenant, or after the time."""
        event = self._watchers.setdefault(tenant_id, asyncio.Event())
        with suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), timeout_seconds)

    async def close(self) -> None:
        """Waits for the batches under way."""
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, tenant_id: str, lane: Lane) -> None:
        """Books what waits in a lane, until nothing does."""
        is_busy = False
        try:
            while lane.waiting:
                await self._gather(lane, is_busy=is_busy)
                batch = self._next_batch(lane)
                await self._book_in_row(tenant_id, lane, batch)
                is_busy = len(batch) >= _BUSY_CALLS
        finally:
            # No await since the last look: nobody can have come. Unless this was canceled: then nobody is kept waiting.
            del self._lanes[tenant_id]
            self._waiting_postings -= lane.postings
            lane.abandon()

    async def _gather(self, lane: Lane, *, is_busy: bool) -> None:
        """Lets calls come that are on their way already, and in a busy lane those of whoever was just answered."""
        await asyncio.sleep(0)
        end = time.monotonic() + _GATHER_SECONDS
        came = is_busy
        while came and len(lane.waiting) < _MANY_CALLS and time.monotonic() < end:
            before = len(lane.waiting)
            await asyncio.sleep(_GATHER_STEP_SECONDS)
            came = len(lane.waiting) > before

    async def _book_in_row(self, tenant_id: str, lane: Lane, batch: Sequence[Waiting]) -> None:
        """Books a batch, and the next as long as many gather while one is on its way: it is decided meanwhile."""
        ahead = None
        while True:
            can_go_ahead = lane.begin()
            written = asyncio.create_task(self._book_waiting(tenant_id, batch, ahead, lane.decided))
            await asyncio.wait({written, can_go_ahead}, return_when=asyncio.FIRST_COMPLETED)
            if written.done():
                break
            batch = self._next_batch(lane)
            ahead = await self._decide_ahead(tenant_id, [waiting.work for waiting in batch])
            await written
        await written

    async def _decide_ahead(self, tenant_id: str, works: Sequence[Work]) -> Decided | None:
        try:
            return await decide_ahead(self._database, self._tools, self._memory, tenant_id, works)
        except Exception:
            # What is wrong shows again under the lock, where it is dealt with.
            log.warning("batch_not_decided_ahead", exc_info=True)
            return None

    def _next_batch(self, lane: Lane) -> list[Waiting]:
        before = lane.postings
        batch = lane.take(self._batch_limit)
        self._waiting_postings -= before - lane.postings
        WAITING.set(self._waiting_postings)
        return batch

    async def _book_waiting(
        self,
        tenant_id: str,
        batch: Sequence[Waiting],
        ahead: Decided | None = None,
        when_decided: Callable[[], object] = _nothing,
    ) -> None:
        """Books a batch, and tells its callers.

        Args:
            ahead: what was decided about it before.
            when_decided: called when the next batch can be decided.
        """
        if not batch:
            return
        try:
            results = await self._book_patiently(tenant_id, batch, ahead, when_decided)
        except Exception as error:
            if len(batch) > 1 and not is_outage(error):
                # One of them does what none should; the others must not suffer for it.
                log.exception("batch_failed", postings=len(batch))
                for waiting in batch:
                    await self._book_waiting(tenant_id, [waiting])
                return
            for waiting in batch:
                if waiting.is_wanted:
                    waiting.ended.set_exception(error)
            return
        for waiting, result in zip(batch, results, strict=True):
            if not waiting.is_wanted:
                continue
            if isinstance(result, Problem):
                waiting.ended.set_exception(result)
            else:
                waiting.ended.set_result(result)

    async def _book_patiently(
        self, tenant_id: str, batch: Sequence[Waiting], ahead: Decided | None, when_decided: Callable[[], object]
    ) -> list[list[Result] | Problem]:
        """Books a batch, again and again where that can help and somebody still waits."""
        begun = time.monotonic()
        pause_seconds = _FIRST_PAUSE_SECONDS
        latest = max(waiting.deadline_monotonic for waiting in batch)
        works = [waiting.work for waiting in batch]
        with _span_of(batch):
            while True:
                try:
                    return await self._book_works(tenant_id, works, ahead, when_decided)
                except Exception as error:
                    is_contention = isinstance(error, _CONTENTION_ERRORS)
                    # An outage may have come after the commit was sent: the next try finds out.
                    end = latest if is_contention else min(latest, begun + _OUTAGE_SECONDS)
                    if not (is_contention or is_outage(error)) or time.monotonic() + pause_seconds > end:
                        raise
                    RETRIES.labels(type(error).__name__).inc()
                    log.warning("batch_tried_again", error=type(error).__name__)
                # What was decided ahead may be why.
                ahead = None
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(pause_seconds * 2, _LONGEST_PAUSE_SECONDS)

    async def _book_works(
        self,
        tenant_id: str,
        works: Sequence[Work],
        ahead: Decided | None = None,
        when_decided: Callable[[], object] = _nothing,
    ) -> list[list[Result] | Problem]:
        begun = time.perf_counter()
        try:
            async with self._database.transaction(tenant_id, by_index=True, first=LOCK_FIRST) as connection:
                results = await book_batch(
                    connection,
                    self._tools,
                    self._memory,
                    tenant_id,
                    works,
                    ahead=ahead,
                    when_decided=when_decided,
                )
        except BaseException:
            # A partition that was thought to be there may be missing, or what was remembered may be wrong.
            self._tools.partitions.clear()
            self._memory.take(tenant_id)
            raise
        BATCH_SECONDS.observe(time.perf_counter() - begun)
        BATCH_POSTINGS.observe(sum(len(work.postings) for work in works))
        self._wake_watchers(tenant_id)
        return results

    def _wake_watchers(self, tenant_id: str) -> None:
        event = self._watchers.pop(tenant_id, None)
        if event is not None:
            event.set()


@contextmanager
def _span_of(batch: Sequence[Waiting]) -> Iterator[None]:
    """The span of a batch, linked to those of its calls; none when nobody gets it."""
    if not is_exporting():
        yield
        return
    links = [trace.Link(waiting.link) for waiting in batch if waiting.link.is_valid]
    with tracer.start_as_current_span("ledger/batch", links=links):
        yield
