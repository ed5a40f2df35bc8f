"""SQL that lists entries in the order of their sequence.

What leads to a page of them depends on what is asked for: a source and metadata name transactions, some accounts have
an index of their own, and everything else is read in the order of the journal until the page is full.
"""

# ruff: noqa: S608 - only constants and parameter numbers of this file are put into a statement, never a value

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from mesh.database import Connection, Row
from services.ledger.model.accounts import Side
from services.ledger.model.postings import Entry
from services.ledger.model.reading import BEGINNING_OF_TIME, BookedEntry, EntryFilter
from services.ledger.repository.arguments import Arguments
from services.ledger.repository.journals import Journal
from services.ledger.repository.planning import prefer_order
from services.ledger.repository.positions import position_at
from services.ledger.repository.transactions import find_leaves

# In the order in which booked_entry_of reads them.
BOOKED_ENTRY_COLUMNS = """
    entries.sequence, accounts.account_name, entries.side, entries.pending, entries.amount_minor, accounts.currency,
    entries.balance_after_minor, transactions.transaction_id, transactions.leaf_index, transactions.description,
    transactions.source_id, entries.effective_time, entries.create_time
"""
# So much of the journal is read in one call at most, whatever is looked for in it.
MOST_SEQUENCES = 100_000
# Up to so many accounts, each is asked for its next entries; with more, reading the journal is quicker.
_MAX_ACCOUNTS = 100
# Sorts after every character of an account's name.
_LAST_CHARACTER = "~"

_JOIN_ACCOUNTS = "JOIN accounts ON accounts.account_key = entries.account_key"
_JOIN_TRANSACTIONS = """
    JOIN transactions ON transactions.journal_key = entries.journal_key
                     AND transactions.leaf_index = entries.leaf_index
"""


@dataclass(frozen=True, slots=True)
class EntryPlace:
    """Where a page ended: the sequence of an entry, the leaf of its transaction, and when it was booked."""

    sequence: int = 0
    leaf_index: int = 0
    create_time: datetime = BEGINNING_OF_TIME


def booked_entry_of(row: Row) -> BookedEntry:
    """The entry in a row of BOOKED_ENTRY_COLUMNS."""
    (
        sequence,
        account_name,
        side,
        pending,
        amount_minor,
        currency,
        balance_after_minor,
        transaction_id,
        leaf_index,
        description,
        source_id,
        effective_time,
        create_time,
    ) = row
    entry = Entry(sequence, account_name, Side(side), pending, amount_minor, currency, balance_after_minor)
    return BookedEntry(entry, transaction_id, leaf_index, description, source_id, effective_time, create_time)


async def list_entries(
    connection: Connection, journal: Journal, wanted: EntryFilter, *, after: EntryPlace, limit: int
) -> tuple[list[BookedEntry], EntryPlace | None]:
    """Entries in the order they were booked, and where to go on; None when there are no more.

    There may be fewer than the limit, or none, and more to come: one call reads only a stretch of the journal.
    """
    more_after: EntryPlace | None = None
    if wanted.source_id:
        statement, arguments = await _of_transactions(connection, journal, wanted, after, None)
    elif wanted.metadata:
        leaves = await _leaves(connection, journal, wanted, after, limit + 1)
        if len(leaves) > limit:
            more_after = EntryPlace(after.sequence, leaves[-1] + 1, after.create_time)
        statement, arguments = await _of_transactions(connection, journal, wanted, after, leaves)
    else:
        account_keys = await _few_accounts(connection, journal, wanted)
        if account_keys is None:
            begin_sequence = await _begin_sequence(connection, journal, wanted, after)
            end_sequence = begin_sequence + MOST_SEQUENCES
            if end_sequence < journal.last_sequence:
                more_after = EntryPlace(end_sequence, after.leaf_index, after.create_time)
            statement, arguments = await _of_journal(connection, journal, wanted, after, end_sequence)
        else:
            statement, arguments = await _of_accounts(connection, journal, wanted, after, account_keys)
    await prefer_order(connection)
    # The limit is in the statement several times.
    rows = await connection.fetch(statement.replace("LIMIT_ROWS", arguments.add(limit + 1)), *arguments)
    found = [booked_entry_of(row) for row in rows[:limit]]
    if len(rows) > limit:
        last = found[-1]
        return found, EntryPlace(last.entry.sequence, last.leaf_index, last.create_time)
    return found, more_after


