"""Shows by which indexes the ledger's reads find their rows: writes docs/ledger-queries.md.

    python -m bench.ledger_explain [--transactions 200000]

Makes a large book in a server of its own, then runs the repository's own statements as the service's role, each under
EXPLAIN, the second time of two: what is shown is what the service does, with a warm cache.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import asyncpg

from bench.ledger_book import BUSY_SOURCE, CUSTOMER, HOT_ACCOUNT, TENANT_ID, make_book
from bench.ledger_pages import ARCHIVE, INTRODUCTION, QUESTIONS_PROSE
from mesh.database import TENANT_SETTING, Connection
from mesh.embedded.postgres import EmbeddedPostgres
from mesh.migrations import domains, migrate
from services.ledger.model.accounts import AccountType, Side
from services.ledger.model.postings import Kind
from services.ledger.model.reading import EntryFilter, Moment, Period, TransactionFilter
from services.ledger.repository import balances, branches, entries, positions, statements, transactions
from services.ledger.repository.accounts import find_account, list_accounts
from services.ledger.repository.journals import Journal, find_journal

PAGE = Path(__file__).resolve().parent.parent / "docs" / "ledger-queries.md"
PASSWORD = "bench-only"  # noqa: S105 - of a server that lives as long as this script
LIMIT = 50
AUGUST = datetime(2026, 8, 15, tzinfo=UTC)
OCTOBER = datetime(2026, 10, 20, tzinfo=UTC)
FIRST_PLACE = entries.EntryPlace()
LATER_PLACE = entries.EntryPlace(300_001, 150_000, OCTOBER)
_TENANT_FILTER = re.compile(
    r"\(\(tenant_id = current_setting\('kente.tenant'::text, true\)\) OR "
    r"\(current_setting\('kente.tenant'::text, true\) = '\*'::text\)\)"
)


_JOINED = {"accounts_pkey", "holds_pkey"}
_MONTH = re.compile(r"entries_20\d\d_\d\d")


def condensed(plan: str) -> str:
    """The plan with what it does to the first of several months, and how many more there are."""
    kept: list[str] = []
    seen: set[tuple[int, str]] = set()
    more = 0
    skipped_indent: int | None = None
    for line in plan.splitlines():
        text = line.lstrip()
        indent = len(line) - len(text)
        if skipped_indent is not None and indent > skipped_indent:
            continue
        skipped_indent = None
        node = indent, re.sub(r"\(actual.*|entries_\d+ ", "", _MONTH.sub("entries", text))
        if text.startswith("->") and _MONTH.search(text) and node in seen:
            skipped_indent = indent
            more += 1
            continue
        if more:
            kept.append(f"{' ' * (indent if text.startswith('->') else indent + 2)}    (the same for {more} more)")
            more = 0
        if text.startswith("->"):
            seen = {known for known in seen if known[0] <= indent} | ({node} if _MONTH.search(text) else set())
        if not text.startswith(("Index Searches", "Planning", "Storage:")):
            kept.append(line)
    return "\n".join(kept)


@dataclass
class Explaining:
    """A connection that also remembers the plan of each statement."""

    connection: asyncpg.Connection[Any]
    plans: list[str] = field(default_factory=list)

    async def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Rows, as a connection gives them."""
        await self._explain(query, arguments)
        return await self.connection.fetch(query, *arguments)

    async def fetchrow(self, query: str, *arguments: object) -> asyncpg.Record | None:
        """The first row, as a connection gives it."""
        await self._explain(query, arguments)
        return await self.connection.fetchrow(query, *arguments)

    async def fetchval(self, query: str, *arguments: object) -> object:
        """The first value, as a connection gives it."""
        await self._explain(query, arguments)
        return await self.connection.fetchval(query, *arguments)

    async def execute(self, query: str) -> str:
        """Runs a statement that has no plan."""
        return await self.connection.execute(query)

    async def _explain(self, query: str, arguments: tuple[object, ...]) -> None:
        explain = f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) {query}"
        await self.connection.fetch(explain, *arguments)
        rows = await self.connection.fetch(explain, *arguments)
        self.plans.append(_TENANT_FILTER.sub("of the tenant", "\n".join(row[0] for row in rows)))


