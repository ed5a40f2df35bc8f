"""All SQL of the ledger. Every function runs in the caller's transaction, which is one tenant's.

Row-level security limits each statement to that tenant; statements name it as well where an index begins with it.
"""

# ruff: noqa: S608 - only constants and parameter numbers of this file are put into a statement, never a value

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import asyncpg

from mesh.database import Connection, Row
from mesh.money import Money
from services.ledger.model import (
    Account,
    AccountDraft,
    AccountState,
    AccountType,
    Entry,
    EvaluatedLeg,
    Movement,
    Posting,
    Side,
    Transaction,
)

_ACCOUNT_COLUMNS = (
    "account_key, account_name, type, currency, state, display_name, debits_minor, credits_minor, create_time"
)
# A posting that failed so is right to try again: nothing of it was written.
_CONTENTION_ERRORS = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
_TRANSACTION_ID_TAKEN = "transactions_tenant_id_transaction_id_key"
_SELECT_ENTRIES = """
    SELECT entries.sequence, transactions.transaction_id, accounts.account_name, accounts.currency, entries.side,
           entries.amount_minor, entries.balance_after_minor, entries.create_time
    FROM entries
    JOIN transactions ON transactions.book_key = entries.book_key
                     AND transactions.first_sequence = entries.first_sequence
    JOIN accounts ON accounts.account_key = entries.account_key
"""
# The book is locked here, after all accounts. Its row gives the entries their numbers and their time.
_INSERT_TRANSACTION = """
    WITH book AS (
        UPDATE books
        SET last_sequence = last_sequence + cardinality($6::bigint[]),
            last_create_time = greatest(last_create_time, clock_timestamp())
        WHERE tenant_id = $1
        RETURNING book_key, last_sequence - cardinality($6::bigint[]) + 1 AS first_sequence, last_sequence,
                  last_create_time AS create_time
    ), moved AS (
        UPDATE accounts
        SET debits_minor = accounts.debits_minor + movement.debits_minor,
            credits_minor = accounts.credits_minor + movement.credits_minor
        FROM unnest($10::bigint[], $11::bigint[], $12::bigint[])
             AS movement (account_key, debits_minor, credits_minor)
        WHERE accounts.account_key = movement.account_key
    ), booked AS (
        INSERT INTO transactions (book_key, first_sequence, last_sequence, tenant_id, transaction_id, description,
                                  source_id, effective_time, create_time)
        SELECT book_key, first_sequence, last_sequence, $1, $2, $3, $4, $5, create_time FROM book
    ), entered AS (
        INSERT INTO entries (book_key, sequence, first_sequence, account_key, tenant_id, side, amount_minor,
                             balance_after_minor, create_time)
        SELECT book_key, first_sequence + number - 1, first_sequence, account_key, $1, side, amount_minor,
               balance_after_minor, create_time
        FROM book, unnest($6::bigint[], $7::text[], $8::bigint[], $9::bigint[])
                   WITH ORDINALITY AS leg (account_key, side, amount_minor, balance_after_minor, number)
    )
    SELECT first_sequence, create_time FROM book
"""


async def insert_account(
    connection: Connection, tenant_id: str, request_id: str, draft: AccountDraft
) -> Account | None:
    """Writes an account, and the tenant's book before its first one; None when the name or request id is taken."""
    await connection.execute("INSERT INTO books (tenant_id) VALUES ($1) ON CONFLICT (tenant_id) DO NOTHING", tenant_id)
    row = await connection.fetchrow(
        f"""
        INSERT INTO accounts (book_key, tenant_id, request_id, account_name, type, currency, display_name)
        SELECT book_key, $1, $2, $3, $4, $5, $6 FROM books WHERE tenant_id = $1
        ON CONFLICT DO NOTHING
        RETURNING {_ACCOUNT_COLUMNS}
        """,
        tenant_id,
        request_id,
        draft.account_name,
        draft.type.value,
        draft.currency,
        draft.display_name,
    )
    return _account(row) if row else None


async def find_account(connection: Connection, tenant_id: str, account_name: str) -> Account | None:
    """The account of that name."""
    row = await connection.fetchrow(
        f"SELECT {_ACCOUNT_COLUMNS} FROM accounts WHERE tenant_id = $1 AND account_name = $2", tenant_id, account_name
    )
    return _account(row) if row else None


async def find_account_of_request(connection: Connection, tenant_id: str, request_id: str) -> Account | None:
    """The account that a request created."""
    row = await connection.fetchrow(
        f"SELECT {_ACCOUNT_COLUMNS} FROM accounts WHERE tenant_id = $1 AND request_id = $2", tenant_id, request_id
    )
    return _account(row) if row else None


async def list_accounts(
    connection: Connection, tenant_id: str, *, name_prefix: str, after_name: str, limit: int
) -> list[Account]:
    """Accounts by name, from the first whose name begins with the prefix and sorts after `after_name`."""
    rows = await connection.fetch(
        # A range instead of starts_with, because only a range can use the index. No name holds a byte above "~".
        f"""
        SELECT {_ACCOUNT_COLUMNS} FROM accounts
        WHERE tenant_id = $1 AND account_name > $2 AND account_name >= $3 AND account_name < $3 || '~'
        ORDER BY account_name LIMIT $4
        """,
        tenant_id,
        after_name,
        name_prefix,
        limit,
    )
    return [_account(row) for row in rows]


