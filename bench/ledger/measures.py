"""What is measured, in the order in which it is."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import grpc
import psutil
from kente.ledger.v1 import ledger_service_pb2, proof_service_pb2

from bench.ledger.bulk_sql import BulkSql
from bench.ledger.drivers import Call, Load, closed_loop, open_loop
from bench.ledger.meter import Measure, Meter, Rates
from bench.ledger.results import Results
from bench.ledger.traffic import DISTRIBUTIONS, HOT, UNIFORM, Traffic
from bench.ledger.world import Client

LEDGER = "/kente.ledger.v1.LedgerService"
EMPTY, READ = "empty RPC (health check)", "read of a book, all concerns"
SINGLE, FOR_UPDATE = "single posting", "SELECT FOR UPDATE service"
BATCH, BULK = "transfer in batches", "bare set-based SQL"

SINGLE_TO_EMPTY, SINGLE_TO_FOR_UPDATE, HOT_TO_UNIFORM = 0.6, 3.0, 0.9
BATCH_RATE, BATCH_TO_BULK = 25_000.0, 0.5
FIXED_RATE, P99_MILLISECONDS = 500.0, 20.0
VERIFY_RATE = 150_000.0
# Growth of the resident memory that a longer run would not add to: caches fill, the allocator settles.
FLAT_SHARE = 0.05
# The beginning of a run, in which they do.
_SETTLING_SHARE = 0.3
_SAMPLE_SECONDS = 1.0
_KEPT_UP_SHARE = 0.95


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        seconds: length of one measurement of a rate.
        latency_seconds: length of one fixed rate; that of the target is three times as long.
        loads: fixed rates, calls a second, rising.
        memory_seconds: how long the memory is watched.
    """

    accounts: int
    callers: int
    batch_size: int
    batch_callers: int
    seconds: float
    rounds: int
    latency_seconds: float
    loads: Sequence[float]
    memory_seconds: float


@dataclass(slots=True)
class Subject:
    """What is measured: both services, the bare statement, and the processes at work."""

    ledger: Client
    for_update: Client
    bulk: BulkSql
    servers: dict[str, list[psutil.Process]]
    ledger_process: psutil.Process
    _runs: itertools.count[int] = field(default_factory=itertools.count)

    def traffic(self, distribution: str, plan: Plan) -> Traffic:
        """Requests whose ids no other traffic has."""
        return Traffic(distribution, plan.accounts, f"{next(self._runs):08x}")

    def single(self, client: Client, distribution: str, plan: Plan) -> Call:
        """A call that posts one transaction."""
        post = client.rpc(f"{LEDGER}/CreateTransaction", ledger_service_pb2.CreateTransactionResponse.FromString)
        traffic = self.traffic(distribution, plan)
        return lambda: post(traffic.single())

    def batch(self, distribution: str, plan: Plan) -> Call:
        """A call that books one batch, and looks at each result."""
        create = self.ledger.rpc(f"{LEDGER}/CreateTransfers", ledger_service_pb2.CreateTransfersResponse.FromString)
        traffic = self.traffic(distribution, plan)

        async def call() -> None:
            response = await create(traffic.batch(plan.batch_size))
            refused = [result.reason for result in response.results if result.reason]
            if refused or len(response.results) != plan.batch_size:
                raise RuntimeError(f"{len(refused)} transfers were refused, the first for {refused[:1]}")

        return call