@dataclass(frozen=True)
class Answer:
    """How one question was answered."""

    title: str
    plans: list[str]

    @property
    def milliseconds(self) -> float:
        """Time of all statements."""
        found = [re.search(r"Execution Time: ([0-9.]+) ms", plan) for plan in self.plans]
        return sum(float(match[1]) for match in found if match)

    @property
    def buffers(self) -> int:
        """Pages of 8 KiB that all statements looked at."""
        firsts = [re.search(r"Buffers: shared(?: hit=(\d+))?(?: read=(\d+))?", plan) for plan in self.plans]
        return sum(int(match[1] or 0) + int(match[2] or 0) for match in firsts if match)

    @property
    def indexes(self) -> list[str]:
        """Indexes that lead to rows, without the month, and tables that were read from end to end."""
        text = re.sub(r"entries_20\d\d_\d\d", "entries", "\n".join(self.plans))
        used = set(re.findall(r"using (\w+) on|Bitmap Index Scan on (\w+)", text))
        scanned = set(re.findall(r"Seq Scan on (entries|transactions|accounts)\b", text))
        names = {name for pair in used for name in pair if name} | {f"all of {name}" for name in scanned}
        # What only joins one row by its key leads to nothing.
        return sorted(name for name in names if name not in _JOINED and not name.startswith("books"))


Ask = Callable[[Connection], Awaitable[object]]


async def questions_of(connection: Connection) -> list[tuple[str, Ask]]:
    """What the service is asked, by the title under which the page tells of it."""
    journal = await find_journal(connection, TENANT_ID)
    if journal is None:
        raise SystemExit("the book that was made is not there")
    return [*await _balance_questions(connection, journal), *_list_questions(journal), *_other_questions(journal)]


async def _balance_questions(connection: Connection, journal: Journal) -> list[tuple[str, Ask]]:
    hot = await find_account(connection, TENANT_ID, "main", HOT_ACCOUNT)
    customer = await find_account(connection, TENANT_ID, "main", CUSTOMER)
    if hot is None or customer is None:
        raise SystemExit("the accounts that were made are not there")
    book = await list_accounts(connection, TENANT_ID, book_name="main", limit=10_000)
    keys = [account.account_key for account in book]
    hot_key, customer_key = hot.account_key, customer.account_key
    booked = await balances.cut_at(connection, journal, Moment(booking_time=AUGUST))
    effective = await balances.cut_at(connection, journal, Moment(effective_time=AUGUST))
    known = positions.position_of(journal)
    end = await balances.cut_of(connection, journal, known, AUGUST + timedelta(days=30))
    return [
        ("How far the journal had come by a time", lambda each: positions.position_at(each, journal, AUGUST)),
        ("Balance by booking time, hot account", lambda each: balances.find_balances(each, [hot], booked)),
        ("Balance by time of effect, hot account", lambda each: balances.find_balances(each, [hot], effective)),
        ("Balances by time of effect, 2,001 accounts", lambda each: balances.find_balances(each, book, effective)),
        ("Accounts with entries, 2,001 accounts", lambda each: balances.find_used(each, keys, effective)),
        ("Sums of both sides, hot account", lambda each: balances.find_sums(each, journal, [hot_key], booked)),
        (
            "Sums of both sides, one of the others",
            lambda each: balances.find_sums(each, journal, [customer_key], booked),
        ),
        ("What was held, hot account", lambda each: balances.find_held_sums(each, hot_key, booked)),
        (
            "Statement, a page, hot account",
            lambda each: statements.list_statement(each, hot_key, after=effective, until=end, limit=LIMIT),
        ),
        (
            "Statement, sums of 30 days, hot account",
            lambda each: statements.sum_statement(each, hot_key, after=effective, until=end),
        ),
    ]


def _list_questions(journal: Journal) -> list[tuple[str, Ask]]:
    def list_entries(after: entries.EntryPlace = FIRST_PLACE, **wanted: Any) -> Ask:  # noqa: ANN401 - of the filter
        return lambda each: entries.list_entries(each, journal, EntryFilter("main", **wanted), after=after, limit=LIMIT)

    def list_transactions(**wanted: Any) -> Ask:  # noqa: ANN401 - fields of the filter
        return lambda each: transactions.list_transactions(
            each, journal, TransactionFilter("main", **wanted), after_leaf_index=-1, limit=LIMIT
        )

    day = Period(AUGUST, AUGUST + timedelta(days=1))
    return [
        ("Entries, the first page", list_entries()),
        ("Entries of a day", list_entries(booked=day)),
        ("Entries of one account", list_entries(account_name=CUSTOMER)),
        ("Entries of the hot account, a late page", list_entries(LATER_PLACE, account_name=HOT_ACCOUNT)),
        ("Entries of 50 accounts by prefix", list_entries(account_name_prefix="income:")),
        ("Entries of 1,900 accounts by type", list_entries(account_type=AccountType.LIABILITY)),
        ("Entries of a source, a late page", list_entries(LATER_PLACE, source_id=BUSY_SOURCE)),
        ("Entries by side and amount", list_entries(side=Side.DEBIT, min_amount_minor=9_990)),
        ("Entries by metadata that few have", list_entries(metadata={"order": "150023"})),
        ("Entries by metadata that many have", list_entries(metadata={"channel": "web"})),
        ("Transactions, the first page", list_transactions()),
        ("Transactions of a day", list_transactions(booked=day)),
        ("Transactions of a source", list_transactions(source_id=BUSY_SOURCE)),
        ("Transactions of a rare kind", list_transactions(kind=Kind.REVERSAL)),
        ("Transactions by metadata", list_transactions(metadata={"order": "150023"})),
    ]


