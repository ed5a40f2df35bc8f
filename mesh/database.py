"""PostgreSQL: one pool a process, one transaction a request, one tenant a transaction."""

from __future__ import annotations

import asyncio
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


class DatabaseAwayError(ConnectionError):
    """The database can't be reached, or went away in the middle of a transaction."""


# What a transaction raises when the server is away, restarting, or out of connections or space, and when it asks for
# the transaction to be tried again (deadlock, serialization). asyncpg.InterfaceError is not among them: it also
# stands for mistakes, such as a wrong number of arguments, which no retry heals. Database.transaction sorts those.
UNAVAILABLE_ERRORS: tuple[type[Exception], ...] = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    ConnectionError,
    TimeoutError,
)
# The same, and every other error of a connection or a statement: for loops that must outlive them all.
DATABASE_ERRORS: tuple[type[Exception], ...] = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)
# The setting that row-level security reads. Its value "*" stands for the mesh itself.
TENANT_SETTING = "kente.tenant"
EVERY_TENANT = "*"
_BY_INDEX = "; SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"
_CONNECT_SECONDS = 5.0
_HEALTH_SECONDS = 5.0
_CLOSE_SECONDS = 5.0

# How asyncpg words that a connection is gone, in an error whose class says nothing.
_CONNECTION_LOST = ("is closed", "is closing", "released back to the pool")

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
                timeout=_CONNECT_SECONDS,
                command_timeout=30,
                reset=_keep,
                server_settings={"application_name": application_name, "timezone": "UTC"},
            )
        except (OSError, asyncpg.PostgresError, ValueError) as error:
            detail = f"the database can't be reached ({type(error).__name__}); start it, or correct the address"
            raise SystemExit(f"KENTE_DATABASE_URL: {detail}") from None
        return cls(pool)

    async def close(self) -> None:
        """Closes the pool; statements under way are given a moment."""
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.pool.close()
        except TimeoutError:
            self.pool.terminate()

    @asynccontextmanager
    async def transaction(
        self, tenant_id: str, *, by_index: bool = False, first: str = ""
    ) -> AsyncIterator[Connection]:
        """One transaction that sees and writes only the tenant's rows.

        Args:
            by_index: each statement finds its rows by an index, whatever the planner believes of the tables. For
                statements that name their rows, some or thousands, in tables of any size.
            first: SQL without arguments and without an answer, such as a lock, that goes along with BEGIN.

        Raises:
            DatabaseAwayError: and the other UNAVAILABLE_ERRORS, when the database is away or goes away.
        """
        callbacks: list[Callable[[], None]] = []
        token = _after_commit.set(callbacks)
        try:
            async with self._acquired() as connection, _begun(connection, tenant_id, by_index=by_index, first=first):
                yield connection
        except asyncpg.InterfaceError as error:
            if any(words in str(error) for words in _CONNECTION_LOST):
                raise DatabaseAwayError(str(error)) from error
            raise
        except asyncpg.InternalClientError as error:
            raise DatabaseAwayError(str(error)) from error
        finally:
            _after_commit.reset(token)
        for callback in callbacks:
            callback()

    @asynccontextmanager
    async def _acquired(self) -> AsyncIterator[Connection]:
        try:
            connection = await self.pool.acquire()
        except OSError as error:
            # Connecting raises a plain OSError when a name has several addresses, or none.
            raise DatabaseAwayError(type(error).__name__) from error
        try:
            yield connection
        except asyncpg.InternalClientError:
            # What asyncpg says of a connection that broke in the middle of an answer. It must not be used again.
            connection.terminate()
            raise
        finally:
            await self.pool.release(connection)

    @asynccontextmanager
    async def system_transaction(self) -> AsyncIterator[Connection]:
        """One transaction that sees every tenant: for relays, recovery, and finding whose something is."""
        async with self.transaction(EVERY_TENANT) as connection:
            yield connection

    async def is_reachable(self) -> bool:
        """Whether a statement gets an answer."""
        try:
            async with asyncio.timeout(_HEALTH_SECONDS):
                await self.pool.fetchval("SELECT 1", timeout=2)
        except DATABASE_ERRORS:
            return False
        return True


@asynccontextmanager
async def _begun(connection: Connection, tenant_id: str, *, by_index: bool, first: str) -> AsyncIterator[None]:
    """A transaction of a tenant, begun by one round trip. The driver's own would take another for the setting."""
    quoted = tenant_id.replace("'", "''")
    begin = f"BEGIN; SET LOCAL {TENANT_SETTING} = '{quoted}'{_BY_INDEX if by_index else ''}"
    try:
        await connection.execute(f"{begin}; {first}" if first else begin)
        yield
    except BaseException:
        if not connection.is_closed():
            await connection.execute("ROLLBACK")
        raise
    if await connection.execute("COMMIT") != "COMMIT":
        # PostgreSQL takes back a transaction in which a statement failed, and calls that no error.
        raise asyncpg.InFailedSQLTransactionError("nothing was committed: a statement of the transaction had failed")


async def _keep(_connection: asyncpg.Connection) -> None:
    """Leaves a connection that goes back to the pool as it is.

    Nothing here sets anything that outlives its transaction, so the round trip that resets a session would be in vain;
    and should it fail, a committed transaction would look like a failed one.
    """


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
