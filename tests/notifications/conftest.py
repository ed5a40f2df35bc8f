"""Fixtures of the tests of notifications."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import nats
import pytest
from nats.aio.client import Client

from mesh.sandbox.server import Sandbox
from mesh.sandbox.settings import SandboxSettings
from tests.harness import Infrastructure, TestMesh
from tests.notifications.post_office import PaymentsFarEnd, PostOffice
from tests.notifications.process import SETTINGS, ServiceProcess

LIMITS = {"write_rate_per_second": 100_000, "read_rate_per_second": 100_000}


@pytest.fixture(scope="module")
def settings() -> Iterator[pytest.MonkeyPatch]:
    """The settings of the services, which a test may change before a service starts."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        yield patch


@pytest.fixture(scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    """The provider sandbox, with its mail server."""
    folder: Path = tmp_path_factory.mktemp("sandbox")
    own = SandboxSettings.model_validate({"port": 0, "smtp_port": 0, "hang_seconds": 30.0})
    started = Sandbox(own, "127.0.0.1", folder / "sandbox.db")
    await started.start()
    yield started
    await started.stop()


@pytest.fixture(scope="module")
async def payments(infrastructure: Infrastructure) -> AsyncIterator[PaymentsFarEnd]:
    """Payments that can be read."""
    far_end = PaymentsFarEnd(infrastructure)
    await far_end.start()
    yield far_end
    await far_end.stop()


@pytest.fixture(scope="module")
async def nats_client(infrastructure: Infrastructure) -> AsyncIterator[Client]:
    """A client of the event stream."""
    client = await nats.connect(infrastructure.nats.url)
    yield client
    await client.close()


@pytest.fixture(scope="module")
async def surroundings(
    test_mesh: TestMesh, settings: pytest.MonkeyPatch, payments: PaymentsFarEnd, sandbox: Sandbox
) -> TestMesh:
    """What notifications needs around it."""
    _ = settings, payments, sandbox
    await test_mesh.start("connections", LIMITS)
    return test_mesh


@pytest.fixture(scope="module")
async def notifications(surroundings: TestMesh, sandbox: Sandbox) -> TestMesh:
    """A running notifications service."""
    await surroundings.start("notifications", LIMITS | {"sandbox_url": sandbox.url})
    return surroundings


@pytest.fixture
def office(
    notifications: TestMesh, sandbox: Sandbox, payments: PaymentsFarEnd, nats_client: Client, tenant_id: str
) -> PostOffice:
    """The messages of this test's tenant."""
    return PostOffice(notifications, sandbox, payments, nats_client, tenant_id)


@pytest.fixture
async def process(
    infrastructure: Infrastructure, surroundings: TestMesh, sandbox: Sandbox, tmp_path: Path
) -> AsyncIterator[ServiceProcess]:
    """Notifications as a process of its own."""
    _ = surroundings
    running = ServiceProcess(infrastructure, tmp_path, {"KENTE_SANDBOX_URL": sandbox.url})
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
def process_office(  # noqa: PLR0917 - each is a fixture
    process: ServiceProcess,
    surroundings: TestMesh,
    sandbox: Sandbox,
    payments: PaymentsFarEnd,
    nats_client: Client,
    tenant_id: str,
) -> PostOffice:
    """The messages of this test's tenant, in that process."""
    _ = process
    return PostOffice(surroundings, sandbox, payments, nats_client, tenant_id)


@pytest.fixture
async def admin(infrastructure: Infrastructure) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the owner of all tables, who sees every tenant."""
    connection = await asyncpg.connect(infrastructure.postgres.admin_url)
    await connection.execute("SET search_path = notifications")
    yield connection
    await connection.close()
