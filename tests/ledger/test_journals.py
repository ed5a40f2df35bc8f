"""Journals of a rich book pass the own checks of hledger and of beancount, which compute the balances that we do."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from services.ledger.model.exports.tables import major_text
from tests.harness import TestMesh
from tests.ledger.book import BANK, FEES, PAYER, SCOPES, Book, credit, debit
from tests.ledger.files import Files, as_timestamp
from tests.ledger.rich_book import RichBook, read_balances

TRANSACTIONS = 150
LIMIT_SECONDS = 60
# Of releases that know it: an assertion not long after the last posting of each account.
NEWER_CHECKS = ("recentassertions",)
# Beancount has another licence than the project: it is run as a program, and not imported.
READ_WITH_BEANCOUNT = """
import json, sys
from beancount import loader
from beancount.core.data import Open, Transaction
entries, errors, _ = loader.load_file(sys.argv[1])
names = {entry.account: entry.meta["account-name"] for entry in entries if isinstance(entry, Open)}
balances = {name: "0" for name in names.values()}
transactions = {}
from decimal import Decimal
for entry in entries:
    if isinstance(entry, Transaction):
        transactions[entry.meta.get("transaction-id", "")] = entry.narration
        for posting in entry.postings:
            name = names[posting.account]
            balances[name] = str(Decimal(balances[name]) + posting.units.number)
print(json.dumps({"errors": [error.message for error in errors], "balances": balances, "transactions": transactions}))
"""

needs_hledger = pytest.mark.skipif(
    shutil.which("hledger") is None, reason="hledger is not on the PATH: Debian's package hledger has it"
)


@pytest.fixture
def files(ledger: TestMesh, book: Book) -> Files:
    """Exports of this test's tenant."""
    return Files(ledger.client("ledger", book.tenant_id, SCOPES))


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end."""
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )


async def check_with_hledger(path: Path) -> None:
    """Hledger's own checks find nothing."""
    for checks in (("--strict",), ("ordereddates",)):
        done = await asyncio.to_thread(run, "hledger", "-f", path, "check", *checks)
        assert done.returncode == 0, done.stderr
    for check in NEWER_CHECKS:
        done = await asyncio.to_thread(run, "hledger", "-f", path, "check", check)
        assert done.returncode == 0 or "unknown" in done.stderr, done.stderr


async def balances_of_hledger(path: Path, *options: str) -> dict[str, Decimal]:
    """Balances that hledger computes, without those that are zero."""
    command: list[str | Path] = ["hledger", "-f", path, "balance", "--flat", "--no-total", "-O", "csv", *options]
    done = await asyncio.to_thread(run, *command)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    return {row["account"]: Decimal(row["balance"].split()[0]) for row in rows}


async def read_with_beancount(path: Path) -> tuple[dict[str, Decimal], dict[str, str]]:
    """Balances that beancount computes, without those that are zero, and the narration of each transaction."""
    bean_check = Path(sys.executable).with_name("bean-check")
    done = await asyncio.to_thread(run, bean_check, path)
    assert done.returncode == 0, done.stderr + done.stdout
    done = await asyncio.to_thread(run, sys.executable, "-c", READ_WITH_BEANCOUNT, path)
    document = json.loads(done.stdout)
    assert document["errors"] == []
    balances = {name: Decimal(number) for name, number in document["balances"].items() if Decimal(number)}
    return balances, document["transactions"]


async def balances_of_ledger(book: Book) -> dict[str, Decimal]:
    """Balances that we compute, without those that are zero."""
    found = await read_balances(book)
    return {name: Decimal(major_text(minor, scale)) for name, (minor, scale) in found.items() if minor}


@needs_hledger
@pytest.mark.parametrize("seed", [1, 2])
async def test_hledger_accepts_a_rich_book_and_computes_its_balances(
    book: Book, files: Files, tmp_path: Path, seed: int
) -> None:
    await RichBook(book, seed).fill(TRANSACTIONS)
    path = tmp_path / "main.journal"

    path.write_bytes(await files.export("HLEDGER"))

    await check_with_hledger(path)
    assert await balances_of_hledger(path) == await balances_of_ledger(book)


@pytest.mark.parametrize("seed", [1, 2])
async def test_beancount_accepts_a_rich_book_and_computes_its_balances(
    book: Book, files: Files, tmp_path: Path, seed: int
) -> None:
    await RichBook(book, seed).fill(TRANSACTIONS)
    path = tmp_path / "main.beancount"

    path.write_bytes(await files.export("BEANCOUNT"))

    balances, narrations = await read_with_beancount(path)
    assert balances == await balances_of_ledger(book)
    posted = {entry.transaction_id for entry in await book.entries() if not entry.pending}
    assert set(narrations) == posted
    for transaction_id in list(posted)[:20]:
        assert narrations[transaction_id] == (await book.transaction(transaction_id)).description