async def _leaves(
    connection: Connection, journal: Journal, wanted: EntryFilter, after: EntryPlace, limit: int
) -> list[int]:
    """The next transactions with the metadata that are wanted."""
    begin, end = after.leaf_index, journal.tree_size
    if wanted.booked.last_time_before is not None:
        begin = max(begin, (await position_at(connection, journal, wanted.booked.last_time_before)).tree_size)
    if wanted.booked.last_time is not None:
        end = (await position_at(connection, journal, wanted.booked.last_time)).tree_size
    return await find_leaves(connection, journal, wanted.metadata, (begin - 1, end), limit)


async def _of_transactions(
    connection: Connection, journal: Journal, wanted: EntryFilter, after: EntryPlace, leaves: list[int] | None
) -> tuple[str, Arguments]:
    """Transaction by transaction: by the index of sources, or those of the leaves."""
    arguments = Arguments()
    if leaves is None:
        found = f"""
            tenant_id = {arguments.add(journal.tenant_id)} AND source_id = {arguments.add(wanted.source_id)}
            AND source_id <> '' {_metadata_condition(wanted, arguments)}
        """
    else:
        found = f"""
            journal_key = {arguments.add(journal.journal_key)}
            AND leaf_index = ANY({arguments.add(leaves)}::bigint[])
        """
    # The limits of each transaction are computed below the join, because an index can only be compared with columns.
    statement = f"""
        SELECT {BOOKED_ENTRY_COLUMNS}
        FROM (
            SELECT journal_key, leaf_index, transaction_id, description, source_id, create_time, first_sequence,
                   first_sequence + entry_count AS end_sequence
            FROM transactions
            WHERE leaf_index >= {arguments.add(after.leaf_index)} AND {found}
            ORDER BY leaf_index
        ) AS transactions
        JOIN entries ON entries.journal_key = transactions.journal_key
                    AND entries.create_time = transactions.create_time
                    AND entries.sequence >= transactions.first_sequence
                    AND entries.sequence < transactions.end_sequence
        {_JOIN_ACCOUNTS}
        WHERE {await _entry_conditions(connection, journal, wanted, after, arguments)}
          AND {_account_conditions(journal, wanted, arguments)}
        ORDER BY transactions.leaf_index, entries.sequence LIMIT LIMIT_ROWS
    """
    return statement, arguments


async def _of_accounts(
    connection: Connection, journal: Journal, wanted: EntryFilter, after: EntryPlace, account_keys: list[int]
) -> tuple[str, Arguments]:
    """By the index of accounts: the next entries of each, of which the first are taken."""
    arguments = Arguments()
    statement = f"""
        WITH page AS MATERIALIZED (
            SELECT picked.*
            FROM unnest({arguments.add(account_keys)}::bigint[]) AS wanted (account_key)
            CROSS JOIN LATERAL (
                SELECT entries.* FROM entries
                WHERE entries.account_key = wanted.account_key
                  AND {await _entry_conditions(connection, journal, wanted, after, arguments)}
                ORDER BY entries.sequence LIMIT LIMIT_ROWS
            ) AS picked
            ORDER BY picked.sequence LIMIT LIMIT_ROWS
        )
        SELECT {BOOKED_ENTRY_COLUMNS}
        FROM page AS entries {_JOIN_ACCOUNTS} {_JOIN_TRANSACTIONS}
        ORDER BY entries.sequence
    """
    return statement, arguments


