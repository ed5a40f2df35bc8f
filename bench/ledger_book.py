"""A large book made by SQL, for looking at plans: as the ledger would have booked it, but for hashes and signatures.

One tenant with `transactions` transactions in batches of 64 over six months, one account that is in every other
transaction, 2,000 that share the rest, times of effect of their own for 4 % of the transactions, metadata for 3 %;
beside it another tenant with a tenth of that.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import asyncpg

FIRST_MONTH = datetime(2026, 6, 1, tzinfo=UTC)
MONTHS = 6
TENANT_ID = "ten_00000000000000000000000001"
OTHER_TENANT_ID = "ten_00000000000000000000000002"
HOT_ACCOUNT = "assets:settlement"
CUSTOMER = "liabilities:customers:0007"
BUSY_SOURCE = "payroll"

_JOURNAL = """
    WITH journal AS (INSERT INTO journals (tenant_id) VALUES ($1) RETURNING journal_key)
    INSERT INTO books (journal_key, tenant_id, book_name, create_time)
    SELECT journal_key, $1, 'main', $2 FROM journal
    RETURNING journal_key, book_key
"""
_ACCOUNTS = """
    INSERT INTO accounts (book_key, journal_key, tenant_id, account_name, type, currency, scale, display_name,
                          request_id, create_time, update_time)
    SELECT $1, $2, $3, account_name, type, 'GHS', 2, '', gen_random_uuid()::text, $4, $4
    FROM (
        SELECT $5::text AS account_name, 'asset' AS type
        UNION ALL
        SELECT 'liabilities:customers:' || lpad(number::text, 4, '0'), 'liability'
        FROM generate_series(1, 1900) AS number
        UNION ALL
        SELECT 'income:fees:' || lpad(number::text, 2, '0'), 'income' FROM generate_series(1, 50) AS number
        UNION ALL
        SELECT 'expenses:costs:' || lpad(number::text, 2, '0'), 'expense' FROM generate_series(1, 50) AS number
    ) AS drafts
"""
# Entries come two by two. The hot account is debited in every even transaction; all other places go round the accounts.
_DRAFT = """
    CREATE TEMPORARY TABLE draft ON COMMIT DROP AS
    WITH chosen AS (
        SELECT account_key, type, row_number() OVER (ORDER BY account_name) - 1 AS number
        FROM accounts WHERE book_key = $1 AND account_name <> $5
    ), hot AS (
        SELECT account_key, type FROM accounts WHERE book_key = $1 AND account_name = $5
    ), legs AS (
        SELECT leaf_index, leaf_index * 2 + 1 AS sequence, 'debit' AS side,
               CASE WHEN leaf_index % 2 = 0 THEN -1 ELSE (leaf_index * 7919) % 2000 END AS number
        FROM generate_series(0, $2::bigint - 1) AS leaf_index
        UNION ALL
        SELECT leaf_index, leaf_index * 2 + 2, 'credit', (leaf_index * 104729 + 1) % 2000
        FROM generate_series(0, $2::bigint - 1) AS leaf_index
    )
    SELECT legs.leaf_index, sequence, side, coalesce(chosen.account_key, hot.account_key) AS account_key,
           100 + leaf_index % 9900 AS amount_minor,
           CASE WHEN coalesce(chosen.type, hot.type) IN ('asset', 'expense') = (side = 'debit')
                THEN 1 ELSE -1 END * (100 + leaf_index % 9900) AS grown_minor,
           $3::timestamptz + (leaf_index / 64) * ($4::interval * 64 / $2::bigint) AS create_time
    FROM legs LEFT JOIN chosen USING (number) CROSS JOIN hot
"""
_EFFECTIVE_TIME = """
    CASE WHEN draft.leaf_index % 25 = 3
         THEN draft.create_time - make_interval(mins => (draft.leaf_index % 28800)::integer) END