def _other_questions(journal: Journal) -> list[tuple[str, Ask]]:
    ids = [f"txn_{number:026}" for number in range(100_000, 100_050)]

    def list_branches(branch: str, depth: int) -> Ask:
        return lambda each: branches.list_branches(
            each, TENANT_ID, book_name="main", branch=branch, depth=depth, after=branches.BranchPlace(), limit=LIMIT
        )

    return [
        ("50 transactions by id", lambda each: transactions.find_transactions(each, TENANT_ID, ids)),
        (
            "The next 100 transactions of the stream",
            lambda each: transactions.list_journal(each, journal, from_leaf_index=150_000, limit=100),
        ),
        ("Balances now, rolled up", list_branches("", 2)),
        ("Balances now, a page of accounts", list_branches("liabilities", 0)),
    ]


async def explain(role_url: str) -> list[Answer]:
    """Asks all questions as the service's role, each in a transaction of its own."""
    connection = await asyncpg.connect(role_url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT set_config($1, $2, true)", TENANT_SETTING, TENANT_ID)
            questions = await questions_of(cast("Connection", connection))
        answers = []
        for title, ask in questions:
            async with connection.transaction():
                await connection.execute("SELECT set_config($1, $2, true)", TENANT_SETTING, TENANT_ID)
                explaining = Explaining(connection)
                await ask(cast("Connection", explaining))
            answers.append(Answer(title, explaining.plans))
    finally:
        await connection.close()
    return answers


async def detach(admin: asyncpg.Connection[Any]) -> tuple[str, float]:
    """Detaches the oldest month; gives its size, and the milliseconds it took."""
    size: str = await admin.fetchval("SELECT pg_size_pretty(pg_total_relation_size('entries_2026_06'))")
    begun = asyncio.get_running_loop().time()
    await admin.execute("ALTER TABLE entries DETACH PARTITION entries_2026_06 CONCURRENTLY")
    return size, (asyncio.get_running_loop().time() - begun) * 1000


def page_of(answers: list[Answer], before: Answer, after: Answer, detached: tuple[str, float], count: int) -> str:
    """The page."""
    lines = [INTRODUCTION.format(transactions=f"{count:,}", other=f"{count // 10:,}")]
    lines += ["| Question | Indexes | Pages of 8 KiB | ms |", "|---|---|---:|---:|"]
    for answer in answers:
        names = ", ".join(f"`{name}`" for name in answer.indexes)
        lines.append(f"| {answer.title} | {names} | {answer.buffers:,} | {answer.milliseconds:.2f} |")
    size, milliseconds = detached
    texts = {"before": _opened(before.plans[0]), "after": _opened(after.plans[0])}
    lines.append(ARCHIVE.format(size=size, milliseconds=f"{milliseconds:.0f}", **texts))
    lines.append("## Some of the plans\n")
    for answer in answers:
        if answer.title in QUESTIONS_PROSE:
            lines += [f"### {answer.title}\n", QUESTIONS_PROSE[answer.title] + "\n"]
            lines += [f"```\n{condensed(plan)}\n```\n" for plan in answer.plans]
    return "\n".join(lines).rstrip() + "\n"


def _opened(plan: str) -> str:
    """The part of a balance's plan that looks for the last entry of the account."""
    return plan.partition("\n  ->  Limit")[0]


async def run(admin_url: str, role_url: str, count: int) -> None:
    """Makes the book, asks, and writes the page."""
    await migrate(admin_url, dict.fromkeys(domains(), PASSWORD))
    admin = await asyncpg.connect(admin_url)
    try:
        await make_book(admin, count)
        answers = await explain(role_url)
        detached = await detach(admin)
        fewer = await explain(role_url)
    finally:
        await admin.close()
    pruned = next(number for number, answer in enumerate(answers) if answer.title.startswith("Balance by booking"))
    PAGE.write_text(page_of(answers, answers[pruned], fewer[pruned], detached, count))


def main() -> None:
    """Starts a server, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transactions", type=int, default=200_000)
    parser.add_argument("--port", type=int, default=17_432, help="a free port for the server")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kente-bench-") as folder:
        server = EmbeddedPostgres(Path(folder) / "postgres", arguments.port)
        server.start()
        try:
            asyncio.run(run(server.admin_url, server.url("kente_ledger", PASSWORD), arguments.transactions))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
