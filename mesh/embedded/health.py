"""Whether a server serves, asked in its own protocol."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from http import HTTPStatus

import asyncpg
import grpc
from grpc_health.v1 import health_pb2

from mesh.embedded.ports import LOOPBACK

_TIMEOUT_SECONDS = 2.0
_STATEMENT_PAUSE_SECONDS = 30.0
# A check must not wait out the library's usual second between attempts to connect.
_CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
)


class HealthCheck(ABC):
    """One server, asked again and again."""

    @abstractmethod
    async def serves(self) -> bool:
        """Whether it serves now. Answers within two seconds and raises nothing."""

    async def close(self) -> None:  # noqa: B027 - most checks keep nothing
        """Let go of what was kept between checks."""


class GrpcHealth(HealthCheck):
    """The standard health protocol (grpc.health.v1) of one server on this machine, asked for the server as a whole."""

    def __init__(self, port: int) -> None:
        """Describe the server; connected at the first check."""
        self._port = port
        self._channel: grpc.aio.Channel | None = None

    async def serves(self) -> bool:
        """Whether it answers SERVING."""
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(f"{LOOPBACK}:{self._port}", options=_CHANNEL_OPTIONS)
        # The method by its name: the library's generated stub has no types.
        check = self._channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = await check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def close(self) -> None:
        """Close the connection."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = None


class HttpHealth(HealthCheck):
    """GET of one path of one server on this machine, which must answer 200."""

    def __init__(self, port: int, path: str) -> None:
        """Describe the server."""
        self._port = port
        self._path = path

    async def serves(self) -> bool:
        """Whether it answers 200."""
        return await http_status(self._port, self._path) == HTTPStatus.OK


class PostgresHealth(HealthCheck):
    """A statement that is answered, now and then; in between what the server says of itself.

    No connection is kept: each one is a process of the server.
    """

    def __init__(self, url: Callable[[], str], says_ready: Callable[[], bool]) -> None:
        """Describe the server.

        Args:
            url: Gives the address, which may not exist before the first start.
            says_ready: Whether the server says that it takes connections.
        """
        self._url = url
        self._says_ready = says_ready
        self._good_until = 0.0

    async def serves(self) -> bool:
        """Whether it answers."""
        if not self._says_ready():
            self._good_until = 0.0
            return False
        if time.monotonic() < self._good_until:
            return True
        try:
            connection = await asyncpg.connect(self._url(), timeout=_TIMEOUT_SECONDS)
            try:
                answered = bool(await connection.fetchval("SELECT true", timeout=_TIMEOUT_SECONDS))
            finally:
                connection.terminate()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            return False
        self._good_until = time.monotonic() + _STATEMENT_PAUSE_SECONDS
        return answered


async def http_status(port: int, path: str, headers: Mapping[str, str] | None = None) -> int:
    """Status that GET `path` on this machine is answered with; 0 when it is not, within two seconds."""
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            return await _http_status(port, path, headers or {})
    except (OSError, TimeoutError, ValueError, IndexError):
        return 0


async def _http_status(port: int, path: str, headers: Mapping[str, str]) -> int:
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        own = {"Host": f"{LOOPBACK}:{port}", "Connection": "close"}
        lines = [f"{name}: {value}" for name, value in {**own, **headers}.items()]
        writer.write("\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode())
        await writer.drain()
        return int((await reader.readline()).split()[1])
    finally:
        writer.close()
