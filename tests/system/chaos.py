"""Kills things during payments, and counts what came of it.

    python -m tests.system.chaos --runs 50 [--seed 1] [--victim ledger ...]

Each run sends a few payments, kills one process at a random moment, and waits. Whatever was killed, each payment must
end in one final state, with one charge at the provider, one posting in the ledger, and one receipt to the payer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.system.live import LiveMesh, Partner

VICTIMS = (
    "payments",
    "ledger",
    "notifications",
    "connections",
    "identity",
    "gateway",
    "sandbox",
    "postgres",
    "nats",
    "everything",
)
PAYMENTS_A_RUN = 4
# A payment through the sandbox takes well under this; the kill falls anywhere in it.
WINDOW_SECONDS = 1.2
RECEIPT_SECONDS = 90.0


@dataclass(slots=True)
class Tally:
    """What came of the runs against one victim."""

    runs: int = 0
    payments: int = 0
    repeated_requests: int = 0
    faults: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


async def run_once(mesh: LiveMesh, victim: str, seed: int) -> Tally:
    """One run: payments, one kill, and the count."""
    chance = random.Random(seed)
    tally = Tally(runs=1)
    partner = Partner(mesh)
    emails = [f"payer-{uuid.uuid4().hex}@example.com" for _ in range(PAYMENTS_A_RUN)]
    try:
        payments = [asyncio.create_task(_pay_later(partner, email, chance.uniform(0, 0.4))) for email in emails]
        await asyncio.sleep(chance.uniform(0, WINDOW_SECONDS))
        await _kill(mesh, victim)
        await mesh.wait_ready()
        for email, payment in zip(emails, payments, strict=True):
            tally.payments += 1
            try:
                faults = await faults_of(partner, await payment, email, tally)
            except AssertionError as error:
                faults = [str(error)]
            tally.faults += [f"{victim}, seed {seed}: {fault}" for fault in faults]
        tally.repeated_requests = partner.repeated
    finally:
        await partner.close()
    return tally


async def _pay_later(partner: Partner, email: str, delay_seconds: float) -> str:
    await asyncio.sleep(delay_seconds)
    return await partner.pay("+233241234567", email)


async def _kill(mesh: LiveMesh, victim: str) -> None:
    if victim == "everything":
        mesh.kill_everything()
        await asyncio.to_thread(mesh.start)
    else:
        mesh.kill(victim)


async def faults_of(partner: Partner, payment_id: str, email: str, tally: Tally) -> list[str]:
    """What is wrong with one payment: nothing, when it has one state, one charge, one posting and one receipt."""
    payment = await partner.final(payment_id)
    tally.counts[payment["state"]] += 1
    entries = await partner.entries(payment_id)
    state = await partner.provider_state("mtn_momo")
    charges = charges_of(state, payment_id)
    mails = await _receipts(partner, email)
    tally.counts["charges"] += charges
    tally.counts["postings"] += len({entry["transactionId"] for entry in entries})
    tally.counts["receipts"] += len(mails)
    faults = []
    if payment["state"] != "STATE_SUCCEEDED":
        faults.append(f"{payment_id} ended as {payment['state']}: {json.dumps(payment.get('failure'))}")
    if charges != 1:
        faults.append(f"{payment_id} has {charges} charges at the provider")
    debits = sum(int(e["amount"]["amountMinor"]) for e in entries if e["side"] == "SIDE_DEBIT")
    credit = sum(int(e["amount"]["amountMinor"]) for e in entries if e["side"] == "SIDE_CREDIT")
    if len(entries) != 2 or debits != credit or debits != int(payment["amount"]["amountMinor"]):
        faults.append(f"{payment_id} has {len(entries)} entries, debits {debits}, credits {credit}")
    if len(mails) != 1:
        faults.append(f"{payment_id} has {len(mails)} receipts")
    return faults


def charges_of(state: dict[str, Any], payment_id: str) -> int:
    """How often the provider took money for a payment: whatever attempt, it is told the payment's id in the note."""
    note = payment_id.replace("_", "-")
    keys = {
        record["externalId"] for record in state["records"].get("requesttopay", []) if record.get("payeeNote") == note
    }
    return sum(1 for movement in state["movements"] if movement["operation"] == "collect" and movement["key"] in keys)


async def _receipts(partner: Partner, email: str) -> list[dict[str, Any]]:
    deadline = time.monotonic() + RECEIPT_SECONDS
    while True:
        mails = await partner.mails(email)
        if mails or time.monotonic() > deadline:
            return mails
        await asyncio.sleep(0.1)


def table_of(tallies: dict[str, Tally]) -> Table:
    """The counts, a row a victim."""
    table = Table(title="kill -9 during payments")
    for column in ("killed", "runs", "payments", "succeeded", "charges", "postings", "receipts", "repeated", "faults"):
        table.add_column(column, justify="left" if column == "killed" else "right")
    for victim, tally in tallies.items():
        counts = [tally.counts[name] for name in ("STATE_SUCCEEDED", "charges", "postings", "receipts")]
        numbers = [tally.runs, tally.payments, *counts, tally.repeated_requests, len(tally.faults)]
        table.add_row(victim, *map(str, numbers))
    return table


async def run_all(mesh: LiveMesh, victims: list[str], runs: int, seed: int, console: Console) -> dict[str, Tally]:
    """All runs against all victims, in turn."""
    tallies = {victim: Tally() for victim in victims}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("chaos", total=runs * len(victims))
        for number in range(runs):
            for victim in victims:
                progress.update(task, description=f"kill {victim}")
                one = await run_once(mesh, victim, seed * 1_000_003 + number * 101 + victims.index(victim))
                total = tallies[victim]
                total.runs += one.runs
                total.payments += one.payments
                total.repeated_requests += one.repeated_requests
                total.counts += one.counts
                total.faults += one.faults
                progress.advance(task)
                if one.faults:
                    console.print(*one.faults, sep="\n", style="red")
    return tallies


def main() -> int:
    """Runs from the command line. Exit status 1 when anything was lost, doubled or left open."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50, help="runs against each victim")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="printed, to repeat the same moments")
    parser.add_argument("--victim", choices=VICTIMS, action="append", help="only this one; may be repeated")
    parser.add_argument("--port-offset", type=int, default=1000)
    arguments = parser.parse_args()
    console = Console(width=120)
    console.print(f"seed {arguments.seed}")
    folder = Path(tempfile.mkdtemp(prefix="kente-chaos-"))
    mesh = LiveMesh(folder / "state", arguments.port_offset)
    mesh.start()
    try:
        victims = arguments.victim or list(VICTIMS)
        tallies = asyncio.run(run_all(mesh, victims, arguments.runs, arguments.seed, console))
    finally:
        mesh.stop()
    console.print(table_of(tallies))
    faults = [fault for tally in tallies.values() for fault in tally.faults]
    runs = sum(tally.runs for tally in tallies.values())
    console.print(f"{runs} runs, {len(faults)} faults")
    if faults:
        console.print(f"state and logs are kept in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
