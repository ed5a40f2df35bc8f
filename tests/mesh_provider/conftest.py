"""Clients against a scripted server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import stamina
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from mesh.ids import new_id
from mesh.provider.connection import ClientPolicy, Connection, Environment, RateQuota
from mesh.provider.guard import ConnectionGuard
from mesh.provider.http import ProviderClient

MakeClient = Callable[..., ProviderClient]


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    """Tries follow each other at once."""
    stamina.set_testing(True, attempts=3, cap=True)
    yield
    stamina.set_testing(False)


@pytest.fixture
async def make_client() -> AsyncIterator[MakeClient]:
    """Makes clients with a guard of their own."""
    made: list[ProviderClient] = []

    def make(
        *, timeout_seconds: float = 5.0, policy: ClientPolicy | None = None, quota: RateQuota | None = None
    ) -> ProviderClient:
        connection = Connection(new_id("con"), "ten_1", "acme", Environment.SANDBOX, None, {}, {}, "")
        policy = policy or ClientPolicy()
        limiter = MovingWindowRateLimiter(MemoryStorage())
        guard = ConnectionGuard("acme", connection.connection_id, policy, quota, limiter)
        client = ProviderClient(connection, timeout_seconds=timeout_seconds, policy=policy, guard=guard)
        made.append(client)
        return client

    yield make
    for client in made:
        await client.close()
