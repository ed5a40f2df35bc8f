"""The processes that are measured: PostgreSQL, NATS, the ledger as it runs for real, and the baseline service."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import psutil
from grpc_health.v1 import health_pb2
from kente.ledger.v1 import ledger_pb2, ledger_service_pb2

from bench.ledger import for_update
from bench.ledger.traffic import CURRENCY, account_name
from mesh.embedded.child import spawn
from mesh.ids import derive_uuid
from tests.harness import Infrastructure, free_ports

SCOPES = ("ledger:read", "ledger:write")
# Sized for a server that does this one thing. Durability stays as it is.
POSTGRES_OPTIONS = {
    "shared_buffers": "512MB",
    "min_wal_size": "2GB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
}
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}

_TOKEN_SECONDS = 24 * 3600
_START_SECONDS = 30.0
_STOP_SECONDS = 15.0
_PUBLISH_SECONDS = 300.0
_POLL_SECONDS = 0.1
_ACCOUNTS_A_CALL = 1000
_FSYNC_SECONDS = 1.0
# As many as min_wal_size holds.
_WAL_SEGMENTS = 128


@dataclass(frozen=True, slots=True)
class Client:
    """Calls of one tenant to one server, over several connections in turn."""

    channels: Sequence[grpc.aio.Channel]
    metadata: tuple[tuple[str, str], ...]

    def rpc(
        self, method: str, response: Callable[[bytes], Any], timeout_seconds: float = 60.0
    ) -> Callable[[Any], grpc.aio.UnaryUnaryCall[Any, Any]]:
        """A method by its full name. Calling it begins a call."""
        callables: list[grpc.aio.UnaryUnaryMultiCallable[Any, Any]] = [
            channel.unary_unary(
                method, request_serializer=lambda request: request.SerializeToString(), response_deserializer=response
            )
            for channel in self.channels
        ]
        turn = 0

        def call(request: Any) -> grpc.aio.UnaryUnaryCall[Any, Any]:  # noqa: ANN401 - of any RPC
            nonlocal turn
            turn = (turn + 1) % len(callables)
            return callables[turn](request, timeout=timeout_seconds, metadata=self.metadata)

        return call

    def health(self) -> Callable[[], grpc.aio.UnaryUnaryCall[Any, Any]]:
        """The empty RPC of a server: gRPC and nothing else."""
        check = self.rpc("/grpc.health.v1.Health/Check", health_pb2.HealthCheckResponse.FromString)
        request = health_pb2.HealthCheckRequest()
        return lambda: check(request)

    async def create_accounts(self, count: int) -> None:
        """Makes the accounts that traffic moves money between."""
        create = self.rpc(
            "/kente.ledger.v1.LedgerService/BatchCreateAccounts",
            ledger_service_pb2.BatchCreateAccountsResponse.FromString,
        )
        for first in range(0, count, _ACCOUNTS_A_CALL):
            drafts = [
                ledger_service_pb2.AccountDraft(
                    account_name=account_name(number), type=ledger_pb2.Account.TYPE_LIABILITY, currency=CURRENCY
                )
                for number in range(first, min(first + _ACCOUNTS_A_CALL, count))
            ]
            request_id = derive_uuid("bench accounts", str(self.metadata), str(first))
            await create(ledger_service_pb2.BatchCreateAccountsRequest(request_id=request_id, accounts=drafts))


@asynccontextmanager
async def open_client(port: int, channel_count: int, token: str = "") -> AsyncIterator[Client]:
    """A client with connections of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) for _ in range(channel_count)]
    try:
        yield Client(channels, (("authorization", f"Bearer {token}"),) if token else ())
    finally:
        for channel in channels:
            await channel.close()


def client_token(infrastructure: Infrastructure, tenant_id: str) -> str:
    """An access token as the identity service gives it."""
    return infrastructure.identity("identity").access_token("key_bench", tenant_id, SCOPES, _TOKEN_SECONDS)


@contextmanager
def running(
    module: str, arguments: Sequence[str], environment: dict[str, str], log_file: Path
) -> Iterator[psutil.Process]:
    """A process of Python for as long as the block runs."""
    with log_file.open("ab") as output:
        process = spawn(
            [sys.executable, "-P", "-m", module, *arguments],
            environment,
            output,
            death_signal=signal.SIGTERM,
            account=None,
            folder=str(Path.cwd()),
        )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ledger_environment(infrastructure: Infrastructure, port: int, workers: int) -> dict[str, str]:
    """What the ledger's process is told: what `kente up` tells it, without traces, and without limits of rates."""
    settings = infrastructure.settings("ledger")
    return _python_environment() | {
        "MALLOC_ARENA_MAX": "2",
        "KENTE_DATABASE_URL": settings.database_url.get_secret_value(),
        "KENTE_NATS_URL": settings.nats_url,
        "KENTE_REQUEST_HASH_KEY": settings.request_hash_key.get_secret_value(),
        "KENTE_IDENTITY_FILE": str(settings.identity_file),
        "KENTE_TRUST_BUNDLE_FILE": str(settings.trust_bundle_file),
        "KENTE_LEDGER_CHECKPOINT_KEY_FILE": str(infrastructure.checkpoint_key_file),
        "KENTE_LEDGER_PORT": str(port),
        "KENTE_LEDGER_METRICS_PORT": "0",
        "KENTE_LEDGER_WORKERS": str(workers),
        "KENTE_READ_RATE_PER_SECOND": "1000000",
        "KENTE_WRITE_RATE_PER_SECOND": "1000000",
    }