"""
# Request and answer are as long as those of a posting of two legs.
_BOOK = f"""
    WITH booked AS (
        INSERT INTO transactions (journal_key, leaf_index, book_key, tenant_id, transaction_id, kind, first_sequence,
                                  entry_count, description, source_id, metadata, effective_time, create_time, leaf_hash,
                                  request, answer)
        SELECT $1, draft.leaf_index, $2, $3, 'txn_' || lpad(draft.leaf_index::text, 26, '0'), 'posting',
               draft.leaf_index * 2 + 1, 2, 'Order ' || draft.leaf_index,
               CASE WHEN draft.leaf_index % 200 = 7 THEN $4 ELSE 'pay_' || lpad(draft.leaf_index::text, 26, '0') END,
               CASE WHEN draft.leaf_index % 33 = 5
                    THEN jsonb_build_object('order', draft.leaf_index::text, 'channel', 'web') ELSE '{{}}' END,
               {_EFFECTIVE_TIME}, draft.create_time, sha256(draft.leaf_index::text::bytea),
               decode(repeat(md5(draft.leaf_index::text), 13), 'hex'),
               decode(repeat(md5(draft.leaf_index::text), 37), 'hex')
        FROM draft WHERE side = 'debit' ORDER BY draft.leaf_index
    )
    INSERT INTO entries (journal_key, sequence, leaf_index, account_key, tenant_id, side, pending, amount_minor,
                         balance_after_minor, effective_time, create_time)
    SELECT $1, sequence, leaf_index, account_key, $3, side, false, amount_minor,
           sum(grown_minor) OVER (PARTITION BY account_key ORDER BY sequence), {_EFFECTIVE_TIME}, create_time
    FROM draft ORDER BY sequence
"""  # noqa: S608 - a constant of this file
_SUMS = """
    UPDATE accounts SET debits_minor = sums.debits_minor, credits_minor = sums.credits_minor
    FROM (SELECT account_key, coalesce(sum(amount_minor) FILTER (WHERE side = 'debit'), 0) AS debits_minor,
                 coalesce(sum(amount_minor) FILTER (WHERE side = 'credit'), 0) AS credits_minor
          FROM draft GROUP BY account_key) AS sums
    WHERE sums.account_key = accounts.account_key
"""
_CHECKPOINTS = """
    INSERT INTO checkpoints (journal_key, tree_size, tenant_id, last_sequence, root_hash, note, create_time, event_ids)
    SELECT $1, max(leaf_index) + 1, $2, max(sequence), sha256(max(sequence)::text::bytea), repeat('n', 260),
           create_time, ARRAY['evt_' || lpad(max(sequence)::text, 26, '0')]
    FROM draft GROUP BY create_time ORDER BY create_time
"""
_HEAD = """
    UPDATE journals SET last_sequence = head.last_sequence, tree_size = head.tree_size,
                        last_create_time = head.last_create_time
    FROM (SELECT max(sequence) AS last_sequence, max(leaf_index) + 1 AS tree_size,
                 max(create_time) AS last_create_time FROM draft) AS head
    WHERE journal_key = $1
"""


async def make_book(connection: asyncpg.Connection[Any], transactions: int) -> None:
    """Makes both tenants' books; the connection is of the owner of the ledger's tables."""
    await connection.execute("SET search_path = ledger")
    # The second line of defence would look at each row; it is not what is measured here.
    await connection.execute("SET session_replication_role = replica")
    for month in range(MONTHS):
        await connection.execute(
            "SELECT ensure_entries_partition($1)", FIRST_MONTH.replace(month=FIRST_MONTH.month + month)
        )
    await _make_tenant(connection, OTHER_TENANT_ID, transactions // 10)
    await _make_tenant(connection, TENANT_ID, transactions)
    await connection.execute("RESET session_replication_role")
    await connection.execute("VACUUM ANALYZE")


async def _make_tenant(connection: asyncpg.Connection[Any], tenant_id: str, transactions: int) -> None:
    length = FIRST_MONTH.replace(month=FIRST_MONTH.month + MONTHS) - FIRST_MONTH
    async with connection.transaction():
        (row,) = await connection.fetch(_JOURNAL, tenant_id, FIRST_MONTH)
        journal_key, book_key = row["journal_key"], row["book_key"]
        await connection.execute(_ACCOUNTS, book_key, journal_key, tenant_id, FIRST_MONTH, HOT_ACCOUNT)
        await connection.execute(_DRAFT, book_key, transactions, FIRST_MONTH, length, HOT_ACCOUNT)
        await connection.execute(_BOOK, journal_key, book_key, tenant_id, BUSY_SOURCE)
        await connection.execute(_SUMS)
        await connection.execute(_CHECKPOINTS, journal_key, tenant_id)
        await connection.execute(_HEAD, journal_key)
