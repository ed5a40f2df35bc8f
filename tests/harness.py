"""The real thing for tests: PostgreSQL, NATS, and the services of the mesh in this process, on free ports.

Every test makes a tenant of its own, so all share one database without seeing each other.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from pydantic import SecretStr

from mesh.channel import open_channel
from mesh.embedded.layout import CHECKPOINT_KEY
from mesh.embedded.nats import EmbeddedNats
from mesh.embedded.ports import is_free
from mesh.embedded.postgres import EmbeddedPostgres
from mesh.ids import new_id
from mesh.migrations import domains, migrate, role_of
from mesh.server import Build, Service
from mesh.settings import MeshSettings, ServiceSettings
from mesh.tokens import Identity, create_identities, create_private_key

PASSWORD = "test-only"
PROCESSES = ("payments", "identity", "ledger", "notifications", "connections", "gateway", "sandbox", "operator")


@dataclass(frozen=True, slots=True)
class Infrastructure:
    """PostgreSQL with all schemas, NATS, identities, and a port for each service."""

    folder: Path
    postgres: EmbeddedPostgres
    nats: EmbeddedNats
    ports: Mapping[str, int]

    def settings(self, process: str, **overrides: Any) -> MeshSettings:
        """The settings that one process would have."""
        role_url = self.postgres.url(role_of(process), PASSWORD)
        values: dict[str, Any] = {
            "state_dir": self.folder,
            "database_url": SecretStr(role_url),
            "nats_url": self.nats.url,
            "request_hash_key": SecretStr(PASSWORD * 8),
            "identity_file": self.folder / "identities" / f"{process}.jwk",
            "trust_bundle_file": self.folder / "identities" / "bundle.jwks",
            "job_heartbeat_seconds": 2.0,
            "drain_seconds": 1.0,
            **{f"{name}_address": f"127.0.0.1:{port}" for name, port in self.ports.items()},
        }
        return MeshSettings(**(values | overrides))

    @property
    def checkpoint_key_file(self) -> Path:
        """The private key that the ledger signs with."""
        return self.folder / "identities" / CHECKPOINT_KEY

    def identity(self, process: str) -> Identity:
        """The private key of a process."""
        return Identity.load(self.folder / "identities" / f"{process}.jwk")


# Below those that the kernel gives to outgoing connections, which could take a port between its choice and its use.
# Test runs side by side begin at different places.
_candidate_ports = itertools.count(20_000 + os.getpid() % 25 * 480)


def free_ports(count: int) -> list[int]:
    """Distinct TCP ports for servers, which nobody else will take by chance."""
    return list(itertools.islice(filter(is_free, _candidate_ports), count))


def start_infrastructure(folder: Path, postgres_options: Mapping[str, str] | None = None) -> Infrastructure:
    """Starts PostgreSQL and NATS, migrates, and makes identities."""
    postgres_port, nats_port, monitor_port, *ports = free_ports(3 + len(domains()))
    postgres = EmbeddedPostgres(folder / "postgres", postgres_port, options=postgres_options)
    postgres.start()
    nats = EmbeddedNats(folder / "nats", nats_port, monitor_port)
    nats.start()
    # In a thread of its own: asyncio.run would leave the tests that follow without their event loop.
    with ThreadPoolExecutor(1) as executor:
        executor.submit(asyncio.run, migrate(postgres.admin_url, dict.fromkeys(domains(), PASSWORD))).result()
    create_identities(folder / "identities", PROCESSES)
    create_private_key(folder / "identities" / CHECKPOINT_KEY)
    return Infrastructure(folder, postgres, nats, dict(zip(domains(), ports, strict=True)))


class TestMesh:
    """Services in this process, and clients for them."""

    __test__ = False

    def __init__(self, infrastructure: Infrastructure) -> None:
        self.infrastructure = infrastructure
        self.services: dict[str, Service] = {}
        self._channels: list[grpc.aio.Channel] = []

    async def start(
        self,
        name: str,
        mesh_overrides: Mapping[str, Any] | None = None,
        *,
        build: Build[Any] | None = None,
        **settings: Any,
    ) -> Service:
        """Starts services.<name>, wired as its own process would be, or by another build function."""
        module = importlib.import_module(f"services.{name}.__main__")
        settings_module = importlib.import_module(f"services.{name}.settings")
        settings_class: type[ServiceSettings] = getattr(settings_module, f"{name.capitalize()}Settings")
        port = self.infrastructure.ports[name]
        if name == "ledger":
            settings.setdefault("checkpoint_key_file", self.infrastructure.checkpoint_key_file)
        own = settings_class(**{"port": port, "metrics_port": 0, **settings})
        mesh = self.infrastructure.settings(name, **(mesh_overrides or {}))
        service = Service(name, mesh, own, build or module.build)
        await service.start()
        self.services[name] = service
        return service

    async def stop(self, name: str) -> None:
        """Stops one service."""
        service = self.services.pop(name)
        await service.stop()
        # Its process would have ended itself, and been started anew.
        assert not service.failed.is_set(), f"background work of {name} ended; its log says why"

    async def close(self) -> None:
        """Stops everything."""
        for channel in self._channels:
            await channel.close()
        for name in list(self.services):
            await self.stop(name)

    def client(
        self, service: str, tenant_id: str, scopes: Iterable[str], *, port: int | None = None
    ) -> grpc.aio.Channel:
        """A channel as a partner with an access token has it; to another port than the service's usual, if given."""
        token = self.infrastructure.identity("identity").access_token(new_id("key"), tenant_id, scopes, 300)
        other = {} if port is None else {f"{service}_address": f"127.0.0.1:{port}"}
        return self._remember(_open(service, self.infrastructure.settings("gateway", **other), token))

    def with_token(self, service: str, token: str) -> grpc.aio.Channel:
        """A channel that sends this token; none when it is empty."""
        return self._remember(_open(service, self.infrastructure.settings("gateway"), token))

    def peer(self, service: str, caller: str, tenant_id: str = "") -> grpc.aio.Channel:
        """A channel as another service of the mesh has it, acting for a tenant."""
        token = self.infrastructure.identity(caller).service_token(tenant_id)
        return self._remember(_open(service, self.infrastructure.settings(caller), token))

    def _remember(self, channel: grpc.aio.Channel) -> grpc.aio.Channel:
        self._channels.append(channel)
        return channel


class _Token(grpc.aio.UnaryUnaryClientInterceptor, grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, token: str) -> None:
        self._token = token

    async def _send(self, continuation: Any, details: grpc.aio.ClientCallDetails, request: Any) -> Any:
        metadata = grpc.aio.Metadata(*(details.metadata or ()))
        if self._token:
            metadata.add("authorization", f"Bearer {self._token}")
        changed = grpc.aio.ClientCallDetails(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
        )
        return await continuation(changed, request)

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._send(continuation, client_call_details, request)

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._send(continuation, client_call_details, request)


class _TokenStreams(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, token: _Token) -> None:
        self._token = token

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._token.intercept_unary_stream(continuation, client_call_details, request)


def _open(service: str, settings: MeshSettings, token: str) -> grpc.aio.Channel:
    # gRPC sorts an interceptor into one kind only, so streams need one of their own.
    unary = _Token(token)
    return open_channel(service, settings, None, extra_interceptors=[unary, _TokenStreams(unary)])


async def eventually(check: Callable[[], Awaitable[Any]], timeout_seconds: float = 15.0) -> Any:
    """Waits until a check gives something true, and returns it."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        found = await check()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_seconds} s: {check}")
        await asyncio.sleep(0.02)
