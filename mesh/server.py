"""Runs one domain service: gRPC server, background work, and an admin port.

A service says what it is by a Service value; everything else is the same for all of them. With several workers, the
first process only starts and watches the others, which share the port.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, Generic, cast

import grpc
import nats.errors
import structlog
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection
from typing_extensions import TypeVar

from mesh.admin import AdminServer
from mesh.bus import Consumer, ConsumerRunner, connect, ensure_stream
from mesh.channel import open_channel
from mesh.database import Database
from mesh.embedded.child import launch_command
from mesh.interceptors.audit import AuditLog
from mesh.interceptors.authentication import Authentication
from mesh.interceptors.authorisation import authorisation
from mesh.interceptors.chain import Concern, ConcernChain
from mesh.interceptors.deadline import Deadline
from mesh.interceptors.errors import errors, errors_to_status
from mesh.interceptors.idempotency import StoredAnswers
from mesh.interceptors.rate_limit import RateLimit
from mesh.interceptors.telemetry import telemetry
from mesh.interceptors.validation import validation
from mesh.jobs import JobHandler, JobRunner
from mesh.logs import configure_logs
from mesh.outbox import OutboxRelay
from mesh.policies import Method, methods_of
from mesh.retention import Retention
from mesh.settings import MeshSettings, ServiceSettings, load
from mesh.telemetry import configure_telemetry
from mesh.tokens import Identity, TrustBundle

log = structlog.get_logger()

OwnSettings = TypeVar("OwnSettings", bound=ServiceSettings, default=ServiceSettings)

_MESSAGE_BYTES = 4 * 1024 * 1024
_CONNECTION_AGE_MILLISECONDS = 600_000
_HEALTH_SECONDS = 1.0
_HASH_KEY_CHARACTERS = 32
_CLOSE_SECONDS = 2.0
_PENDING_CALLS = 16_384
# How many more objects than were freed are made before the young ones are looked through.
_GARBAGE_OBJECTS = 10_000
# Environment variable with the number of a worker process. The first serves the admin port for all.
_WORKER = "KENTE_WORKER"
_FIRST_WORKER = "0"


@dataclass(frozen=True, slots=True)
class Servicer:
    """One gRPC service to serve: its full name, the generated function that adds it, and what implements it."""

    name: str
    add: Callable[[Any, Any], None]
    implementation: object


@dataclass(frozen=True, slots=True)
class Wiring:
    """What a service is made of.

    Attributes:
        jobs: handlers by the name that jobs are enqueued under.
        background: coroutine functions that run as long as the process; they must wait out faults by themselves.
        close: coroutine functions that free what was opened, called last.
    """

    servicers: Sequence[Servicer]
    jobs: Mapping[str, JobHandler] = field(default_factory=dict)
    consumers: Sequence[Consumer] = ()
    background: Sequence[Callable[[], Coroutine[Any, Any, None]]] = ()
    close: Sequence[Callable[[], Awaitable[None]]] = ()


@dataclass(frozen=True, slots=True)
class Runtime(Generic[OwnSettings]):
    """What the mesh gives to a service when it is wired: settings of its own and of the mesh, and what is shared."""

    name: str
    settings: OwnSettings
    mesh: MeshSettings
    database: Database
    identity: Identity
    bundle: TrustBundle

    def channel(self, service: str) -> grpc.aio.Channel:
        """A channel to another service, in this service's name."""
        return open_channel(service, self.mesh, self.identity)


Build = Callable[[Runtime[OwnSettings]], Awaitable[Wiring]]


