"""Breaks a ledger while clients post to it, and counts what came of it.

    python -m tests.system.chaos_ledger --runs 100 [--seed 1] [--fault kill_postgres ...]

In each run, clients of a new tenant post, hold, reverse and transfer; meanwhile one to three things break at random
moments, many of them at a certain statement of the ledger. The clients send again what they were not told about. In the
end the books must balance, with everything in them once that was acknowledged, and once or not at all what was not; all
of it must have been told by the stream and on the bus; and all of it could have happened one after the other.

A run is made again by its seed: `--seed N --runs 1`.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from mesh.ids import new_id
from tests.ledger.book import SCOPES, Book
from tests.system.ledger_audit import Audit
from tests.system.ledger_clients import Clients
from tests.system.ledger_world import LedgerWorld
from tests.system.severing import Trap

# Clients are at it for about that long when nothing breaks.
WINDOW_SECONDS = 0.8
STATEMENTS = 60
COMMITS = 15
WRONG_SECONDS = (-200_000.0, -3_600.0, -1.0, 1.0, 3_600.0, 200_000.0)
BAD = ("lost", "doubled", "unbalanced", "disordered", "unannounced")


async def _nothing() -> None:
    """Only the connections are cut."""


def _at_statement(chance: Random, spring: Callable[[], Awaitable[None]]) -> Trap:
    """A trap right before or after any statement."""
    return Trap(chance.randint(1, STATEMENTS), only_commits=False, forwards=chance.random() < 0.5, spring=spring)


async def kill_service(world: LedgerWorld, _chance: Random) -> None:
    """Kills the ledger at any moment."""
    await world.kill_service()


async def kill_postgres(world: LedgerWorld, _chance: Random) -> None:
    """Kills PostgreSQL at any moment."""
    await world.restart_postgres()


async def kill_service_at_statement(world: LedgerWorld, chance: Random) -> None:
    """Kills the ledger right before or after it sent a statement."""
    world.set_trap(_at_statement(chance, world.kill_service))


async def kill_postgres_at_statement(world: LedgerWorld, chance: Random) -> None:
    """Kills PostgreSQL right before or after it got a statement."""
    world.set_trap(_at_statement(chance, world.restart_postgres))


async def cut_at_statement(world: LedgerWorld, chance: Random) -> None:
    """Cuts all connections right before or after PostgreSQL got a statement."""
    world.set_trap(_at_statement(chance, _nothing))


async def lose_answer_to_commit(world: LedgerWorld, chance: Random) -> None:
    """Cuts all connections right after COMMIT was sent: nobody hears whether it was done."""
    spring = chance.choice([_nothing, world.kill_service])
    world.set_trap(Trap(chance.randint(1, COMMITS), only_commits=True, forwards=True, spring=spring))


async def jump_clock(world: LedgerWorld, chance: Random) -> None:
    """Sets the ledger's clock wrong several times, back and forth."""
    for _ in range(chance.randint(2, 5)):
        world.set_clock(chance.choice(WRONG_SECONDS))
        await asyncio.sleep(chance.uniform(0.05, 0.2))


async def fill_disk(world: LedgerWorld, chance: Random) -> None:
    """Leaves no room for what is to be announced, for a while."""
    await world.fill_disk(chance.uniform(0.1, 1.5))


async def lose_nats(world: LedgerWorld, chance: Random) -> None:
    """Kills NATS, and starts it again later."""
    await world.lose_nats(chance.uniform(0, 1.5))


FAULTS: dict[str, Callable[[LedgerWorld, Random], Awaitable[None]]] = {
    fault.__name__: fault
    for fault in (
        kill_service,
        kill_postgres,
        kill_service_at_statement,
        kill_postgres_at_statement,
        cut_at_statement,
        lose_answer_to_commit,
        jump_clock,
        fill_disk,
        lose_nats,
    )
}


@dataclass
class Tally:
    """What came of runs."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Adds what came of other runs."""
        self.counts += other.counts
        self.faults += other.faults


async def run_once(world: LedgerWorld, seed: int, among: list[str]) -> Tally:
    """One run: clients, faults, and the count."""
    chance = Random(seed)
    names = chance.sample(among, min(len(among), chance.choice([1, 1, 2, 3])))
    tenant_id, sprung_before = new_id("ten"), world.proxy.sprung_traps
    book = Book(world.mesh.client("ledger", tenant_id, SCOPES), tenant_id)
    clients = Clients(book, Random(chance.random()))
    await clients.open()
    breaking = asyncio.create_task(_break(world, chance, names))
    await clients.run()
    await breaking
    await world.mend()
    await clients.resolve()
    found = await Audit(world, book, clients).faults()
    counts = Counter({kind: len(found[kind]) for kind in BAD})
    lines = [f"seed {seed} ({', '.join(names)}): {kind}: {text}" for kind in BAD for text in found[kind]]
    counts += clients.counts + Counter(names)
    return Tally(counts + Counter(runs=1, sprung=world.proxy.sprung_traps - sprung_before), lines)


async def _break(world: LedgerWorld, chance: Random, names: list[str]) -> None:
    for name in names:
        await asyncio.sleep(chance.uniform(0, WINDOW_SECONDS))
        await FAULTS[name](world, chance)


async def run_all(folder: Path, console: Console, *, runs: int, seed: int, among: list[str]) -> Tally:
    """All runs, one after the other, against one ledger."""
    world = LedgerWorld(folder)
    await world.start()
    total = Tally()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("chaos", total=runs)
            for number in range(runs):
                one = await run_once(world, seed + number, among)
                total.add(one)
                progress.advance(task)
                if one.faults:
                    console.print(*one.faults, sep="\n", style="red", markup=False)
    finally:
        await world.stop()
    return total


def table_of(tally: Tally) -> Table:
    """The counts."""
    table = Table(title="what came of breaking the ledger")
    columns = ("runs", "postings", "acknowledged", "resent", *BAD)
    for column in columns:
        table.add_column(column, justify="right")
    table.add_row(*(str(tally.counts[column]) for column in columns))
    return table


def main() -> int:
    """Runs from the command line. Exit status 1 when anything was lost, doubled, unbalanced or not told."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first run; the next ones count on")
    parser.add_argument("--fault", choices=list(FAULTS), action="append", help="only this one; may be repeated")
    arguments = parser.parse_args()
    console = Console(width=120)
    console.print(f"seed {arguments.seed}")
    folder = Path(tempfile.mkdtemp(prefix="kente-chaos-ledger-"))
    among = arguments.fault or list(FAULTS)
    tally = asyncio.run(run_all(folder, console, runs=arguments.runs, seed=arguments.seed, among=among))
    console.print(table_of(tally))
    console.print(", ".join(f"{name} {tally.counts[name]}" for name in FAULTS))
    console.print(f"{tally.counts['sprung']} of those at a statement met one")
    if tally.faults:
        console.print(f"{len(tally.faults)} faults; state and logs are kept in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
