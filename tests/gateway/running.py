"""Runs the real gateway on a real socket inside the test's process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn

from gateway.application import Gateway, build
from gateway.settings import GatewaySettings
from mesh.settings import MeshSettings
from mesh.tokens import Identity

DOMAINS = ("payments", "identity", "ledger", "notifications", "connections")


@dataclass
class Running:
    """A gateway that serves."""

    gateway: Gateway
    url: str
    client: httpx.AsyncClient


def own_settings(**overrides: Any) -> GatewaySettings:
    """Settings of the gateway with short times."""
    values: dict[str, Any] = {"heartbeat_seconds": 0.2, "refusal_cache_seconds": 30.0, "ready_timeout_seconds": 0.5}
    return GatewaySettings(**(values | overrides))


def mesh_settings(port: int, **overrides: Any) -> MeshSettings:
    """Settings with every service at one port."""
    values: dict[str, Any] = {f"{domain}_address": f"127.0.0.1:{port}" for domain in DOMAINS}
    return MeshSettings(**(values | overrides))


@asynccontextmanager
async def serving(settings: GatewaySettings, shared: MeshSettings, identity: Identity | None) -> AsyncIterator[Running]:
    """Runs a gateway on a free port."""
    gateway = build(settings, shared, identity)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(gateway.app, http="httptools", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    # Signals belong to the test runner.
    task = asyncio.create_task(server._serve([listener]))
    while not server.started:  # noqa: ASYNC110 - uvicorn tells by no event that it started
        await asyncio.sleep(0.005)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with httpx.AsyncClient(base_url=url, timeout=20, trust_env=False) as client:
        yield Running(gateway, url, client)
    gateway.stopping.set()
    server.should_exit = True
    await task


async def until(condition: Callable[[], Awaitable[bool] | bool], *, within_seconds: float = 5.0) -> None:
    """Waits for a condition, and fails when it does not come true in time."""
    async with asyncio.timeout(within_seconds):
        while True:
            state = condition()
            if state if isinstance(state, bool) else await state:
                return
            await asyncio.sleep(0.01)
