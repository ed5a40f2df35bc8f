"""python -m gateway as a process: how it starts, stops and refuses to start."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.gateway.far_end import API_KEY, PAYMENT_ID, FarEnd, Served
from tests.gateway.running import DOMAINS, until


@pytest.fixture
def environment(far_end_server: tuple[Served, int], identities: Path) -> dict[str, str]:
    """Environment of a gateway in front of the far end."""
    _, port = far_end_server
    addresses = {f"KENTE_{domain.upper()}_ADDRESS": f"127.0.0.1:{port}" for domain in DOMAINS}
    with socket.create_server(("127.0.0.1", 0)) as free:
        own_port = free.getsockname()[1]
    own = {"KENTE_GATEWAY_PORT": str(own_port), "KENTE_IDENTITY_FILE": str(identities / "gateway.jwk")}
    return {**os.environ, **addresses, **own, "KENTE_DRAIN_SECONDS": "2"}


@asynccontextmanager
async def process(environment: Mapping[str, str]) -> AsyncIterator[Process]:
    """A gateway of its own, killed at the end if it still runs."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", env=dict(environment), stdout=PIPE, stderr=PIPE
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


async def ready(client: httpx.AsyncClient) -> bool:
    """Whether the gateway serves and all services with it."""
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx.TransportError:
        return False


async def test_it_serves_and_stops_on_sigterm_with_an_open_stream(environment: dict[str, str], far_end: FarEnd) -> None:
    url = f"http://127.0.0.1:{environment['KENTE_GATEWAY_PORT']}"
    far_end.updates.put_nowait(2)
    headers = {"authorization": f"Bearer {API_KEY}"}
    async with process(environment) as gateway, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        await until(lambda: ready(client), within_seconds=20)

        async with client.stream("GET", f"/v1/payments/{PAYMENT_ID}:watch", headers=headers) as response:
            lines = response.aiter_lines()
            assert "STATE_PROCESSING" in await anext(lines)
            gateway.send_signal(signal.SIGTERM)
            rest = [line async for line in lines if line]

        assert rest[0] == "event: error"
        assert "SERVICE_UNAVAILABLE" in rest[1]
        output, errors = await asyncio.wait_for(gateway.communicate(), 10)
        assert gateway.returncode == 0
        assert b"gateway_stopped" in output
        assert errors == b""


@pytest.mark.parametrize(("proxies", "address"), [("", "127.0.0.1"), ("127.0.0.1", "198.51.100.7")])
async def test_a_clients_address_is_believed_from_known_proxies_only(
    environment: dict[str, str], far_end: FarEnd, proxies: str, address: str
) -> None:
    url = f"http://127.0.0.1:{environment['KENTE_GATEWAY_PORT']}"
    changed = {**environment, "KENTE_GATEWAY_TRUSTED_PROXIES": proxies}
    async with process(changed), httpx.AsyncClient(base_url=url, trust_env=False) as client:
        await until(lambda: ready(client), within_seconds=20)
        response = await client.get("/.well-known/jwks.json", headers={"x-forwarded-for": "198.51.100.7"})

    assert response.status_code == 200
    assert far_end.last("GetKeySet").metadata["kente-client-address"] == address


async def test_a_taken_port_is_told_in_one_line_with_its_setting(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", int(environment["KENTE_GATEWAY_PORT"]))):
        async with process(environment) as gateway:
            _, errors = await asyncio.wait_for(gateway.communicate(), 20)

    port = environment["KENTE_GATEWAY_PORT"]
    expected = f"port {port} on 127.0.0.1 is taken by another process: set KENTE_GATEWAY_PORT to a free one\n"
    assert (gateway.returncode, errors.decode()) == (1, expected)


@pytest.mark.parametrize(
    ("name", "value"), [("KENTE_GATEWAY_PORT", "http"), ("KENTE_IDENTITY_FILE", "/nonexistent/gateway.jwk")]
)
async def test_a_wrong_setting_is_told_in_one_line(environment: dict[str, str], name: str, value: str) -> None:
    async with process({**environment, name: value}) as gateway:
        _, errors = await asyncio.wait_for(gateway.communicate(), 20)

    assert gateway.returncode != 0
    assert errors.decode().startswith(name)
    assert errors.count(b"\n") == 1