@needs_hledger
async def test_a_part_of_a_book_begins_with_its_opening_balances(book: Book, files: Files, tmp_path: Path) -> None:
    await RichBook(book, 3).fill(TRANSACTIONS)
    start = Timestamp(seconds=(await book.account("assets:bank")).create_time.seconds - 200 * 86_400)
    hledger, beancount = tmp_path / "part.journal", tmp_path / "part.beancount"

    hledger.write_bytes(await files.export("HLEDGER", start_time=start))
    beancount.write_bytes(await files.export("BEANCOUNT", start_time=start))

    assert b"Opening balances" in hledger.read_bytes()
    await check_with_hledger(hledger)
    expected = await balances_of_ledger(book)
    assert await balances_of_hledger(hledger) == expected
    assert (await read_with_beancount(beancount))[0] == expected


@needs_hledger
async def test_hledger_finds_a_changed_amount(open_book: Book, files: Files, tmp_path: Path) -> None:
    await open_book.post(debit(BANK, 1_050), credit(PAYER, 1_050))
    await open_book.post(debit(BANK, 200), credit(FEES, 200))
    journal = (await files.export("HLEDGER")).decode()
    path = tmp_path / "main.journal"

    path.write_text(journal.replace("2.00 GHS", "3.00 GHS", 2))

    assert run("hledger", "-f", path, "check").returncode != 0


async def test_beancount_finds_an_amount_changed_by_the_smallest_unit(
    open_book: Book, files: Files, tmp_path: Path
) -> None:
    await open_book.post(debit(BANK, 200), credit(FEES, 200))
    journal = (await files.export("BEANCOUNT")).decode()
    path = tmp_path / "main.beancount"

    path.write_text(re.sub(r"(?m)^(  \S+  -?)2\.00", r"\g<1>2.01", journal))

    assert run(Path(sys.executable).with_name("bean-check"), path).returncode != 0


async def test_what_is_held_is_in_no_journal(open_book: Book, files: Files) -> None:
    held = await open_book.post(debit(BANK, 100), credit(PAYER, 100), pending=True)

    for form in ("HLEDGER", "BEANCOUNT"):
        assert held.transaction_id.encode() not in await files.export(form)


@needs_hledger
async def test_journals_carry_prices(open_book: Book, files: Files, tmp_path: Path) -> None:
    await open_book.post(debit(BANK, 1_000), credit(PAYER, 1_000))
    path = tmp_path / "main.journal"

    path.write_bytes(
        await files.export("HLEDGER", presentation_currency="USD", rates=[{"currency": "GHS", "rate": "0.0815"}])
    )

    await check_with_hledger(path)
    in_dollars = await balances_of_hledger(path, "-X", "USD", "--infer-market-prices")
    assert in_dollars[BANK] == Decimal("0.815")


async def test_back_dated_transactions_stand_where_they_took_effect(open_book: Book, files: Files) -> None:
    await open_book.post(debit(BANK, 1), credit(PAYER, 1), description="later")
    early = as_timestamp("1650-01-01T00:00:00Z")
    await open_book.post(debit(BANK, 2), credit(PAYER, 2), description="earlier", effective_time=early)

    journal = (await files.export("HLEDGER")).decode()

    assert journal.index("earlier") < journal.index("later")
    assert "\n1650-01-01 * (txn_" in journal


async def test_a_time_before_all_that_beancount_reads_becomes_its_first_day(
    open_book: Book, files: Files, tmp_path: Path
) -> None:
    early = as_timestamp("1650-01-01T00:00:00Z")
    await open_book.post(debit(BANK, 2), credit(PAYER, 2), effective_time=early)
    path = tmp_path / "main.beancount"

    path.write_bytes(await files.export("BEANCOUNT"))

    assert b'effective-time: "1650-01-01T00:00:00.000000Z"' in path.read_bytes()
    await read_with_beancount(path)


@pytest.mark.usefixtures("open_book")
async def test_an_empty_book_is_a_journal(files: Files, tmp_path: Path) -> None:
    path = tmp_path / "main.beancount"

    path.write_bytes(await files.export("BEANCOUNT"))

    assert (await read_with_beancount(path))[0] == {}