class Service(Generic[OwnSettings]):
    """One running service in this process."""

    def __init__(self, name: str, mesh: MeshSettings, settings: OwnSettings, build: Build[OwnSettings]) -> None:
        self.name = name
        self.mesh = mesh
        self.settings = settings
        self.port = settings.port
        self.metrics_port = settings.metrics_port
        # Set when background work ended, which it never should: this process is to end too.
        self.failed = asyncio.Event()
        self._build = build
        self._opened = AsyncExitStack()
        self._jobs: JobRunner | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._draining = False

    async def start(self) -> None:
        """Opens everything and serves.

        Raises:
            SystemExit: something that it needs is missing; one line says what to do.
        """
        try:
            await self._start()
        except BaseException:
            await self._opened.aclose()
            raise

    async def _start(self) -> None:
        mesh = self.mesh
        if mesh.identity_file is None or mesh.trust_bundle_file is None:
            raise SystemExit("KENTE_IDENTITY_FILE and KENTE_TRUST_BUNDLE_FILE must be set; `kente up` makes the files")
        if len(mesh.request_hash_key.get_secret_value()) < _HASH_KEY_CHARACTERS:
            raise SystemExit(
                f"KENTE_REQUEST_HASH_KEY must have {_HASH_KEY_CHARACTERS} characters: openssl rand -hex 32"
            )
        self._database = await Database.connect(
            mesh.database_url.get_secret_value(),
            pool_size=self.settings.database_pool_size,
            application_name=f"kente-{self.name}",
        )
        self._opened.push_async_callback(self._database.close)
        self._nats = await connect(mesh.nats_url, f"kente-{self.name}")
        self._opened.push_async_callback(self._close_nats)
        self._jetstream = self._nats.jetstream(timeout=5)
        await ensure_stream(self._jetstream, mesh.nats_replicas)
        bundle = TrustBundle(mesh.trust_bundle_file)
        runtime = Runtime(self.name, self.settings, mesh, self._database, Identity.load(mesh.identity_file), bundle)
        self._wiring = await self._build(runtime)
        for close in reversed(self._wiring.close):
            self._opened.push_async_callback(close)
        self._methods = methods_of(servicer.name for servicer in self._wiring.servicers)
        if os.environ.get(_WORKER, _FIRST_WORKER) == _FIRST_WORKER:
            await self._start_admin()
        await self._start_grpc(bundle)
        self._start_background()
        log.info("service_started", service=self.name, port=self.port)

    async def _close_nats(self) -> None:
        # What was published last is still to be sent; but a server that is away holds up no one.
        with suppress(nats.errors.Error, TimeoutError, OSError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                if self._nats.is_connected:
                    await self._nats.flush()
        await self._nats.close()

    async def _start_admin(self) -> None:
        admin = AdminServer(
            self.mesh.host,
            self.settings.metrics_port,
            self._database.is_reachable,
            setting=f"KENTE_{self.name.upper()}_METRICS_PORT",
        )
        await admin.start()
        self.metrics_port = admin.port
        self._opened.push_async_callback(admin.stop)

    async def _start_grpc(self, bundle: TrustBundle) -> None:
        chain = ConcernChain(concerns(self.mesh, self._database, bundle), self._methods)
        self._server = grpc.aio.server(
            handlers=[chain],
            options=[
                ("grpc.so_reuseport", 1 if self.settings.workers > 1 else 0),
                ("grpc.max_receive_message_length", _MESSAGE_BYTES),
                # Of calls that wait to be taken, gRPC drops those beyond a number, without a reason for the caller.
                # Handlers that have too much to do say so themselves.
                ("grpc.server.max_pending_requests", _PENDING_CALLS),
                ("grpc.server.max_pending_requests_hard_limit", 2 * _PENDING_CALLS),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                # Clients reconnect now and then, so that several workers share their load.
                ("grpc.max_connection_age_ms", _CONNECTION_AGE_MILLISECONDS),
            ],
        )
        self._health = health_aio.HealthServicer()
        # Generated code needs of a server only that handlers can be added.
        handlers = cast("grpc.aio.Server", chain)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, handlers)
        names = [servicer.name for servicer in self._wiring.servicers]
        for servicer in self._wiring.servicers:
            servicer.add(servicer.implementation, handlers)
        reflection.enable_server_reflection(
            [*names, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME], handlers
        )
        try:
            # gRPC itself says it in lines of its own. Workers may share the port with each other, and with nobody else.
            socket.create_server((self.mesh.host, self.settings.port), reuse_port=self.settings.workers > 1).close()
            self.port = self._server.add_insecure_port(f"{self.mesh.host}:{self.settings.port}")
        except (OSError, RuntimeError):
            name = f"KENTE_{self.name.upper()}_PORT"
            raise SystemExit(f"{name}: port {self.settings.port} is taken; stop what uses it, or set another") from None
        await self._report_health(serving=True)
        await self._server.start()

    def _start_background(self) -> None:
        mesh, database = self.mesh, self._database
        coroutines = [
            OutboxRelay(database, self._nats, self.name).run(),
            Retention(database).run(),
            self._watch_health(),
        ]
        if self._wiring.jobs:
            self._jobs = JobRunner(
                database,
                self.name,
                self._wiring.jobs,
                max_attempts=mesh.job_max_attempts,
                heartbeat_seconds=mesh.job_heartbeat_seconds,
            )
            coroutines.append(self._jobs.run())
        coroutines.extend(
            ConsumerRunner(database, self._jetstream, consumer, max_deliveries=mesh.event_max_deliveries).run()
            for consumer in self._wiring.consumers
        )
        coroutines.extend(make() for make in self._wiring.background)
        self._tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
        for task in self._tasks:
            task.add_done_callback(self._background_ended)

    def _background_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self._draining:
            return
        # Without its background work a service would take money and never finish it: let the supervisor start it anew.
        log.critical("background_work_ended", service=self.name, exc_info=task.exception())
        self.failed.set()

    async def _watch_health(self) -> None:
        while True:
            await asyncio.sleep(_HEALTH_SECONDS)
            await self._report_health(serving=await self._database.is_reachable())

    async def _report_health(self, *, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *(servicer.name for servicer in self._wiring.servicers)):
            await self._health.set(name, status)

    async def stop(self) -> None:
        """Takes no more calls, lets those under way end, and closes everything."""
        self._draining = True
        await self._health.enter_graceful_shutdown()
        await asyncio.gather(self._server.stop(self.mesh.drain_seconds), self._stop_background())
        await self._opened.aclose()
        log.info("service_stopped", service=self.name)

    async def _stop_background(self) -> None:
        for task in self._tasks:
            task.cancel()
        # Jobs that run may end too; those that take longer go back to the queue.
        _, pending = await asyncio.wait(self._tasks, timeout=self.mesh.drain_seconds)
        if pending and self._jobs is not None:
            self._jobs.interrupt()
            await asyncio.wait(pending, timeout=_CLOSE_SECONDS)


