"""Runs one domain service: gRPC server, background work, and an admin port.

A service says what it is by a Service value; everything else is the same for all of them. With several workers, the
first process only starts and watches the others, which share the port.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import structlog
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from mesh.admin import AdminServer
from mesh.bus import Consumer, ConsumerRunner, connect, ensure_stream
from mesh.channel import open_channel
from mesh.database import Database
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
from mesh.settings import MeshSettings, ServiceSettings, load
from mesh.telemetry import configure_telemetry
from mesh.tokens import Identity, TrustBundle

log = structlog.get_logger()

_MESSAGE_BYTES = 4 * 1024 * 1024
_CONNECTION_AGE_MILLISECONDS = 600_000
_HEALTH_SECONDS = 1.0


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
class Runtime:
    """What the mesh gives to a service when it is wired."""

    name: str
    mesh: MeshSettings
    database: Database
    identity: Identity
    bundle: TrustBundle

    def channel(self, service: str) -> grpc.aio.Channel:
        """A channel to another service, in this service's name."""
        return open_channel(service, self.mesh, self.identity)


Build = Callable[[Runtime], Awaitable[Wiring]]


class Service:
    """One running service in this process."""

    def __init__(self, name: str, mesh: MeshSettings, settings: ServiceSettings, build: Build) -> None:
        self.name = name
        self.mesh = mesh
        self.settings = settings
        self.port = settings.port
        self._build = build
        self._tasks: list[asyncio.Task[None]] = []
        self._draining = False

    async def start(self) -> None:
        """Opens everything and serves.

        Raises:
            SystemExit: something that it needs is missing; one line says what to do.
        """
        mesh = self.mesh
        if mesh.identity_file is None or mesh.trust_bundle_file is None:
            raise SystemExit("KENTE_IDENTITY_FILE and KENTE_TRUST_BUNDLE_FILE must be set; `kente up` makes the files")
        self._database = await Database.connect(
            mesh.database_url.get_secret_value(),
            pool_size=self.settings.database_pool_size,
            application_name=f"kente-{self.name}",
        )
        self._nats = await connect(mesh.nats_url, f"kente-{self.name}")
        self._jetstream = self._nats.jetstream(timeout=5)
        await ensure_stream(self._jetstream, mesh.nats_replicas)
        bundle = TrustBundle(mesh.trust_bundle_file)
        runtime = Runtime(self.name, mesh, self._database, Identity.load(mesh.identity_file), bundle)
        self._wiring = await self._build(runtime)
        self._methods = methods_of(servicer.name for servicer in self._wiring.servicers)
        await self._start_grpc(bundle)
        self._start_background()
        self._admin = AdminServer(mesh.host, self.settings.metrics_port, self._database.is_reachable)
        await self._admin.start()
        log.info("service_started", service=self.name, port=self.port)

    async def _start_grpc(self, bundle: TrustBundle) -> None:
        chain = ConcernChain(concerns(self.mesh, self._database, bundle), self._methods)
        self._server = grpc.aio.server(
            interceptors=[chain],
            options=[
                ("grpc.so_reuseport", 1 if self.settings.workers > 1 else 0),
                ("grpc.max_receive_message_length", _MESSAGE_BYTES),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                # Clients reconnect now and then, so that several workers share their load.
                ("grpc.max_connection_age_ms", _CONNECTION_AGE_MILLISECONDS),
            ],
        )
        self._health = health_aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [servicer.name for servicer in self._wiring.servicers]
        for servicer in self._wiring.servicers:
            servicer.add(servicer.implementation, self._server)
        reflection.enable_server_reflection(
            [*names, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME], self._server
        )
        address = f"{self.mesh.host}:{self.settings.port}"
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError:
            name = f"KENTE_{self.name.upper()}_PORT"
            raise SystemExit(f"{name}: port {self.settings.port} is taken; stop what uses it, or set another") from None
        await self._server.start()
        await self._report_health(serving=True)

    def _start_background(self) -> None:
        mesh, database = self.mesh, self._database
        coroutines = [OutboxRelay(database, self._jetstream, self.name).run(), self._watch_health()]
        if self._wiring.jobs:
            runner = JobRunner(
                database,
                self.name,
                self._wiring.jobs,
                max_attempts=mesh.job_max_attempts,
                heartbeat_seconds=mesh.job_heartbeat_seconds,
            )
            coroutines.append(runner.run())
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
        os.kill(os.getpid(), signal.SIGTERM)

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
        await self._server.stop(self.mesh.drain_seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._admin.stop()
        for close in self._wiring.close:
            await close()
        with suppress(Exception):
            await self._nats.close()
        await self._database.close()
        log.info("service_stopped", service=self.name)


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
        StoredAnswers(database),
        AuditLog(database),
    ]


def run_service(name: str, settings_class: type[ServiceSettings], build: Build) -> None:
    """Entry point of a service process: serves until SIGTERM or SIGINT."""
    mesh, settings = load(MeshSettings), load(settings_class)
    if settings.workers > 1 and "KENTE_WORKER" not in os.environ:
        sys.exit(_run_workers(name, settings.workers))
    configure_logs(mesh, name)
    configure_telemetry(mesh, name)
    uvloop.run(_serve(Service(name, mesh, settings, build)))


async def _serve(service: Service) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stopping.set)
    await service.start()
    await stopping.wait()
    await service.stop()


def _run_workers(name: str, count: int) -> int:
    """Starts the workers and ends when one ends: what watches over this process starts all of them anew."""
    workers = [
        subprocess.Popen([sys.executable, "-m", f"services.{name}"], env={**os.environ, "KENTE_WORKER": str(number)})
        for number in range(count)
    ]

    def stop(*_: object) -> None:
        for worker in workers:
            worker.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    pid, status = os.wait()
    for worker in workers:
        if worker.pid == pid:
            worker.returncode = os.waitstatus_to_exitcode(status)
    stop()
    return max(abs(worker.wait()) for worker in workers)


__all__ = ["Build", "Method", "Runtime", "Service", "Servicer", "Wiring", "concerns", "run_service"]
