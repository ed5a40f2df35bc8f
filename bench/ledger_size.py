"""How much room the ledger's rows take: the figures of docs/ledger-size.md.

    python -m bench.ledger_size [--postings 20000] [--batches 10]

Books through the service, first single postings by 64 callers, then batches of 4,096 transfers, and tells what each
added to the tables and indexes, in bytes a transaction.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import asyncpg
from kente.common.v1.money_pb2 import Money
from kente.ledger.v1 import ledger_pb2, ledger_service_pb2, ledger_service_pb2_grpc
from rich.console import Console
from rich.table import Table

from mesh.ids import derive_uuid, new_id
from mesh.logs import configure_logs
from tests.harness import Infrastructure, TestMesh, start_infrastructure

SCOPES = ["ledger:read", "ledger:write"]
UNLIMITED = {"read_rate_per_second": 1_000_000, "write_rate_per_second": 1_000_000}
ACCOUNTS = 1_000
CALLERS = 64
BATCH = 4_096
# Partitions count as their table. The outbox is emptied once its events are sent, so it does not grow.
_SIZES = """
    SELECT coalesce(parent.relname, class.relname) AS name, sum(pg_table_size(class.oid))::bigint AS table_bytes,
           sum(pg_indexes_size(class.oid))::bigint AS index_bytes
    FROM pg_class AS class
    LEFT JOIN pg_inherits ON inhrelid = class.oid
    LEFT JOIN pg_class AS parent ON parent.oid = inhparent
    WHERE class.relnamespace = 'ledger'::regnamespace AND class.relkind = 'r'
    GROUP BY 1
"""
_INDEXES = """
    SELECT coalesce(parent.relname, class.relname) AS name, sum(pg_relation_size(class.oid))::bigint AS index_bytes
    FROM pg_class AS class
    LEFT JOIN pg_inherits ON inhrelid = class.oid
    LEFT JOIN pg_class AS parent ON parent.oid = inhparent
    WHERE class.relnamespace = 'ledger'::regnamespace AND class.relkind = 'i'
    GROUP BY 1
"""
Sizes = dict[str, tuple[int, int]]


async def sizes_of(admin: asyncpg.Connection[asyncpg.Record]) -> Sizes:
    """Bytes of each table and of its indexes, and of each index."""
    await admin.execute("VACUUM")
    sizes: Sizes = {row["name"]: (row["table_bytes"], row["index_bytes"]) for row in await admin.fetch(_SIZES)}
    return sizes | {row["name"]: (0, row["index_bytes"]) for row in await admin.fetch(_INDEXES)}


class Booker:
    """One tenant who books."""

    def __init__(self, mesh: TestMesh) -> None:
        tenant_id = new_id("ten")
        self.stub = ledger_service_pb2_grpc.LedgerServiceStub(mesh.client("ledger", tenant_id, SCOPES))
        self.names = [f"liabilities:customers:{number:04}" for number in range(ACCOUNTS)]
        self.chance = Random(1)

    async def open(self) -> None:
        """Creates the accounts."""
        drafts = [
            ledger_service_pb2.AccountDraft(account_name=name, type=ledger_pb2.Account.TYPE_LIABILITY, currency="GHS")
            for name in self.names
        ]
        request = ledger_service_pb2.BatchCreateAccountsRequest(request_id=derive_uuid("accounts"), accounts=drafts)
        await self.stub.BatchCreateAccounts(request)

    async def post(self) -> None:
        """Posts one transaction of two legs, as a payment makes it."""
        debited, credited = self.chance.sample(self.names, 2)
        transaction_id = new_id("txn")
        amount = Money(amount_minor=self.chance.randint(1, 10_000), currency="GHS")
        legs = [
            ledger_pb2.Leg(account_name=debited, side=ledger_pb2.SIDE_DEBIT, amount=amount),
            ledger_pb2.Leg(account_name=credited, side=ledger_pb2.SIDE_CREDIT, amount=amount),
        ]
        await self.stub.CreateTransaction(
            ledger_service_pb2.CreateTransactionRequest(
                request_id=derive_uuid(transaction_id),
                transaction_id=transaction_id,
                legs=legs,
                description="Payment captured",
                source_id=new_id("pay"),
            )
        )

    async def transfer(self) -> None:
        """Books one batch of transfers."""
        transfers = []
        for _ in range(BATCH):
            debited, credited = self.chance.sample(self.names, 2)
            amount = Money(amount_minor=self.chance.randint(1, 10_000), currency="GHS")
            transfers.append(
                ledger_pb2.Transfer(
                    transaction_id=new_id("txn"),
                    debit_account_name=debited,
                    credit_account_name=credited,
                    amount=amount,
                    source_id=new_id("pay"),
                )
            )
        request_id = derive_uuid(transfers[0].transaction_id)
        await self.stub.CreateTransfers(
            ledger_service_pb2.CreateTransfersRequest(request_id=request_id, transfers=transfers)
        )


async def many(call: Callable[[], Awaitable[None]], count: int, callers: int) -> None:
    """Calls so many times, from so many callers at once."""

    async def caller(calls: int) -> None:
        for _ in range(calls):
            await call()

    await asyncio.gather(*(caller(count // callers) for _ in range(callers)))


def table_of(title: str, before: Sizes, after: Sizes, transactions: int) -> Table:
    """What was added, in bytes a transaction."""
    table = Table(title=f"{title}: bytes a transaction")
    for column in ("table or index", "rows", "indexes"):
        table.add_column(column, justify="left" if column == "table or index" else "right")
    total = [0.0, 0.0]
    for name in sorted(after):
        old = before.get(name, (0, 0))
        grown = [(after[name][part] - old[part]) / transactions for part in (0, 1)]
        if max(grown) >= 1:
            table.add_row(name, f"{grown[0]:,.0f}" if grown[0] else "", f"{grown[1]:,.0f}")
        if name in before and after[name][0]:
            total = [total[part] + grown[part] for part in (0, 1)]
    table.add_row("all tables", f"{total[0]:,.0f}", f"{total[1]:,.0f}")
    return table


async def run(infrastructure: Infrastructure, postings: int, batches: int) -> list[Table]:
    """Books and measures."""
    mesh = TestMesh(infrastructure)
    admin = await asyncpg.connect(infrastructure.postgres.admin_url)
    try:
        await mesh.start("ledger", UNLIMITED)
        booker = Booker(mesh)
        await booker.open()
        await booker.post()
        before = await sizes_of(admin)
        await many(booker.post, postings, CALLERS)
        between = await sizes_of(admin)
        await many(booker.transfer, batches, 1)
        after = await sizes_of(admin)
    finally:
        await admin.close()
        await mesh.close()
    return [
        table_of(f"{postings:,} single postings", before, between, postings // CALLERS * CALLERS),
        table_of(f"{batches} batches of {BATCH:,} transfers", between, after, batches * BATCH),
    ]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postings", type=int, default=20_000)
    parser.add_argument("--batches", type=int, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kente-bench-") as folder:
        infrastructure = start_infrastructure(Path(folder))
        configure_logs(infrastructure.settings("ledger", log_level="WARNING"), "bench")
        try:
            tables = asyncio.run(run(infrastructure, arguments.postings, arguments.batches))
        finally:
            infrastructure.nats.stop()
            infrastructure.postgres.stop()
    for table in tables:
        Console(width=100).print(table)


if __name__ == "__main__":
    main()
