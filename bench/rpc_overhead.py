"""What the interceptors add to one RPC, against bare grpc.aio with the same messages, client and handler.

    python -m bench.rpc_overhead [--seconds 2]

One caller, one call after the other: the difference of the medians is what a call pays. The handler does nothing, so
the write shows what the stored answer and the audit row cost: four durable transactions.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import uvloop
from kente.ledger.v1.ledger_service_pb2 import (
    CreateAccountRequest,
    CreateAccountResponse,
    GetAccountRequest,
    GetAccountResponse,
)
from kente.ledger.v1.ledger_service_pb2_grpc import (
    LedgerServiceServicer,
    LedgerServiceStub,
    add_LedgerServiceServicer_to_server,
)
from rich.console import Console
from rich.table import Table

from mesh.ids import new_id
from mesh.logs import configure_logs
from mesh.telemetry import configure_telemetry
from tests.harness import Infrastructure, start_infrastructure
from tests.mesh.probe import SCOPES, Probe, create_request

READ = GetAccountRequest(account_name="assets:bank")
ROUNDS = 5


class Handlers(LedgerServiceServicer):
    """Answers at once."""

    async def GetAccount(self, _request: GetAccountRequest, _context: object) -> GetAccountResponse:  # noqa: N802 - as the contract names it
        """A read."""
        return GetAccountResponse()

    async def CreateAccount(self, _request: CreateAccountRequest, _context: object) -> CreateAccountResponse:  # noqa: N802 - as the contract names it
        """A write."""
        return CreateAccountResponse()


async def seconds_of(call: Callable[[], Awaitable[object]], seconds: float) -> list[float]:
    """How long each call took, in seconds."""
    found: list[float] = []
    end = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        await call()
        found.append(time.perf_counter() - begun)
    return found


async def run(infrastructure: Infrastructure, seconds: float) -> dict[str, list[float]]:
    """Measures bare and whole calls in turn, so that drift of the machine falls on both."""
    handlers, probe = Handlers(), Probe()  # type: ignore[abstract]  # its other RPCs are not called
    probe.handlers |= {"GetAccount": handlers.GetAccount, "CreateAccount": handlers.CreateAccount}
    service = await probe.start(infrastructure)
    bare = grpc.aio.server()
    add_LedgerServiceServicer_to_server(handlers, bare)
    port = bare.add_insecure_port("127.0.0.1:0")
    await bare.start()
    token = infrastructure.identity("identity").access_token(new_id("key"), new_id("ten"), SCOPES, 3600)
    metadata = (("authorization", f"Bearer {token}"),)
    async with (
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as to_bare,
        grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as to_mesh,
    ):
        plain, whole = LedgerServiceStub(to_bare), LedgerServiceStub(to_mesh)
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "bare": lambda: plain.GetAccount(READ, timeout=10, metadata=metadata),
            "read": lambda: whole.GetAccount(READ, timeout=10, metadata=metadata),
            "write": lambda: whole.CreateAccount(create_request(), timeout=10, metadata=metadata),
        }
        found: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(ROUNDS):
            for name, call in calls.items():
                found[name] += await seconds_of(call, seconds / ROUNDS)
    await bare.stop(0)
    await service.stop()
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each kind of call")
    seconds: float = parser.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="kente-bench-") as folder:
        infrastructure = start_infrastructure(Path(folder))
        settings = infrastructure.settings("ledger", log_level="WARNING")
        configure_logs(settings, "bench")
        configure_telemetry(settings, "bench")
        try:
            found = uvloop.run(run(infrastructure, seconds))
        finally:
            infrastructure.nats.stop()
            infrastructure.postgres.stop()
    table = Table(title="One caller, medians")
    for column in ("call", "microseconds", "more than bare", "times bare"):
        table.add_column(column, justify="left" if column == "call" else "right")
    bare = statistics.median(found["bare"])
    for name, title in {
        "bare": "bare grpc.aio",
        "read": "read through all interceptors",
        "write": "write, answer stored and audited",
    }.items():
        median = statistics.median(found[name])
        row = (f"{median * 1e6:,.0f}", f"{(median - bare) * 1e6:,.0f}", f"{median / bare:.1f}")
        table.add_row(title, *row)
    Console().print(table)


if __name__ == "__main__":
    main()
