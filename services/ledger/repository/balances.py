"""SQL that reads balances as of two axes of time. Every function runs in the caller's transaction, one tenant's.

No row is written anew when something is booked that takes effect in the past. A balance of the past is that of a
position in the journal, which the account's last entry up to it says, corrected by the entries whose time of effect is
their own: less those up to the position that take effect later, and with those after it that had taken effect.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from mesh.database import Connection, Row
from mesh.money import INT64_MAX
from services.ledger.model.accounts import Account, Side
from services.ledger.model.reading import END_OF_TIME, Moment
from services.ledger.repository.accounts import ACCOUNT_COLUMNS, account_of
from services.ledger.repository.journals import Journal
from services.ledger.repository.positions import Position, find_archived, position_at


@dataclass(frozen=True, slots=True)
class Cut:
    """Which entries count: those up to `known` whose time of effect is not after `effective_time`.

    Of the entries that take effect at that very time, those up to `tie_sequence` count.

    Attributes:
        known: what had been booked.
        base_sequence: of the entries whose time of effect is that of booking, those up to it count.
        base_time: nothing up to base_sequence was booked later, and nothing after it earlier.
    """

    known: Position
    base_sequence: int
    base_time: datetime
    effective_time: datetime = END_OF_TIME
    tie_sequence: int = INT64_MAX

    @property
    def counts_all(self) -> bool:
        """Whether all that is known counts."""
        return self.effective_time == END_OF_TIME


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums of posted entries in minor units."""

    debits_minor: int = 0
    credits_minor: int = 0


NO_SUMS = Sums()


async def cut_at(connection: Connection, journal: Journal, moment: Moment) -> Cut:
    """The entries that count at a moment."""
    known = await position_at(connection, journal, moment.booking_time)
    return await cut_of(connection, journal, known, moment.effective_time)


async def cut_of(connection: Connection, journal: Journal, known: Position, effective_time: datetime | None) -> Cut:
    """Those of the known entries that had taken effect by a time, that time included; None means all of them."""
    if effective_time is None:
        return Cut(known, known.last_sequence, known.time)
    by_then = await position_at(connection, journal, effective_time)
    base = min(known, by_then, key=_last_sequence)
    return Cut(known, base.last_sequence, base.time, effective_time)


async def find_current_balance(
    connection: Connection, tenant_id: str, book_name: str, account_name: str
) -> tuple[Account, int] | None:
    """An account with its sums, and the sequence of the tenant's last entry at that very moment."""
    row = await connection.fetchrow(
        f"""
        SELECT {ACCOUNT_COLUMNS}, journals.last_sequence
        FROM books
        JOIN journals ON journals.journal_key = books.journal_key
        JOIN accounts ON accounts.book_key = books.book_key
        WHERE books.tenant_id = $1 AND books.book_name = $2 AND accounts.account_name = $3
        """,  # noqa: S608 - a constant
        tenant_id,
        book_name,
        account_name,
    )
    if row is None:
        return None
    *columns, last_sequence = row
    # account_of reads a row by its order alone.
    return account_of(cast("Row", columns)), last_sequence