async def _of_journal(
    connection: Connection, journal: Journal, wanted: EntryFilter, after: EntryPlace, end_sequence: int
) -> tuple[str, Arguments]:
    """By the primary key: the journal in its order, until the page is full or the stretch is read."""
    arguments = Arguments()
    statement = f"""
        SELECT {BOOKED_ENTRY_COLUMNS}
        FROM entries {_JOIN_ACCOUNTS} {_JOIN_TRANSACTIONS}
        WHERE entries.journal_key = {arguments.add(journal.journal_key)}
          AND entries.sequence <= {arguments.add(end_sequence)}
          AND {await _entry_conditions(connection, journal, wanted, after, arguments)}
          AND {_account_conditions(journal, wanted, arguments)}
        ORDER BY entries.sequence LIMIT LIMIT_ROWS
    """
    return statement, arguments


async def _few_accounts(connection: Connection, journal: Journal, wanted: EntryFilter) -> list[int] | None:
    """The keys of the accounts that it is about; None when it is about many."""
    if not wanted.names_accounts:
        return None
    arguments = Arguments()
    rows = await connection.fetch(
        f"""
        SELECT account_key FROM accounts
        WHERE {_account_conditions(journal, wanted, arguments)} LIMIT {arguments.add(_MAX_ACCOUNTS + 1)}
        """,
        *arguments,
    )
    return None if len(rows) > _MAX_ACCOUNTS else [row["account_key"] for row in rows]


def _account_conditions(journal: Journal, wanted: EntryFilter, arguments: Arguments) -> str:
    conditions = [
        f"""accounts.book_key = (
                SELECT books.book_key FROM books
                WHERE books.tenant_id = {arguments.add(journal.tenant_id)}
                  AND books.book_name = {arguments.add(wanted.book_name)})"""
    ]
    if wanted.account_name:
        conditions.append(f"accounts.account_name = {arguments.add(wanted.account_name)}")
    if wanted.account_name_prefix:
        # A range instead of starts_with, because only a range can use the index.
        first, end = wanted.account_name_prefix, wanted.account_name_prefix + _LAST_CHARACTER
        conditions.append(f"accounts.account_name >= {arguments.add(first)}")
        conditions.append(f"accounts.account_name < {arguments.add(end)}")
    if wanted.account_type is not None:
        conditions.append(f"accounts.type = {arguments.add(wanted.account_type.value)}")
    return " AND ".join(conditions)


async def _begin_sequence(connection: Connection, journal: Journal, wanted: EntryFilter, after: EntryPlace) -> int:
    """The entries that are wanted come after it."""
    if wanted.booked.last_time_before is None:
        return after.sequence
    before = await position_at(connection, journal, wanted.booked.last_time_before)
    return max(after.sequence, before.last_sequence)


async def _entry_conditions(
    connection: Connection, journal: Journal, wanted: EntryFilter, after: EntryPlace, arguments: Arguments
) -> str:
    """On `entries`. Each limit of time is said twice: as a sequence for the index, and as a time for the partitions."""
    sequence = await _begin_sequence(connection, journal, wanted, after)
    time = max(after.create_time, wanted.booked.start_time or BEGINNING_OF_TIME)
    conditions = [f"entries.sequence > {arguments.add(sequence)} AND entries.create_time >= {arguments.add(time)}"]
    if wanted.booked.last_time is not None:
        until = await position_at(connection, journal, wanted.booked.last_time)
        conditions.append(f"entries.sequence <= {arguments.add(until.last_sequence)}")
        conditions.append(f"entries.create_time <= {arguments.add(wanted.booked.last_time)}")
    if wanted.side is not None:
        conditions.append(f"entries.side = {arguments.add(wanted.side.value)}")
    if wanted.min_amount_minor is not None:
        conditions.append(f"entries.amount_minor >= {arguments.add(wanted.min_amount_minor)}")
    if wanted.max_amount_minor is not None:
        conditions.append(f"entries.amount_minor <= {arguments.add(wanted.max_amount_minor)}")
    return " AND ".join(conditions)


def _metadata_condition(wanted: EntryFilter, arguments: Arguments) -> str:
    """On `transactions`, to be put after another condition."""
    if not wanted.metadata:
        return ""
    return f"AND transactions.metadata @> {arguments.add(json.dumps(dict(wanted.metadata)))}::text::jsonb"
