"""The baseline for batches: the bare statement, on one connection.

Each account's changes are added up first; accounts are locked in order and changed once; transfers and entries are
inserted from arrays that the client sends. One durable transaction a batch, and nothing that a ledger needs besides:
no checks, no balances after entries, no ids of callers, no answers, no events, no proofs.
"""

from __future__ import annotations

import asyncpg

from bench.ledger.drivers import closed_loop
from bench.ledger.traffic import Traffic

SCHEMA = """
    CREATE SCHEMA bulk_sql;
    SET search_path = bulk_sql;
    CREATE TABLE accounts (
        account_key   bigint PRIMARY KEY,
        balance_minor bigint NOT NULL DEFAULT 0
    ) WITH (fillfactor = 60);
    CREATE TABLE transfers (
        transfer_key bigint      PRIMARY KEY,
        debit_key    bigint      NOT NULL,
        credit_key   bigint      NOT NULL,
        amount_minor bigint      NOT NULL,
        create_time  timestamptz NOT NULL DEFAULT now()
    );
    CREATE TABLE entries (
        entry_key    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        transfer_key bigint NOT NULL,
        account_key  bigint NOT NULL,
        amount_minor bigint NOT NULL
    );
    CREATE INDEX entries_by_account ON entries (account_key, entry_key);
"""

_BATCH = """
    WITH given AS MATERIALIZED (
        SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) WITH ORDINALITY
            AS given (debit_key, credit_key, amount_minor, place)
    ), net AS (
        SELECT account_key, sum(change_minor)::bigint AS change_minor
        FROM (SELECT debit_key AS account_key, -amount_minor AS change_minor FROM given
              UNION ALL SELECT credit_key, amount_minor FROM given) AS changes
        GROUP BY account_key
    ), locked AS (
        SELECT accounts.account_key FROM accounts JOIN net USING (account_key)
        ORDER BY accounts.account_key FOR NO KEY UPDATE OF accounts
    ), changed AS (
        UPDATE accounts SET balance_minor = accounts.balance_minor + net.change_minor
        FROM net JOIN locked USING (account_key) WHERE accounts.account_key = net.account_key
        RETURNING 1
    ), booked AS (
        INSERT INTO transfers (transfer_key, debit_key, credit_key, amount_minor)
        SELECT $4 + place, debit_key, credit_key, amount_minor FROM given WHERE (SELECT count(*) FROM changed) > 0
    )
    INSERT INTO entries (transfer_key, account_key, amount_minor)
    SELECT $4 + place, leg.account_key, leg.change_minor
    FROM given, LATERAL (VALUES (debit_key, -amount_minor), (credit_key, amount_minor))
        AS leg (account_key, change_minor)
"""


class BulkSql:
    """The bare statement, and its tables."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._booked = 0

    @classmethod
    async def create(cls, admin_url: str, account_count: int) -> BulkSql:
        """Makes the tables and the accounts."""
        connection = await asyncpg.connect(admin_url)
        await connection.execute(SCHEMA)
        await connection.execute("INSERT INTO accounts (account_key) SELECT generate_series(0, $1)", account_count - 1)
        await connection.execute("VACUUM ANALYZE accounts")
        return cls(connection)

    async def rate(self, traffic: Traffic, size: int, seconds: float) -> float:
        """Transfers a second, in batches of this size."""

        async def batch() -> None:
            await self._connection.execute(_BATCH, *traffic.arrays(size), self._booked)
            self._booked += size

        return await closed_loop(batch, 1, seconds) * size

    async def close(self) -> None:
        """Closes its connection."""
        await self._connection.close()
