"""Servers that run elsewhere: whether they can be reached, said in one line."""

import asyncio
from urllib.parse import urlsplit

import asyncpg

from mesh.embedded.errors import StartError
from mesh.embedded.plan import OutsideServers

_TIMEOUT_SECONDS = 5.0
_NATS_PORT = 4222
_VALKEY_PORT = 6379


async def check(servers: OutsideServers) -> None:
    """Reach every outside server that is set.

    Raises:
        StartError: one can't be reached.
    """
    faults = await asyncio.gather(
        database_fault(servers.database_url), nats_fault(servers.nats_url), cache_fault(servers.cache_url)
    )
    for fault in faults:
        if fault:
            raise StartError(fault)


async def database_fault(url: str) -> str:
    """Why the database can't be used; empty when it can, or when none is set."""
    if not url:
        return ""
    try:
        connection = await asyncpg.connect(url, timeout=_TIMEOUT_SECONDS)
        await connection.close()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError, ValueError) as error:
        return _line("KENTE_DATABASE_URL", url, _cause(error))
    return ""


async def nats_fault(url: str) -> str:
    """Why none of the NATS servers can be used; empty when one can, or when none is set."""
    faults = [await _port_fault("KENTE_NATS_URL", part, _NATS_PORT) for part in url.split(",") if part.strip()]
    return "" if "" in faults or not faults else faults[0]


async def cache_fault(url: str) -> str:
    """Why the cache can't be used; empty when it can, or when none is set."""
    return await _port_fault("KENTE_CACHE_URL", url, _VALKEY_PORT) if url else ""


async def _port_fault(setting: str, url: str, default_port: int) -> str:
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port or default_port
    except ValueError:
        host, port = None, default_port
    if not host:
        return (
            f"{setting} is no address: use one such as {'nats' if 'NATS' in setting else 'redis'}://host:{default_port}"
        )
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
        writer.close()
    except (OSError, TimeoutError) as error:
        return _line(setting, url, _cause(error))
    return ""


def _cause(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_TIMEOUT_SECONDS:.0f} s"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return type(error).__name__


def _line(setting: str, url: str, cause: str) -> str:
    # Only the host and port: the rest of the address can hold a password.
    place = urlsplit(url).netloc.rpartition("@")[2] or "the address"
    return f"{setting}: {place} can't be used ({cause}): start that server, correct the address, or unset it"