async def measure_single(subject: Subject, plan: Plan, results: Results) -> None:
    """Single postings beside the empty RPC and beside the baseline."""
    get_book = subject.ledger.rpc(f"{LEDGER}/GetBook", ledger_service_pb2.GetBookResponse.FromString)
    book = ledger_service_pb2.GetBookRequest(book_name="main")
    calls: dict[str, Call] = {EMPTY: subject.ledger.health(), READ: lambda: get_book(book)}
    for distribution in DISTRIBUTIONS:
        calls[f"{SINGLE}, {distribution}"] = subject.single(subject.ledger, distribution, plan)
        calls[f"{FOR_UPDATE}, {distribution}"] = subject.single(subject.for_update, distribution, plan)
    measures = {name: _closed(call, plan.callers) for name, call in calls.items()}
    found = await Meter(subject.servers).measure(measures, plan.seconds, plan.rounds)
    _keep(found, results)
    empty, single = found[EMPTY].rate, found[f"{SINGLE}, {UNIFORM}"].rate
    results.add(
        f"single postings, {plan.callers} callers, of the empty RPC's rate",
        f"{single / empty:.2f} ({single:,.0f}/s of {empty:,.0f}/s)",
        f">= {SINGLE_TO_EMPTY}",
        is_met=single >= SINGLE_TO_EMPTY * empty,
    )
    read = found[READ].rate
    results.add("  a read through all concerns, of the empty RPC's rate", f"{read / empty:.2f} ({read:,.0f}/s)")
    for distribution in DISTRIBUTIONS:
        ours, theirs = found[f"{SINGLE}, {distribution}"].rate, found[f"{FOR_UPDATE}, {distribution}"].rate
        is_target = distribution == UNIFORM
        results.add(
            f"single postings, {distribution}, of SELECT FOR UPDATE's rate",
            f"{ours / theirs:.2f} ({ours:,.0f}/s of {theirs:,.0f}/s)",
            f">= {SINGLE_TO_FOR_UPDATE}" if is_target else "",
            is_met=ours >= SINGLE_TO_FOR_UPDATE * theirs if is_target else None,
        )
    hot = found[f"{SINGLE}, {HOT}"].rate
    results.add(
        "single postings, one hot account, of the uniform rate",
        f"{hot / single:.2f}",
        f">= {HOT_TO_UNIFORM}",
        is_met=hot >= HOT_TO_UNIFORM * single,
    )


async def measure_batches(subject: Subject, plan: Plan, results: Results) -> None:
    """Batches beside the bare statement."""
    measures: dict[str, Measure] = {}
    for distribution in DISTRIBUTIONS:
        measures[f"{BATCH}, {distribution}"] = _times(
            _closed(subject.batch(distribution, plan), plan.batch_callers), plan.batch_size
        )
        measures[f"{BULK}, {distribution}"] = _bulk(subject.bulk, subject.traffic(distribution, plan), plan.batch_size)
    found = await Meter(subject.servers).measure(measures, plan.seconds, plan.rounds)
    _keep(found, results)
    for distribution in DISTRIBUTIONS:
        ours, bare = found[f"{BATCH}, {distribution}"].rate, found[f"{BULK}, {distribution}"].rate
        wanted = max(BATCH_RATE, BATCH_TO_BULK * bare)
        is_target = distribution == UNIFORM
        results.add(
            f"transfers in batches of {plan.batch_size:,}, {distribution}",
            f"{ours:,.0f}/s ({ours / bare:.2f} of the bare SQL's {bare:,.0f}/s)",
            f">= {wanted:,.0f}/s" if is_target else "",
            is_met=ours >= wanted if is_target else None,
        )
    uniform, hot = found[f"{BATCH}, {UNIFORM}"].rate, found[f"{BATCH}, {HOT}"].rate
    results.add(
        "transfers in batches, one hot account, of the uniform rate",
        f"{hot / uniform:.2f}",
        f">= {HOT_TO_UNIFORM}",
        is_met=hot >= HOT_TO_UNIFORM * uniform,
    )


async def measure_latency(subject: Subject, plan: Plan, results: Results) -> None:
    """Latency at fixed rates, up to that at which the ledger does not keep up."""
    for distribution in DISTRIBUTIONS:
        call = subject.single(subject.ledger, distribution, plan)
        loads: list[Load] = []
        for rate in plan.loads:
            is_target = rate == FIXED_RATE and distribution == UNIFORM
            load = await open_loop(call, rate, plan.latency_seconds * (3 if is_target else 1))
            loads.append(load)
            if is_target:
                p99 = load.milliseconds(0.99)
                results.add(
                    f"p99 of single postings at {FIXED_RATE:.0f}/s",
                    f"{p99:.1f} ms (p50 {load.milliseconds(0.5):.1f}, p99.9 {load.milliseconds(0.999):.1f})",
                    f"< {P99_MILLISECONDS:.0f} ms",
                    is_met=p99 < P99_MILLISECONDS,
                )
            if not load.is_complete or load.achieved < _KEPT_UP_SHARE * rate:
                break
        results.loads[distribution] = loads


