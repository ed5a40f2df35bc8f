"""What the mesh adds to a bare RPC, as ratios measured side by side.

    python -m bench [--seconds 3] [--callers 64]

One server and its callers share this process, so the rates are low; only the ratios mean something. The bare RPC is
the health check of the same server: gRPC and nothing else. PostgreSQL writes durably.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from kente.common.v1.money_pb2 import Money
from kente.ledger.v1 import ledger_pb2, ledger_service_pb2, ledger_service_pb2_grpc
from rich.console import Console
from rich.table import Table

from mesh.ids import derive_uuid, new_id
from mesh.logs import configure_logs
from tests.harness import Infrastructure, TestMesh, start_infrastructure

SCOPES = ["ledger:read", "ledger:write"]
# Above any rate that this can reach, so that the limit is not what is measured.
UNLIMITED = {"read_rate_per_second": 1_000_000, "write_rate_per_second": 1_000_000}
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Measured:
    """One kind of call.

    Attributes:
        rates: calls a second, a number a round.
        latencies: seconds, of all rounds.
    """

    name: str
    rates: list[float]
    latencies: list[float]


async def measure(call: Callable[[], Awaitable[object]], callers: int, seconds: float) -> tuple[float, list[float]]:
    """Calls from so many callers at once, each after its last answer."""
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def caller() -> None:
        while (begun := time.perf_counter()) < end:
            await call()
            latencies.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return len(latencies) / (time.perf_counter() - begun), latencies


async def calls_of(mesh: TestMesh) -> dict[str, Callable[[], Awaitable[object]]]:
    """The calls to compare, the bare one first."""
    tenant_id = new_id("ten")
    channel = mesh.client("ledger", tenant_id, SCOPES)
    ledger = ledger_service_pb2_grpc.LedgerServiceStub(channel)
    health = health_pb2_grpc.HealthStub(channel)
    kinds = {"assets:bench": ledger_pb2.Account.TYPE_ASSET, "liabilities:bench": ledger_pb2.Account.TYPE_LIABILITY}
    for name, kind in kinds.items():
        await ledger.CreateAccount(
            ledger_service_pb2.CreateAccountRequest(
                request_id=derive_uuid(tenant_id, name), account_name=name, type=kind, currency="GHS"
            )
        )

    def post() -> Awaitable[object]:
        transaction_id = new_id("txn")
        legs = [
            ledger_pb2.Leg(account_name=name, side=side, amount=Money(amount_minor=100, currency="GHS"))
            for name, side in zip(kinds, (ledger_pb2.SIDE_DEBIT, ledger_pb2.SIDE_CREDIT), strict=True)
        ]
        request = ledger_service_pb2.CreateTransactionRequest(
            request_id=derive_uuid(transaction_id), transaction_id=transaction_id, legs=legs
        )
        return ledger.CreateTransaction(request)

    check = health_pb2.HealthCheckRequest()
    balance = ledger_service_pb2.GetBalanceRequest(account_name="assets:bench")
    # gRPC's own stubs are typed as for the synchronous client.
    return {
        "bare RPC (health check)": lambda: health.Check(check),  # type: ignore[attr-defined]  # the stub has no types
        "read of one row, all concerns": lambda: ledger.GetBalance(balance),
        "durable posting, all concerns": post,
    }


async def run(infrastructure: Infrastructure, callers: int, seconds: float) -> list[Measured]:
    """Measures all kinds in turn, round by round, so that drift of the machine falls on all of them."""
    mesh = TestMesh(infrastructure)
    try:
        await mesh.start("ledger", UNLIMITED)
        calls = await calls_of(mesh)
        results = {name: Measured(name, [], []) for name in calls}
        for _ in range(ROUNDS):
            for name, call in calls.items():
                rate, latencies = await measure(call, callers, seconds)
                results[name].rates.append(rate)
                results[name].latencies.extend(latencies)
        return list(results.values())
    finally:
        await mesh.close()


def table_of(results: list[Measured], callers: int) -> Table:
    """Rates and their ratio to the bare call's."""
    table = Table(title=f"{callers} callers, median of {ROUNDS} rounds")
    for column in ("call", "a second", "of bare", "p50 ms", "p99 ms"):
        table.add_column(column, justify="left" if column == "call" else "right")
    bare = statistics.median(results[0].rates)
    for result in results:
        rate = statistics.median(result.rates)
        cuts = statistics.quantiles(result.latencies, n=100)
        numbers = [f"{rate:,.0f}", f"{rate / bare:.2f}", f"{cuts[49] * 1000:.1f}", f"{cuts[98] * 1000:.1f}"]
        table.add_row(result.name, *numbers)
    return table


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one round of one call")
    parser.add_argument("--callers", type=int, default=64)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kente-bench-") as folder:
        infrastructure = start_infrastructure(Path(folder))
        configure_logs(infrastructure.settings("ledger", log_level="WARNING"), "bench")
        try:
            results = uvloop.run(run(infrastructure, arguments.callers, arguments.seconds))
        finally:
            infrastructure.nats.stop()
            infrastructure.postgres.stop()
    Console().print(table_of(results, arguments.callers))


if __name__ == "__main__":
    main()