async def lock_accounts(connection: Connection, tenant_id: str, account_names: Sequence[str]) -> list[Account]:
    """Those of the accounts that exist, locked until the end of the transaction.

    Every posting locks in the order of names, and the book after all accounts, so postings can't wait in a circle.
    """
    rows = await connection.fetch(
        f"""
        SELECT {_ACCOUNT_COLUMNS} FROM accounts
        WHERE tenant_id = $1 AND account_name = ANY($2::text[])
        ORDER BY account_name FOR NO KEY UPDATE
        """,
        tenant_id,
        account_names,
    )
    return [_account(row) for row in rows]


async def insert_transaction(
    connection: Connection,
    tenant_id: str,
    posting: Posting,
    evaluated: Sequence[EvaluatedLeg],
    movements: Sequence[Movement],
) -> Transaction:
    """Books an evaluated posting: one statement, one change a touched account.

    Raises:
        asyncpg.UniqueViolationError: the id was booked since it was looked for; see `is_contention`.
    """
    row = await connection.fetchrow(
        _INSERT_TRANSACTION,
        tenant_id,
        posting.transaction_id,
        posting.description,
        posting.source_id,
        posting.effective_time,
        [leg.account_key for leg in evaluated],
        [leg.leg.side.value for leg in evaluated],
        [leg.leg.amount.amount_minor for leg in evaluated],
        [leg.balance_after.amount_minor for leg in evaluated],
        [movement.account_key for movement in movements],
        [movement.debits_minor for movement in movements],
        [movement.credits_minor for movement in movements],
    )
    if row is None:
        raise LookupError("accounts are locked whose tenant has no book")
    first_sequence: int = row["first_sequence"]
    create_time: datetime = row["create_time"]
    entries = tuple(
        Entry(
            sequence=first_sequence + index,
            transaction_id=posting.transaction_id,
            account_name=leg.leg.account_name,
            side=leg.leg.side,
            amount=leg.leg.amount,
            balance_after=leg.balance_after,
            create_time=create_time,
        )
        for index, leg in enumerate(evaluated)
    )
    return Transaction(
        transaction_id=posting.transaction_id,
        description=posting.description,
        source_id=posting.source_id,
        entries=entries,
        effective_time=posting.effective_time,
        create_time=create_time,
    )


async def find_transaction(connection: Connection, tenant_id: str, transaction_id: str) -> Transaction | None:
    """The transaction of that id, with its entries."""
    row = await connection.fetchrow(
        """
        SELECT book_key, first_sequence, last_sequence, description, source_id, effective_time, create_time
        FROM transactions WHERE tenant_id = $1 AND transaction_id = $2
        """,
        tenant_id,
        transaction_id,
    )
    if row is None:
        return None
    entry_rows = await connection.fetch(
        _SELECT_ENTRIES
        + "WHERE entries.book_key = $1 AND entries.sequence BETWEEN $2 AND $3 ORDER BY entries.sequence",
        row["book_key"],
        row["first_sequence"],
        row["last_sequence"],
    )
    return Transaction(
        transaction_id=transaction_id,
        description=row["description"],
        source_id=row["source_id"],
        entries=tuple(_entry(entry_row) for entry_row in entry_rows),
        effective_time=row["effective_time"],
        create_time=row["create_time"],
    )


async def list_entries(
    connection: Connection, tenant_id: str, *, account_name: str, source_id: str, after_sequence: int, limit: int
) -> list[Entry]:
    """Entries in the order they were booked; an empty filter lets all through."""
    arguments: list[str | int] = [tenant_id, after_sequence, limit]
    conditions = ["entries.sequence > $2"]
    if account_name:
        arguments.append(account_name)
        conditions.append(
            "entries.account_key = (SELECT account_key FROM accounts"
            f" WHERE tenant_id = $1 AND account_name = ${len(arguments)})"
        )
    if source_id:
        arguments.append(source_id)
        # The range is what finds the entries of a transaction by their primary key.
        conditions.append(
            f"transactions.tenant_id = $1 AND transactions.source_id = ${len(arguments)}"
            " AND transactions.source_id <> ''"
            " AND entries.sequence BETWEEN transactions.first_sequence AND transactions.last_sequence"
        )
    if not account_name and not source_id:
        conditions.append("entries.book_key = (SELECT book_key FROM books WHERE tenant_id = $1)")
    rows = await connection.fetch(
        _SELECT_ENTRIES + f"WHERE {' AND '.join(conditions)} ORDER BY entries.sequence LIMIT $3", *arguments
    )
    return [_entry(row) for row in rows]


def is_contention(error: Exception) -> bool:
    """Whether the same work, done again in a new transaction, can succeed: another transaction stood in the way."""
    if isinstance(error, asyncpg.UniqueViolationError):
        return error.constraint_name == _TRANSACTION_ID_TAKEN
    return isinstance(error, _CONTENTION_ERRORS)


def _account(row: Row) -> Account:
    return Account(
        account_key=row["account_key"],
        account_name=row["account_name"],
        type=AccountType(row["type"]),
        currency=row["currency"],
        state=AccountState(row["state"]),
        display_name=row["display_name"],
        debits_minor=row["debits_minor"],
        credits_minor=row["credits_minor"],
        create_time=row["create_time"],
    )


def _entry(row: Row) -> Entry:
    return Entry(
        sequence=row["sequence"],
        transaction_id=row["transaction_id"],
        account_name=row["account_name"],
        side=Side(row["side"]),
        amount=Money(row["amount_minor"], row["currency"]),
        balance_after=Money(row["balance_after_minor"], row["currency"]),
        create_time=row["create_time"],
    )
