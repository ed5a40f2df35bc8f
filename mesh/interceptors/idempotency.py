"""The same request_id and body give the same answer, byte for byte; another body is refused.

The first call leaves a row with a short lease, which it renews for as long as it runs; its answer is stored in the row.
A failure that invites a retry is not stored: the lease ends and the next call runs the handler again, which finds what
the first left. So it does soon after the process of the first call died.
Should a run outlive its lease and another begin, the one that ends first gives the answer, to both.
"""

from __future__ import annotations

import asyncio
import hmac
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg
import grpc
from google.rpc import status_pb2
from kente.options.v1.options_pb2 import Idempotency

from mesh.database import DATABASE_ERRORS, Connection, Database, affected_rows
from mesh.errors import Problem, Reason
from mesh.interceptors.chain import Answer, Exchange, Proceed, serialize
from mesh.policies import Method

# Failures that would be the same on a repetition, so the first is the answer for ever.
_DEFINITE_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
}
# How long a repetition waits after the process of the first call died.
_LEASE = timedelta(seconds=3)
_RENEW_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Key:
    tenant_id: str
    method: str
    request_id: str
    request_hash: bytes

    @property
    def row(self) -> tuple[str, str, str]:
        """The primary key of its row."""
        return self.tenant_id, self.method, self.request_id


@dataclass(slots=True)
class _Lease:
    """The right to run the handler, until its end."""

    key: _Key
    end: datetime


class StoredAnswers:
    """Answers by tenant, method and request_id, in PostgreSQL."""

    def __init__(self, database: Database, hash_key: bytes) -> None:
        self._hash_key = hash_key
        self._database = database

    def applies_to(self, method: Method) -> bool:
        """Whether answers of the method are stored."""
        return bool(method.policy.idempotency == Idempotency.IDEMPOTENCY_REQUEST_ID)

    async def __call__(self, exchange: Exchange, proceed: Proceed) -> Answer:
        """Gives the stored answer, or runs the handler and stores what it says."""
        # Keyed: a request can hold a weak secret, which must not be guessed from what the table keeps of it.
        request_hash = hmac.digest(self._hash_key, serialize(exchange.request), "sha256")
        key = _Key(exchange.call.tenant_id, exchange.method.full_name, exchange.call.request_id, request_hash)
        begun = await self._begin(key)
        if isinstance(begun, bytes):
            return begun
        try:
            answer = serialize(await self._proceed_under(begun, exchange, proceed))
        except Problem as problem:
            if problem.code not in _DEFINITE_CODES:
                await asyncio.shield(self._release(begun))
                raise
            status = problem.to_status().SerializeToString()
            earlier = await asyncio.shield(self._store(key, status=status))
            if earlier is None:
                raise
            return earlier
        except BaseException:
            # Canceled or broken: the next call may begin at once.
            await asyncio.shield(self._release(begun))
            raise
        # What the handler did is done: a caller that leaves now must find the answer when it asks again.
        earlier = await asyncio.shield(self._store(key, response=answer))
        return answer if earlier is None else earlier

    async def _proceed_under(self, lease: _Lease, exchange: Exchange, proceed: Proceed) -> Answer:
        renewing = asyncio.create_task(self._renew(lease))
        try:
            return await proceed(exchange)
        finally:
            # Before the lease is released: a renewal after that would keep the next call waiting.
            renewing.cancel()

    async def _begin(self, key: _Key) -> bytes | _Lease:
        """The stored answer, or the lease under which the handler may run.

        Raises:
            Problem: REQUEST_ID_REUSED, REQUEST_IN_FLIGHT, or the stored failure.
        """
        async with self._database.transaction(key.tenant_id) as connection:
            locked_until: datetime | None = await connection.fetchval(
                "INSERT INTO idempotency (tenant_id, method, request_id, request_hash, locked_until)"
                " VALUES ($1, $2, $3, $4, now() + $5) ON CONFLICT DO NOTHING RETURNING locked_until",
                *key.row,
                key.request_hash,
                _LEASE,
            )
            if locked_until is not None:
                return _Lease(key, locked_until)
            answer = _stored_answer(key, await _row(connection, key))
            if answer is not None:
                return answer
            taken_until: datetime = await connection.fetchval(
                "UPDATE idempotency SET locked_until = now() + $4"
                " WHERE tenant_id = $1 AND method = $2 AND request_id = $3 RETURNING locked_until",
                *key.row,
                _LEASE,
            )
            return _Lease(key, taken_until)

    async def _renew(self, lease: _Lease) -> None:
        """Moves the end of a lease on, until it is canceled or another run has the lease."""
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            # A database that is away for longer than the lease lets another run begin, which the handler must bear.
            with suppress(*DATABASE_ERRORS):
                async with self._database.transaction(lease.key.tenant_id) as connection:
                    end: datetime | None = await connection.fetchval(
                        "UPDATE idempotency SET locked_until = now() + $5 WHERE tenant_id = $1 AND method = $2"
                        " AND request_id = $3 AND locked_until = $4 RETURNING locked_until",
                        *lease.key.row,
                        lease.end,
                        _LEASE,
                    )
                if end is None:
                    return
                lease.end = end

    async def _store(self, key: _Key, *, response: bytes | None = None, status: bytes | None = None) -> bytes | None:
        """Stores how the call ended. The first end is the answer for ever.

        Returns:
            None; or the answer that another run gave first, after this one had outlived its lease.

        Raises:
            Problem: the failure that another run ended with first.
        """
        async with self._database.transaction(key.tenant_id) as connection:
            changed = await connection.execute(
                "UPDATE idempotency SET locked_until = NULL, response = $4, status = $5"
                " WHERE tenant_id = $1 AND method = $2 AND request_id = $3 AND response IS NULL AND status IS NULL",
                *key.row,
                response,
                status,
            )
            if affected_rows(changed) == 1:
                return None
            return _stored_answer(key, await _row(connection, key))

    async def _release(self, lease: _Lease) -> None:
        """Ends the lease, unless another run holds it by now."""
        # The database may be what broke. Then the lease ends by itself, and the first fault is the one to report.
        with suppress(Exception):
            async with self._database.transaction(lease.key.tenant_id) as connection:
                await connection.execute(
                    "UPDATE idempotency SET locked_until = NULL"
                    " WHERE tenant_id = $1 AND method = $2 AND request_id = $3 AND locked_until = $4",
                    *lease.key.row,
                    lease.end,
                )


async def _row(connection: Connection, key: _Key) -> asyncpg.Record:
    row = await connection.fetchrow(
        "SELECT request_hash, response, status, extract(epoch FROM locked_until - now())::float8 AS locked"
        " FROM idempotency WHERE tenant_id = $1 AND method = $2 AND request_id = $3 FOR UPDATE",
        *key.row,
    )
    if row is None:
        raise LookupError("an idempotency row vanished")
    return row


def _stored_answer(key: _Key, row: asyncpg.Record) -> bytes | None:
    if row["request_hash"] != key.request_hash:
        detail = f"request_id {key.request_id} was used for another request body"
        raise Problem(Reason.REQUEST_ID_REUSED, detail, request_id=key.request_id)
    if row["response"] is not None:
        return bytes(row["response"])
    if row["status"] is not None:
        raise Problem.from_status(status_pb2.Status.FromString(row["status"]))
    if row["locked"] is not None and row["locked"] > 0:
        raise Problem(
            Reason.REQUEST_IN_FLIGHT,
            "the first call with this request_id has not ended",
            retry_after_seconds=min(row["locked"], 1.0),
            request_id=key.request_id,
        )
    return None
