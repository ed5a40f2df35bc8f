"""The real gateway on a real socket, in front of a far end that answers as each test says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gateway.settings import GatewaySettings
from mesh.tokens import Identity, TrustBundle, create_identities
from tests.gateway.far_end import FarEnd, Served, start
from tests.gateway.running import Running, mesh_settings, own_settings, serving


@pytest.fixture(scope="session")
def spans() -> InMemorySpanExporter:
    """The spans of the whole run. A process has one tracer provider, so others may have set it already."""
    exporter = InMemorySpanExporter()
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


@pytest.fixture(scope="session")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the gateway's key and the trust bundle."""
    folder = tmp_path_factory.mktemp("identities")
    create_identities(folder, ["gateway", "identity"])
    return folder


@pytest.fixture(scope="session")
def trust_bundle(identities: Path) -> TrustBundle:
    return TrustBundle(identities / "bundle.jwks")


@pytest.fixture(scope="session")
async def far_end_server() -> AsyncIterator[tuple[Served, int]]:
    served = Served(FarEnd())
    server, port = await start(served)
    yield served, port
    await server.stop(None)


@pytest.fixture
def far_end(far_end_server: tuple[Served, int]) -> FarEnd:
    """A far end that has seen nothing yet."""
    served, _ = far_end_server
    served.far_end = FarEnd()
    return served.far_end


@pytest.fixture(scope="session")
async def shared_gateway(
    far_end_server: tuple[Served, int],
    identities: Path,
    spans: InMemorySpanExporter,  # noqa: ARG001 - tracing is set up before the first span
) -> AsyncIterator[Running]:
    """One gateway for all tests that do not mind what it remembers."""
    identity = Identity.load(identities / "gateway.jwk")
    async with serving(own_settings(), mesh_settings(far_end_server[1]), identity) as started:
        yield started


@pytest.fixture
def gateway_settings() -> GatewaySettings:
    """Settings of a fresh gateway; a test may replace this fixture."""
    return own_settings()


@pytest.fixture
def shared_settings() -> dict[str, int]:
    """Settings of every process that a test sets otherwise for a fresh gateway."""
    return {}


@pytest.fixture
async def fresh_gateway(
    far_end_server: tuple[Served, int],
    far_end: FarEnd,  # noqa: ARG001 - made anew before the gateway
    gateway_settings: GatewaySettings,
    shared_settings: dict[str, int],
    identities: Path,
) -> AsyncIterator[Running]:
    """A gateway that remembers nothing yet."""
    identity = Identity.load(identities / "gateway.jwk")
    async with serving(gateway_settings, mesh_settings(far_end_server[1], **shared_settings), identity) as started:
        yield started


@pytest.fixture
def running(
    shared_gateway: Running,
    far_end: FarEnd,  # noqa: ARG001 - made anew before every test
    spans: InMemorySpanExporter,
) -> Running:
    spans.clear()
    return shared_gateway


@pytest.fixture
def client(running: Running) -> httpx.AsyncClient:
    return running.client
