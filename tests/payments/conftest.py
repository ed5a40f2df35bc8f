"""Fixtures of the tests of payments: the real services around it, and the provider sandbox behind it."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mesh.sandbox.server import Sandbox
from mesh.sandbox.settings import SandboxSettings
from tests.connections.listers import SMTP, Lister
from tests.gateway.running import own_settings, serving
from tests.harness import Infrastructure, TestMesh
from tests.payments.till import Till, World

LIMITS = {"write_rate_per_second": 100_000, "read_rate_per_second": 100_000}
# Everything that takes seconds in earnest takes tenths of seconds here.
SHORT_TIMES: dict[str, Any] = {
    "send_timeout_seconds": 2.0,
    "not_found_wait_seconds": 0.5,
    "send_window_seconds": 20.0,
    "poll_first_seconds": 0.1,
    "poll_longest_seconds": 0.5,
    "poll_rare_seconds": 0.5,
    "connections_cache_seconds": 0.05,
    "adapter_cache_seconds": 0.05,
    "ledger_retry_longest_seconds": 0.5,
    "ledger_refused_longest_seconds": 0.5,
}


@pytest.fixture(scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    """Simulated providers whose payers decide quickly."""
    folder: Path = tmp_path_factory.mktemp("sandbox")
    settings = SandboxSettings(port=0, smtp_port=0, approval_seconds=0.05, late_callback_seconds=0.5, hang_seconds=5)
    started = Sandbox(settings, "127.0.0.1", folder / "sandbox.db")
    await started.start()
    yield started
    await started.stop()


@pytest.fixture(scope="module")
async def gateway_url(infrastructure: Infrastructure) -> AsyncIterator[str]:
    """The real gateway, where callbacks come in."""
    shared = infrastructure.settings("gateway")
    async with serving(own_settings(), shared, infrastructure.identity("gateway")) as running:
        yield running.url


@pytest.fixture(scope="module")
async def world(
    infrastructure: Infrastructure, test_mesh: TestMesh, sandbox: Sandbox, gateway_url: str
) -> AsyncIterator[World]:
    """Payments with the services that it needs."""
    # Connections asks every domain for its providers, and would wait for this one in vain.
    notifications = Lister(infrastructure, "notifications", [SMTP])
    await notifications.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KENTE_CONNECTIONS_ENCRYPTION_KEYS", f"k1:{base64.b64encode(b'k' * 32).decode()}")
        mesh = {**LIMITS, "sandbox_url": sandbox.url, "public_url": gateway_url}
        await test_mesh.start("connections", LIMITS)
        await test_mesh.start("ledger", LIMITS)
        await test_mesh.start("payments", mesh, **SHORT_TIMES)
        yield World(test_mesh, sandbox, gateway_url)
    await notifications.stop()


@pytest.fixture
async def till(world: World, tenant_id: str) -> Till:
    """The client of this test's tenant, connected to MTN."""
    opened = Till(world, tenant_id)
    await opened.connect()
    return opened