async def find_balances(connection: Connection, accounts: Collection[Account], cut: Cut) -> dict[int, int]:
    """The balance of each account on its normal side, by account key.

    Takes one look into the index of each partition for each account, however much was booked on it.
    """
    keys = [account.account_key for account in accounts]
    rows = await connection.fetch(
        """
        SELECT accounts.account_key,
               coalesce(last.balance_after_minor, next.balance_before_minor, current.balance_minor) AS balance_minor
        FROM accounts
        LEFT JOIN LATERAL (
            SELECT entries.balance_after_minor FROM entries
            WHERE entries.account_key = accounts.account_key AND entries.sequence <= $2 AND entries.create_time <= $3
              AND NOT entries.pending
            ORDER BY entries.sequence DESC LIMIT 1
        ) AS last ON true
        CROSS JOIN LATERAL (SELECT accounts.type IN ('asset', 'expense') AS grows_by_debits) AS normal
        -- Its last entry up to then may be archived: then the first one after it says what was before.
        LEFT JOIN LATERAL (
            SELECT entries.balance_after_minor
                   - CASE WHEN (entries.side = 'debit') = normal.grows_by_debits THEN entries.amount_minor
                          ELSE -entries.amount_minor END AS balance_before_minor
            FROM entries
            WHERE last.balance_after_minor IS NULL AND entries.account_key = accounts.account_key
              AND entries.sequence > $2 AND entries.create_time >= $3 AND NOT entries.pending
            ORDER BY entries.sequence LIMIT 1
        ) AS next ON true
        CROSS JOIN LATERAL (
            SELECT CASE WHEN normal.grows_by_debits THEN accounts.debits_minor - accounts.credits_minor
                        ELSE accounts.credits_minor - accounts.debits_minor END AS balance_minor
        ) AS current
        WHERE accounts.account_key = ANY($1::bigint[])
        """,
        keys,
        cut.base_sequence,
        cut.base_time,
    )
    base: dict[int, int] = {row["account_key"]: row["balance_minor"] for row in rows}
    corrections = await _corrections(connection, keys, cut)
    balances = {}
    for account in accounts:
        correction = corrections.get(account.account_key, NO_SUMS)
        difference_minor = correction.debits_minor - correction.credits_minor
        grown_minor = difference_minor if account.type.normal_side is Side.DEBIT else -difference_minor
        balances[account.account_key] = base[account.account_key] + grown_minor
    return balances


async def find_sums(connection: Connection, journal: Journal, account_keys: Sequence[int], cut: Cut) -> dict[int, Sums]:
    """The sums of both sides of each account, by account key.

    Reads the entries up to the position or those after it, whichever are fewer in the journal; those after it, when
    some before it are archived.
    """
    if cut.base_sequence * 2 > journal.last_sequence or await find_archived(connection, journal):
        rows = await connection.fetch(
            # One statement, so that the sums and the entries that are taken off them are of one moment.
            """
            SELECT accounts.account_key, accounts.debits_minor - later.debits_minor AS debits_minor,
                   accounts.credits_minor - later.credits_minor AS credits_minor
            FROM accounts
            CROSS JOIN LATERAL (
                SELECT coalesce(sum(amount_minor) FILTER (WHERE side = 'debit'), 0) AS debits_minor,
                       coalesce(sum(amount_minor) FILTER (WHERE side = 'credit'), 0) AS credits_minor
                FROM entries
                WHERE entries.account_key = accounts.account_key AND entries.sequence > $2
                  AND entries.create_time >= $3 AND NOT entries.pending
            ) AS later
            WHERE accounts.account_key = ANY($1::bigint[])
            """,
            account_keys,
            cut.base_sequence,
            cut.base_time,
        )
    else:
        rows = await connection.fetch(
            """
            SELECT account_key, coalesce(sum(amount_minor) FILTER (WHERE side = 'debit'), 0) AS debits_minor,
                   coalesce(sum(amount_minor) FILTER (WHERE side = 'credit'), 0) AS credits_minor
            FROM entries
            WHERE account_key = ANY($1::bigint[]) AND sequence <= $2 AND create_time <= $3 AND NOT pending
            GROUP BY account_key
            """,
            account_keys,
            cut.base_sequence,
            cut.base_time,
        )
    sums = {row["account_key"]: sums_of(row) for row in rows}
    for account_key, correction in (await _corrections(connection, account_keys, cut)).items():
        base = sums.get(account_key, NO_SUMS)
        sums[account_key] = Sums(
            base.debits_minor + correction.debits_minor, base.credits_minor + correction.credits_minor
        )
    return sums


