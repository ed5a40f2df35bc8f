"""PostgreSQL: one pool a process, one transaction a request, one tenant a transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy

if TYPE_CHECKING:
    Connection = PoolConnectionProxy[asyncpg.Record]
else:
    Connection = PoolConnectionProxy

# What connecting or a statement raises when the server is away, restarting, or out of connections.
UNAVAILABLE_ERRORS: tuple[type[Exception], ...] = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InterfaceError,
    ConnectionError,
    TimeoutError,
)
# The same, and every error of a statement.
DATABASE_ERRORS: tuple[type[Exception], ...] = (asyncpg.PostgresError, *UNAVAILABLE_ERRORS)
# The setting that row-level security reads. Its value "*" stands for the mesh itself.
TENANT_SETTING = "kente.tenant"
EVERY_TENANT = "*"

_after_commit: ContextVar[list[Callable[[], None]] | None] = ContextVar("kente_after_commit", default=None)


class Database:
    """The pool of one process."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self.pool = pool

    @classmethod
    async def connect(cls, url: str, *, pool_size: int = 6, application_name: str = "kente") -> Database:
        """Opens the pool.

        Args:
            url: DSN of the process's own role, whose search_path is its schema.

        Raises:
            SystemExit: the database can't be reached, with what to do.
        """
        try:
            pool = await asyncpg.create_pool(
                url,
                min_size=1,
                max_size=pool_size,
                command_timeout=30,
                server_settings={"application_name": application_name, "timezone": "UTC"},
            )
        except (OSError, asyncpg.PostgresError, ValueError) as error:
            detail = f"the database can't be reached ({type(error).__name__}); start it, or correct the address"
            raise SystemExit(f"KENTE_DATABASE_URL: {detail}") from None
        return cls(pool)

    async def close(self) -> None:
        """Closes the pool; statements under way are given a moment."""
        await self.pool.close()

    @asynccontextmanager
    async def transaction(self, tenant_id: str) -> AsyncIterator[Connection]:
        """One transaction that sees and writes only the tenant's rows."""
        callbacks: list[Callable[[], None]] = []
        token = _after_commit.set(callbacks)
        try:
            async with self.pool.acquire() as connection, connection.transaction():
                await connection.execute("SELECT set_config($1, $2, true)", TENANT_SETTING, tenant_id)
                yield connection
        finally:
            _after_commit.reset(token)
        for callback in callbacks:
            callback()

    @asynccontextmanager
    async def system_transaction(self) -> AsyncIterator[Connection]:
        """One transaction that sees every tenant: for relays, recovery, and finding whose something is."""
        async with self.transaction(EVERY_TENANT) as connection:
            yield connection

    async def is_reachable(self) -> bool:
        """Whether a statement gets an answer."""
        try:
            await self.pool.fetchval("SELECT 1", timeout=2)
        except DATABASE_ERRORS:
            return False
        return True


def after_commit(callback: Callable[[], None]) -> None:
    """Runs a callback once the current transaction is committed, and not at all if it isn't."""
    callbacks = _after_commit.get()
    if callbacks is None:
        raise LookupError("after_commit is for inside of a transaction")
    callbacks.append(callback)


def affected_rows(status: str) -> int:
    """Number of rows in a command's status, such as "UPDATE 1"."""
    return int(status.rsplit(" ", 1)[-1])


Row = asyncpg.Record
Json = dict[str, Any]