def concerns(mesh: MeshSettings, database: Database, bundle: TrustBundle) -> list[Concern]:
    """What happens around every RPC, outermost first."""
    return [
        errors_to_status,
        telemetry,
        errors,
        Deadline(mesh.default_deadline_seconds),
        Authentication(bundle),
        authorisation,
        RateLimit(mesh),
        validation,
        StoredAnswers(database, mesh.request_hash_key.get_secret_value().encode()),
        AuditLog(database),
    ]


def run_service(name: str, settings_class: type[OwnSettings], build: Build[OwnSettings]) -> None:
    """Entry point of a service process: serves until SIGTERM or SIGINT."""
    mesh, settings = load(MeshSettings), load(settings_class)
    if settings.workers > 1 and _WORKER not in os.environ:
        sys.exit(_run_workers(name, settings.workers))
    configure_logs(mesh, name)
    configure_telemetry(mesh, name)
    sys.exit(uvloop.run(_serve(Service(name, mesh, settings, build))))


async def _serve(service: Service[Any]) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stopping.set)
    await service.start()
    # What a started service holds it keeps: to look through it again and again for garbage would be in vain.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE_OBJECTS, *gc.get_threshold()[1:])
    waits = [asyncio.create_task(event.wait()) for event in (stopping, service.failed)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    await service.stop()
    return 1 if service.failed.is_set() else 0


def _run_workers(name: str, count: int) -> int:
    """Starts the workers and ends when one ends: what watches over this process starts all of them anew."""
    workers: list[subprocess.Popen[bytes]] = []
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True
        for worker in workers:
            worker.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    # Each ends when this process does, however that ends: an orphan would keep its share of the port.
    command = launch_command([sys.executable, "-m", f"services.{name}"], signal.SIGTERM)
    with tempfile.TemporaryDirectory(prefix=f"kente-{name}-metrics-") as metrics_folder:
        environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": metrics_folder}
        workers.extend(subprocess.Popen(command, env={**environment, _WORKER: str(number)}) for number in range(count))
        if stopping:
            stop()
        pid, status = os.wait()
        for worker in workers:
            if worker.pid == pid:
                worker.returncode = os.waitstatus_to_exitcode(status)
        told_to_stop = stopping
        stop()
        # One that is still on its way up when it is told to stop ends by the signal itself.
        in_order = {0, -signal.SIGTERM} if told_to_stop else {0}
        return max(0 if worker.wait() in in_order else 1 for worker in workers)


__all__ = ["Build", "Method", "Runtime", "Service", "Servicer", "Wiring", "concerns", "run_service"]