async def find_held_sums(connection: Connection, account_key: int, cut: Cut) -> Sums:
    """Sums of what was held on an account when `known` was all there was, and had taken effect.

    A hold that had ended by then, or whose time was over by the end of `known`, was held no more.
    """
    row = await connection.fetchrow(
        """
        SELECT coalesce(sum(amount_minor) FILTER (WHERE side = 'debit'), 0) AS debits_minor,
               coalesce(sum(amount_minor) FILTER (WHERE side = 'credit'), 0) AS credits_minor
        FROM entries
        JOIN holds ON holds.journal_key = entries.journal_key AND holds.leaf_index = entries.leaf_index
        WHERE entries.account_key = $1 AND entries.sequence <= $2 AND entries.pending
          AND (holds.ended_by_leaf_index IS NULL OR holds.ended_by_leaf_index >= $3)
          AND (holds.expire_time IS NULL OR holds.expire_time > $4) AND entries.create_time <= $4
          AND coalesce(entries.effective_time, entries.create_time) <= $5
        """,
        account_key,
        cut.known.last_sequence,
        cut.known.tree_size,
        cut.known.time,
        cut.effective_time,
    )
    return NO_SUMS if row is None else sums_of(row)


async def find_used(
    connection: Connection, account_keys: Sequence[int], cut: Cut, since: Cut | None = None
) -> set[int]:
    """Those of the accounts with a posted entry that counts, and did not yet count at the cut `since`."""
    rows = await connection.fetch(
        """
        SELECT wanted.account_key
        FROM unnest($1::bigint[]) AS wanted (account_key)
        -- Rows and not conditions: as these, the planner would look at all entries of all accounts.
        CROSS JOIN LATERAL (
            (SELECT FROM entries
             WHERE entries.account_key = wanted.account_key AND entries.sequence > $2 AND entries.sequence <= $3
               AND entries.create_time <= $4 AND entries.effective_time IS NULL AND NOT entries.pending
             LIMIT 1)
            UNION ALL
            (SELECT FROM entries
             WHERE entries.account_key = wanted.account_key AND entries.sequence <= $5
               AND entries.create_time <= $8 AND entries.effective_time > coalesce($6::timestamptz, '-infinity')
               AND entries.effective_time <= $7 AND NOT entries.pending
             LIMIT 1)
            LIMIT 1
        ) AS used
        """,
        account_keys,
        since.base_sequence if since else 0,
        cut.base_sequence,
        cut.base_time,
        cut.known.last_sequence,
        since.effective_time if since else None,
        cut.effective_time,
        cut.known.time,
    )
    return {row["account_key"] for row in rows}


async def _corrections(connection: Connection, account_keys: Sequence[int], cut: Cut) -> dict[int, Sums]:
    """What the entries with a time of effect of their own change in the sums up to base_sequence, by account key."""
    if cut.counts_all:
        return {}
    rows = await connection.fetch(
        """
        SELECT account_key, coalesce(sum(amount_minor) FILTER (WHERE side = 'debit'), 0) AS debits_minor,
               coalesce(sum(amount_minor) FILTER (WHERE side = 'credit'), 0) AS credits_minor
        FROM (
            SELECT account_key, side, -amount_minor AS amount_minor
            FROM entries
            WHERE account_key = ANY($1::bigint[]) AND sequence <= $2 AND create_time <= $6
              AND effective_time IS NOT NULL AND (effective_time, sequence) > ($4, $5) AND NOT pending
            UNION ALL
            SELECT account_key, side, amount_minor
            FROM entries
            WHERE account_key = ANY($1::bigint[]) AND sequence > $2 AND sequence <= $3 AND create_time >= $6
              AND effective_time IS NOT NULL AND (effective_time, sequence) <= ($4, $5) AND NOT pending
        ) AS corrections
        GROUP BY account_key
        """,
        account_keys,
        cut.base_sequence,
        cut.known.last_sequence,
        cut.effective_time,
        cut.tie_sequence,
        cut.base_time,
    )
    return {row["account_key"]: sums_of(row) for row in rows}


def _last_sequence(position: Position) -> int:
    return position.last_sequence


def sums_of(row: Row) -> Sums:
    """The sums in a row."""
    # PostgreSQL adds bigint up to numeric.
    return Sums(int(row["debits_minor"]), int(row["credits_minor"]))
