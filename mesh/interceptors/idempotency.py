"""The same request_id and body give the same answer, byte for byte; another body is refused.

The first call leaves a row with a lease that ends after its deadline; its answer is stored in the row. A failure that
invites a retry is not stored: the lease ends and the next call runs the handler again, which finds what the first left.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import asyncpg
import grpc
from google.rpc import status_pb2
from kente.options.v1.options_pb2 import Idempotency

from mesh.context import remaining_seconds
from mesh.database import Database
from mesh.errors import Problem, Reason
from mesh.interceptors.chain import Answer, Exchange, Proceed, serialize

# Failures that would be the same on a repetition, so the first is the answer for ever.
_DEFINITE_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
}
# Covers the time between the end of the deadline and the end of the handler.
_LEASE_GRACE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class _Key:
    tenant_id: str
    method: str
    request_id: str
    request_hash: bytes


class StoredAnswers:
    """Answers by tenant, method and request_id, in PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def __call__(self, exchange: Exchange, proceed: Proceed) -> Answer:
        """Gives the stored answer, or runs the handler and stores what it says."""
        if exchange.method.policy.idempotency != Idempotency.IDEMPOTENCY_REQUEST_ID:
            return await proceed(exchange)
        request_hash = hashlib.sha256(serialize(exchange.request)).digest()
        key = _Key(exchange.call.tenant_id, exchange.method.full_name, exchange.call.request_id, request_hash)
        stored = await self._begin(key)
        if stored is not None:
            return stored
        try:
            answer = serialize(await proceed(exchange))
        except Problem as problem:
            definite = problem.code in _DEFINITE_CODES
            await self._end(key, status=problem.to_status().SerializeToString() if definite else None)
            raise
        except BaseException:
            # Canceled or broken: the next call may begin at once.
            await asyncio.shield(self._end_quietly(key))
            raise
        await self._end(key, response=answer)
        return answer

    async def _begin(self, key: _Key) -> bytes | None:
        lease = timedelta(seconds=remaining_seconds() + _LEASE_GRACE_SECONDS)
        async with self._database.transaction(key.tenant_id) as connection:
            begun = await connection.fetchval(
                "INSERT INTO idempotency (tenant_id, method, request_id, request_hash, locked_until)"
                " VALUES ($1, $2, $3, $4, now() + $5) ON CONFLICT DO NOTHING RETURNING true",
                key.tenant_id,
                key.method,
                key.request_id,
                key.request_hash,
                lease,
            )
            if begun:
                return None
            row = await connection.fetchrow(
                "SELECT request_hash, response, status, extract(epoch FROM locked_until - now())::float8 AS locked"
                " FROM idempotency WHERE tenant_id = $1 AND method = $2 AND request_id = $3 FOR UPDATE",
                key.tenant_id,
                key.method,
                key.request_id,
            )
            if row is None:
                raise LookupError("an idempotency row vanished")
            answer = _stored_answer(key, row)
            if answer is None:
                await connection.execute(
                    "UPDATE idempotency SET locked_until = now() + $4"
                    " WHERE tenant_id = $1 AND method = $2 AND request_id = $3",
                    key.tenant_id,
                    key.method,
                    key.request_id,
                    lease,
                )
            return answer

    async def _end(self, key: _Key, *, response: bytes | None = None, status: bytes | None = None) -> None:
        async with self._database.transaction(key.tenant_id) as connection:
            await connection.execute(
                "UPDATE idempotency SET locked_until = NULL, response = $4, status = $5"
                " WHERE tenant_id = $1 AND method = $2 AND request_id = $3",
                key.tenant_id,
                key.method,
                key.request_id,
                response,
                status,
            )

    async def _end_quietly(self, key: _Key) -> None:
        # The database may be what broke. Then the lease ends by itself, and the first fault is the one to report.
        with suppress(Exception):
            await self._end(key)


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
