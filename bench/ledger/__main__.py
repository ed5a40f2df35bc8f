"""Measures the ledger beside its baselines, prints a table, and writes it with plots.

    python -m bench.ledger [--quick] [--minutes 10] [--workers 1]

The ledger runs as it does for real, as a process of its own; this process is the client. PostgreSQL is on this machine
too, and every transaction is on the disk before it is answered.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import uvloop
from rich.console import Console

from bench.ledger import for_update, world
from bench.ledger.bulk_sql import BulkSql
from bench.ledger.measures import (
    Plan,
    Subject,
    measure_batches,
    measure_latency,
    measure_memory,
    measure_single,
    measure_verification,
)
from bench.ledger.meter import Bystanders
from bench.ledger.plots import plot_latency, plot_memory
from bench.ledger.results import Results
from mesh.ids import new_id
from tests.harness import Infrastructure, start_infrastructure

RESULTS = Path(__file__).parent.parent / "results"
_LOADS = (100, 250, 500, 750, 1000, 1250, 1500, 2000, 2500, 3000, 4000)
_QUICK_LOADS = (250, 500, 1000)
_CHANNELS = 4
console = Console()


def plan_of(arguments: argparse.Namespace) -> Plan:
    """How much to measure."""
    quick = bool(arguments.quick)
    return Plan(
        accounts=1_000 if quick else 10_000,
        callers=64,
        batch_size=1_000,
        batch_callers=4,
        seconds=0.7 if quick else 4.0,
        rounds=2 if quick else 5,
        latency_seconds=1.5 if quick else 10.0,
        loads=_QUICK_LOADS if quick else _LOADS,
        memory_seconds=5.0 if quick else arguments.minutes * 60.0,
    )


async def run(infrastructure: Infrastructure, plan: Plan, workers: int) -> Results:
    """Starts everything, and measures."""
    results = Results()
    admin_url = infrastructure.postgres.admin_url
    results.facts = world.machine_facts(infrastructure.folder) | await world.durability(admin_url)
    results.facts |= {"ledger workers": str(workers), "accounts": f"{plan.accounts:,}"}
    await world.lay_in_log(admin_url)
    await world.create_for_update(admin_url, plan.accounts)
    async with AsyncExitStack() as stack:
        ledger_process, ledger_port = stack.enter_context(world.ledger(infrastructure, workers))
        baseline_process, baseline_port = stack.enter_context(world.for_update_service(infrastructure))
        bulk = await BulkSql.create(admin_url, plan.accounts)
        stack.push_async_callback(bulk.close)
        token = world.client_token(infrastructure, new_id("ten"))
        ledger = await stack.enter_async_context(world.open_client(ledger_port, _CHANNELS, token))
        baseline = await stack.enter_async_context(world.open_client(baseline_port, _CHANNELS))
        await world.wait_ready(ledger.channels[0])
        await world.wait_ready(baseline.channels[0], for_update.METHOD)
        await ledger.create_accounts(plan.accounts)
        await world.wait_published(admin_url)
        servers = {
            "service": [ledger_process, baseline_process],
            "PostgreSQL": [psutil.Process(infrastructure.postgres.pid)],
        }
        # What is there now stays. To look through it for garbage would hold up the client, and seem to be the ledger's.
        gc.collect()
        gc.freeze()
        subject = Subject(ledger, baseline, bulk, servers, ledger_process)
        bystanders = Bystanders()
        await _tell("single postings", measure_single(subject, plan, results))
        await _tell("batches", measure_batches(subject, plan, results))
        await world.wait_published(admin_url)
        await _tell("latency", measure_latency(subject, plan, results))
        await _tell("memory", measure_memory(subject, plan, results))
        await world.wait_published(admin_url)
        await _tell("verification", measure_verification(subject, results))
        results.facts["others took of the processors"] = f"{bystanders.share():.0%}"
    return results


async def _tell(name: str, measuring: Awaitable[None]) -> None:
    console.print(f"Measuring: {name}.")
    await measuring


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="about a minute, to see that it works; writes nothing")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long the memory is watched")
    parser.add_argument("--workers", type=int, default=1, help="processes of the ledger")
    parser.add_argument("--keep", type=Path, help="folder to run in and to leave as it is")
    parser.add_argument("--output", type=Path, help="folder of the results, also of a quick run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kente-bench-") as scratch:
        folder: Path = arguments.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        infrastructure = start_infrastructure(folder, world.POSTGRES_OPTIONS)
        try:
            results = uvloop.run(run(infrastructure, plan_of(arguments), arguments.workers))
        finally:
            infrastructure.nats.stop()
            infrastructure.postgres.stop()
    for table in results.tables():
        console.print(table)
    output: Path | None = arguments.output or (None if arguments.quick else RESULTS)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        plot_latency(results.loads, output / "ledger-latency.png")
        plot_memory(results.memory, output / "ledger-memory.png")
        results.write(output)
        console.print(f"Written to {os.path.relpath(output)}.")


if __name__ == "__main__":
    main()