async def measure_memory(subject: Subject, plan: Plan, results: Results) -> None:
    """The ledger's memory while it works."""
    call = subject.single(subject.ledger, UNIFORM, plan)
    begun = time.monotonic()

    async def sample() -> None:
        while True:
            results.memory.append((round(time.monotonic() - begun, 1), round(_resident(subject.ledger_process), 2)))
            await asyncio.sleep(_SAMPLE_SECONDS)

    sampling = asyncio.create_task(sample())
    try:
        await open_loop(call, FIXED_RATE, plan.memory_seconds)
    finally:
        sampling.cancel()
    settled = [item for item in results.memory if item[0] >= plan.memory_seconds * _SETTLING_SHARE]
    slope = _slope(settled)
    growth = slope * plan.memory_seconds
    last = settled[-1][1]
    results.add(
        f"memory over {plan.memory_seconds / 60:.1f} minutes at {FIXED_RATE:.0f}/s",
        f"{last:.0f} MiB, {slope * 60:+.2f} MiB a minute",
        f"flat (< {FLAT_SHARE:.0%})",
        is_met=growth < FLAT_SHARE * last,
    )


async def measure_verification(subject: Subject, results: Results) -> None:
    """How fast the books that all this made are checked, and that nothing is wrong with them."""
    channel = subject.ledger.channels[0]
    verify = channel.unary_stream(
        "/kente.ledger.v1.ProofService/VerifyBooks",
        request_serializer=proof_service_pb2.VerifyBooksRequest.SerializeToString,
        response_deserializer=proof_service_pb2.VerifyBooksResponse.FromString,
    )
    begun = time.perf_counter()
    entries = 0
    faults: list[proof_service_pb2.BookFault] = []
    try:
        async for answer in verify(proof_service_pb2.VerifyBooksRequest(), metadata=subject.ledger.metadata):
            entries = max(entries, answer.checked_entries)
            faults.extend(answer.faults)
    except grpc.aio.AioRpcError as error:
        results.add("entries verified", f"not measured: {error.code().name}", f">= {VERIFY_RATE:,.0f}/s", is_met=False)
        return
    seconds = time.perf_counter() - begun
    results.add(
        "entries verified",
        f"{entries / seconds:,.0f}/s ({entries:,} in {seconds:.1f} s, {len(faults)} faults)",
        f">= {VERIFY_RATE:,.0f}/s, 0 faults",
        is_met=entries >= VERIFY_RATE * seconds and not faults,
    )


def _closed(call: Call, callers: int) -> Measure:
    return lambda seconds: closed_loop(call, callers, seconds)


def _times(measure: Measure, factor: int) -> Measure:
    async def run(seconds: float) -> float:
        return await measure(seconds) * factor

    return run


def _bulk(bulk: BulkSql, traffic: Traffic, size: int) -> Measure:
    return lambda seconds: bulk.rate(traffic, size, seconds)


def _keep(found: dict[str, Rates], results: Results) -> None:
    for name, rates in found.items():
        results.rates[name] = [round(rate, 1) for rate in rates.rates]
        results.processor[name] = {
            process: round(rates.microseconds(process), 2) for process in rates.processor_seconds
        }


def _resident(process: psutil.Process) -> float:
    """MiB of a process and its workers."""
    return float(sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))) / 2**20


def _slope(samples: Sequence[tuple[float, float]]) -> float:
    """MiB a second, by least squares."""
    mean: Callable[[Sequence[float]], float] = lambda values: sum(values) / len(values)  # noqa: E731 - of two columns
    times, values = [seconds for seconds, _ in samples], [mebibytes for _, mebibytes in samples]
    middle, level = mean(times), mean(values)
    spread = sum((moment - middle) ** 2 for moment in times)
    if not spread:
        return 0.0
    return sum((moment - middle) * (value - level) for moment, value in samples) / spread