def _python_environment() -> dict[str, str]:
    return {
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join(str(Path(part).resolve()) for part in (".", "gen/python")),
    }


@contextmanager
def ledger(infrastructure: Infrastructure, workers: int) -> Iterator[tuple[psutil.Process, int]]:
    """The ledger service, and its port."""
    port = infrastructure.ports["ledger"]
    environment = ledger_environment(infrastructure, port, workers)
    with running("services.ledger", (), environment, infrastructure.folder / "ledger.log") as process:
        yield process, port


@contextmanager
def for_update_service(infrastructure: Infrastructure) -> Iterator[tuple[psutil.Process, int]]:
    """The baseline service, and its port."""
    (port,) = free_ports(1)
    arguments = (str(port), infrastructure.postgres.admin_url)
    log_file = infrastructure.folder / "for_update.log"
    with running("bench.ledger.for_update", arguments, _python_environment(), log_file) as process:
        yield process, port


async def create_for_update(admin_url: str, account_count: int) -> None:
    """Makes the baseline's tables and accounts."""
    connection = await asyncpg.connect(admin_url)
    try:
        await connection.execute(for_update.SCHEMA)
        names = [account_name(number) for number in range(account_count)]
        await connection.execute(
            "INSERT INTO accounts (account_name, currency) SELECT unnest($1::text[]), $2", names, CURRENCY
        )
        await connection.execute("VACUUM ANALYZE accounts")
    finally:
        await connection.close()


async def wait_published(admin_url: str) -> None:
    """Returns when the ledger has published all events: what it is still doing would be measured too.

    Raises:
        SystemExit: not in time.
    """
    connection = await asyncpg.connect(admin_url)
    try:
        deadline = time.monotonic() + _PUBLISH_SECONDS
        while await connection.fetchval("SELECT EXISTS (SELECT FROM ledger.outbox)"):
            if time.monotonic() > deadline:
                raise SystemExit("the ledger did not publish its events; its log is in the folder given by --keep")
            await asyncio.sleep(_POLL_SECONDS)
    finally:
        await connection.close()


async def wait_ready(channel: grpc.aio.Channel, method: str | None = None) -> None:
    """Returns when a server answers: that it serves, or, where it knows no health, a call of a method at all.

    Raises:
        SystemExit: not in time.
    """
    deadline = time.monotonic() + _START_SECONDS
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
        method or "/grpc.health.v1.Health/Check", response_deserializer=None
    )
    while True:
        try:
            answer = await call(b"", timeout=1.0)
            if health_pb2.HealthCheckResponse.FromString(answer).status == health_pb2.HealthCheckResponse.SERVING:
                return
        except grpc.aio.AioRpcError as error:
            if method is not None and error.code() is not grpc.StatusCode.UNAVAILABLE:
                return
        if time.monotonic() > deadline:
            raise SystemExit("a server did not start; its log is in the folder given by --keep")
        await asyncio.sleep(_POLL_SECONDS)


async def durability(admin_url: str) -> dict[str, str]:
    """What the server says of its durability, and its version.

    Raises:
        SystemExit: it is not durable, so that nothing measured would be worth anything.
    """
    connection = await asyncpg.connect(admin_url)
    try:
        found = {name: await connection.fetchval(f"SHOW {name}") for name in (*DURABLE, *POSTGRES_OPTIONS)}
        found["server_version"] = await connection.fetchval("SHOW server_version")
    finally:
        await connection.close()
    if any(found[name] != value for name, value in DURABLE.items()):
        raise SystemExit(f"PostgreSQL is not durable: {found}")
    return found


async def lay_in_log(admin_url: str) -> None:
    """Has the server make the segments of its log that the run will write to.

    A server that has run for a while takes old ones again. A new server makes each anew, and every commit waits
    meanwhile.
    """
    connection = await asyncpg.connect(admin_url)
    try:
        for _ in range(_WAL_SEGMENTS):
            # A segment that nothing was written to is not left.
            await connection.execute("SELECT pg_logical_emit_message(false, 'bench', '')")
            await connection.execute("SELECT pg_switch_wal()")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


def machine_facts(folder: Path) -> dict[str, str]:
    """What the numbers depend on, without names of the machine or of its folders."""
    model = "unknown"
    with Path("/proc/cpuinfo").open() as lines:
        for line in lines:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {
        "processor": model,
        "processors": str(len(os.sched_getaffinity(0))),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "grpc": grpc.__version__,
        "fdatasync of 8 KiB": f"{_fsync_seconds(folder) * 1e6:.0f} us",
    }


def _fsync_seconds(folder: Path) -> float:
    """How long it takes to bring a page to the disk that the database lies on."""
    path = folder / "fsync"
    page = bytes(8192)
    count = 0
    with path.open("wb", buffering=0) as file:
        begun = time.perf_counter()
        while time.perf_counter() < begun + _FSYNC_SECONDS:
            file.seek(0)
            file.write(page)
            os.fdatasync(file.fileno())
            count += 1
        seconds = (time.perf_counter() - begun) / count
    path.unlink()
    return seconds
