"""Fixtures of the tests of the mesh runtime."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from mesh.database import Database
from mesh.server import Service
from tests.harness import PASSWORD, Infrastructure, TestMesh, start_infrastructure
from tests.mesh.probe import SCOPES, LedgerClient, Probe, ledger_stub


@pytest.fixture(scope="session", autouse=True)
def telemetry() -> None:
    """Spans with ids, as every process of the mesh has them, and logs that are short to read in a failed test."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ]
    )
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(TracerProvider())


@pytest.fixture(scope="session")
def breakable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Infrastructure]:
    """PostgreSQL and NATS for the tests that kill them. Each leaves them running."""
    started = start_infrastructure(tmp_path_factory.mktemp("breakable"))
    yield started
    started.nats.stop()
    started.postgres.stop()


@pytest.fixture(scope="module")
async def served(infrastructure: Infrastructure) -> AsyncIterator[tuple[Probe, Service]]:
    """The probe as the ledger of the shared infrastructure, for the tests of one module."""
    probe = Probe()
    service = await probe.start(infrastructure)
    yield probe, service
    await service.stop()
    assert not service.failed.is_set()


@pytest.fixture
def probe(served: tuple[Probe, Service]) -> Iterator[Probe]:
    """The running probe, with no handlers yet."""
    found, _ = served
    found.handlers.clear()
    yield found
    found.handlers.clear()


@pytest.fixture
def stub(probe: Probe, test_mesh: TestMesh, tenant_id: str) -> LedgerClient:
    """A partner's client of the probe."""
    assert probe.runtime
    return ledger_stub(test_mesh.client("ledger", tenant_id, SCOPES))


@pytest.fixture
async def database(infrastructure: Infrastructure) -> AsyncIterator[Database]:
    """The pool of the ledger's own role."""
    opened = await Database.connect(infrastructure.postgres.url("kente_ledger", PASSWORD))
    yield opened
    await opened.close()


@pytest.fixture
async def admin(infrastructure: Infrastructure) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the owner of all tables, who sees every tenant."""
    connection = await asyncpg.connect(infrastructure.postgres.admin_url)
    await connection.execute("SET search_path = ledger")
    yield connection
    await connection.close()
