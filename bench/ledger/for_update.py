"""The baseline for single postings: a hand-written service that books each transfer in a transaction of its own.

    python -m bench.ledger.for_update PORT DATABASE_URL

It answers the ledger's own CreateTransaction, so that the same client drives both, and does what such services do: lock
both accounts in order, check, change both balances, write the transfer and its two entries, commit. No tenants, no
credentials, no audit, no stored answers, no proofs, no events.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import asyncpg
import grpc
import uvloop
from kente.ledger.v1.ledger_service_pb2 import CreateTransactionRequest, CreateTransactionResponse

METHOD = "/kente.ledger.v1.LedgerService/CreateTransaction"
# More do not make it faster on two cores, fewer make it slower.
_POOL_SIZE = 16

SCHEMA = """
    CREATE SCHEMA for_update;
    SET search_path = for_update;
    CREATE TABLE accounts (
        account_name  text    PRIMARY KEY,
        currency      text    NOT NULL,
        balance_minor bigint  NOT NULL DEFAULT 0,
        is_open       boolean NOT NULL DEFAULT true
    ) WITH (fillfactor = 60);
    CREATE TABLE transfers (
        transfer_id text        PRIMARY KEY,
        create_time timestamptz NOT NULL DEFAULT now()
    );
    CREATE TABLE entries (
        entry_id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        transfer_id         text   NOT NULL REFERENCES transfers,
        account_name        text   NOT NULL,
        amount_minor        bigint NOT NULL,
        balance_after_minor bigint NOT NULL
    );
    CREATE INDEX entries_by_account ON entries (account_name, entry_id);
"""


class Baseline(grpc.GenericRpcHandler):
    """The one RPC."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._handler = grpc.unary_unary_rpc_method_handler(
            self._create_transaction,
            request_deserializer=CreateTransactionRequest.FromString,
            response_serializer=CreateTransactionResponse.SerializeToString,
        )

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of a call."""
        return self._handler if handler_call_details.method == METHOD else None

    async def _create_transaction(
        self, request: CreateTransactionRequest, _context: object
    ) -> CreateTransactionResponse:
        debit, credit = (leg.account_name for leg in request.legs)
        amount = request.legs[0].amount
        async with self._pool.acquire() as connection, connection.transaction():
            rows = await connection.fetch(
                "SELECT account_name, currency, balance_minor, is_open FROM accounts"
                " WHERE account_name IN ($1, $2) ORDER BY account_name FOR UPDATE",
                debit,
                credit,
            )
            found = {row["account_name"]: row for row in rows}
            if any(not row["is_open"] or row["currency"] != amount.currency for row in rows) or len(found) != 2:  # noqa: PLR2004 - both
                raise ValueError("an account can't take part")
            balances = []
            for name, change in ((debit, -amount.amount_minor), (credit, amount.amount_minor)):
                balances.append(found[name]["balance_minor"] + change)
                await connection.execute(
                    "UPDATE accounts SET balance_minor = $2 WHERE account_name = $1", name, balances[-1]
                )
            await connection.execute("INSERT INTO transfers (transfer_id) VALUES ($1)", request.transaction_id)
            await connection.execute(
                "INSERT INTO entries (transfer_id, account_name, amount_minor, balance_after_minor)"
                " VALUES ($1, $2, $3, $4), ($1, $5, $6, $7)",
                *(request.transaction_id, debit, -amount.amount_minor, balances[0]),
                *(credit, amount.amount_minor, balances[1]),
            )
        response = CreateTransactionResponse()
        response.transaction.transaction_id = request.transaction_id
        return response


async def serve(port: int, database_url: str) -> None:
    """Serves until SIGTERM."""
    pool = await asyncpg.create_pool(
        database_url, min_size=_POOL_SIZE, max_size=_POOL_SIZE, server_settings={"search_path": "for_update"}
    )
    server = grpc.aio.server(handlers=[Baseline(pool)])
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await stopping.wait()
    await server.stop(1)
    await pool.close()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2]))
