"""SQL of accounts. Every function runs in the caller's transaction, which is one tenant's.

Whoever writes has locked the tenant's journal: see journals.
"""

# ruff: noqa: S608 - only constants of this file are put into a statement, never a value

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from mesh.database import Connection, Row
from services.ledger.model.accounts import (
    NO_LIMITS,
    Account,
    AccountDraft,
    AccountLimits,
    AccountState,
    AccountType,
    PostableAccount,
)

# The order in which a PostableAccount is made of them, but for the name of its book.
_POSTABLE_COLUMNS = """
    accounts.account_key, accounts.account_name, accounts.type, accounts.currency, accounts.state,
    accounts.min_balance_minor, accounts.max_balance_minor, accounts.credit_limit_minor,
    accounts.debits_minor, accounts.credits_minor, accounts.pending_debits_minor, accounts.pending_credits_minor
"""
# The order in which account_of reads them. They come from `accounts` joined with `books`.
ACCOUNT_COLUMNS = f"""
    books.book_name, {_POSTABLE_COLUMNS}, accounts.account_number, accounts.scale, accounts.display_name,
    accounts.metadata, accounts.create_time, accounts.update_time
"""
# Where those of a PostableAccount end among them, after the name of the book.
_POSTABLE_END = len(["book_name", *_POSTABLE_COLUMNS.split(",")])
_TYPES = {type_.value: type_ for type_ in AccountType}
_STATES = {state.value: state for state in AccountState}
# Sorts after every character of an account's name.
_LAST_CHARACTER = "~"

# One book at a time: only so are all names found in one walk along the index. The sub-query keeps the planner from
# weighing each name of the list.
_FIND_ACCOUNTS = f"""
    SELECT {ACCOUNT_COLUMNS}
    FROM books JOIN accounts ON accounts.book_key = books.book_key
    WHERE books.tenant_id = $1 AND books.book_name = $2
      AND accounts.account_name = ANY(ARRAY(SELECT unnest($3::text[])))
"""
_FIND_POSTABLE_ACCOUNTS = f"""
    SELECT {_POSTABLE_COLUMNS} FROM accounts
    WHERE accounts.book_key = $1 AND accounts.account_name = ANY(ARRAY(SELECT unnest($2::text[])))
"""
_FIND_ACCOUNT = f"""
    SELECT {ACCOUNT_COLUMNS}
    FROM books JOIN accounts ON accounts.book_key = books.book_key
    WHERE books.tenant_id = $1 AND books.book_name = $2 AND accounts.account_name = $3
"""
_INSERT_ACCOUNTS = f"""
    WITH accounts AS (
        INSERT INTO accounts (book_key, journal_key, tenant_id, request_id, account_name, account_number, type,
                              currency, scale, display_name, metadata, min_balance_minor, max_balance_minor,
                              credit_limit_minor, create_time, update_time)
        SELECT books.book_key, books.journal_key, $1, $2, draft.account_name, draft.account_number, draft.type,
               draft.currency, draft.scale, draft.display_name, draft.metadata::jsonb, draft.min_balance_minor,
               draft.max_balance_minor, draft.credit_limit_minor, $3, $3
        FROM unnest($4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::smallint[], $10::text[],
                    $11::text[], $12::bigint[], $13::bigint[], $14::bigint[])
             AS draft (book_name, account_name, account_number, type, currency, scale, display_name, metadata,
                       min_balance_minor, max_balance_minor, credit_limit_minor)
        JOIN books ON books.tenant_id = $1 AND books.book_name = draft.book_name
        RETURNING *
    )
    SELECT {ACCOUNT_COLUMNS} FROM accounts JOIN books ON books.book_key = accounts.book_key
"""


def account_of(row: Row) -> Account:
    """The account in a row of ACCOUNT_COLUMNS."""
    book_name, *postable = row[:_POSTABLE_END]
    account_number, scale, display_name, metadata, *times = row[_POSTABLE_END:]
    own: tuple[Any, ...] = (account_number, scale, display_name, json.loads(metadata), *times)
    return Account(*_postable_fields(book_name, postable), *own)


def _postable_fields(book_name: str, row: Iterable[Any]) -> tuple[Any, ...]:
    account_key, account_name, type_, currency, state, min_minor, max_minor, credit_minor, *sums = row
    if min_minor is None and max_minor is None and credit_minor is None:
        limits = NO_LIMITS
    else:
        limits = AccountLimits(min_minor, max_minor, credit_minor)
    return account_key, book_name, account_name, _TYPES[type_], currency, _STATES[state], limits, *sums


async def find_postable_accounts(
    connection: Connection, book_keys: Mapping[str, int], names: Mapping[str, Collection[str]]
) -> list[PostableAccount]:
    """Those of the accounts that exist, in any order.

    Args:
        book_keys: of the books that exist, by name.
        names: of the accounts, each once, by name of the book.
    """
    return [
        PostableAccount(*_postable_fields(book_name, row))
        for book_name, account_names in names.items()
        if book_name in book_keys
        for row in await connection.fetch(_FIND_POSTABLE_ACCOUNTS, book_keys[book_name], list(account_names))
    ]


async def find_accounts(connection: Connection, tenant_id: str, keys: Collection[tuple[str, str]]) -> list[Account]:
    """Those of the accounts that exist, in any order.

    Args:
        keys: book and account names, each once.
    """
    names: defaultdict[str, list[str]] = defaultdict(list)
    for book_name, account_name in keys:
        names[book_name].append(account_name)
    return [
        account_of(row)
        for book_name, account_names in names.items()
        for row in await connection.fetch(_FIND_ACCOUNTS, tenant_id, book_name, account_names)
    ]


async def find_account(connection: Connection, tenant_id: str, book_name: str, account_name: str) -> Account | None:
    """The account of that name."""
    row = await connection.fetchrow(_FIND_ACCOUNT, tenant_id, book_name, account_name)
    return account_of(row) if row else None


async def list_accounts(
    connection: Connection,
    tenant_id: str,
    *,
    book_name: str,
    name_prefix: str = "",
    type_: AccountType | None = None,
    account_number: str = "",
    after_name: str = "",
    limit: int,
) -> list[Account]:
    """Accounts of a book by name, from the first that sorts after `after_name`; an empty filter lets all through."""
    arguments: list[str | int] = [tenant_id, book_name, after_name, limit]
    conditions = ["accounts.account_name > $3"]
    if name_prefix:
        arguments += [name_prefix, name_prefix + _LAST_CHARACTER]
        # A range instead of starts_with, because only a range can use the index.
        conditions.append(
            f"accounts.account_name >= ${len(arguments) - 1} AND accounts.account_name < ${len(arguments)}"
        )
    if type_ is not None:
        arguments.append(type_.value)
        conditions.append(f"accounts.type = ${len(arguments)}")
    if account_number:
        arguments.append(account_number)
        conditions.append(f"accounts.account_number = ${len(arguments)}")
    rows = await connection.fetch(
        f"""
        SELECT {ACCOUNT_COLUMNS}
        FROM books JOIN accounts ON accounts.book_key = books.book_key
        WHERE books.tenant_id = $1 AND books.book_name = $2 AND {" AND ".join(conditions)}
        ORDER BY accounts.account_name LIMIT $4
        """,
        *arguments,
    )
    return [account_of(row) for row in rows]


async def find_taken_numbers(
    connection: Connection, tenant_id: str, numbers: Collection[tuple[str, str]]
) -> dict[tuple[str, str], str]:
    """The name of the account that has each number, for those of the (book name, account number) that are taken."""
    rows = await connection.fetch(
        """
        SELECT books.book_name, accounts.account_number, accounts.account_name
        FROM unnest($2::text[], $3::text[]) AS wanted (book_name, account_number)
        JOIN books ON books.tenant_id = $1 AND books.book_name = wanted.book_name
        JOIN accounts ON accounts.book_key = books.book_key AND accounts.account_number = wanted.account_number
        """,
        tenant_id,
        [book_name for book_name, _ in numbers],
        [account_number for _, account_number in numbers],
    )
    return {(row["book_name"], row["account_number"]): row["account_name"] for row in rows}


async def find_scale(connection: Connection, tenant_id: str, currency: str) -> int | None:
    """The scale that the tenant's accounts of a currency have; None when there is no such account."""
    scale: int | None = await connection.fetchval(
        # By way of the books, because the index on accounts begins with them.
        """
        SELECT accounts.scale FROM books JOIN accounts ON accounts.book_key = books.book_key
        WHERE books.tenant_id = $1 AND accounts.currency = $2 LIMIT 1
        """,
        tenant_id,
        currency,
    )
    return scale


async def insert_accounts(
    connection: Connection, tenant_id: str, request_id: str, drafts: Sequence[AccountDraft], create_time: datetime
) -> list[Account]:
    """Writes accounts, whose books are there and whose names and numbers are free; in the order of the drafts."""
    rows = await connection.fetch(
        _INSERT_ACCOUNTS,
        tenant_id,
        request_id,
        create_time,
        [draft.book_name for draft in drafts],
        [draft.account_name for draft in drafts],
        [draft.account_number for draft in drafts],
        [draft.type.value for draft in drafts],
        [draft.currency for draft in drafts],
        [draft.scale for draft in drafts],
        [draft.display_name for draft in drafts],
        [json.dumps(dict(draft.metadata)) for draft in drafts],
        [draft.limits.min_balance_minor for draft in drafts],
        [draft.limits.max_balance_minor for draft in drafts],
        [draft.limits.credit_limit_minor for draft in drafts],
    )
    accounts = [account_of(row) for row in rows]
    by_key = {(account.book_name, account.account_name): account for account in accounts}
    return [by_key[draft.book_name, draft.account_name] for draft in drafts]


async def save_account(connection: Connection, account: Account) -> None:
    """Writes what can change on an account, other than by postings."""
    await connection.execute(
        """
        UPDATE accounts
        SET account_number = $2, state = $3, display_name = $4, metadata = $5::text::jsonb, min_balance_minor = $6,
            max_balance_minor = $7, credit_limit_minor = $8, update_time = $9
        WHERE account_key = $1
        """,
        account.account_key,
        account.account_number,
        account.state.value,
        account.display_name,
        json.dumps(dict(account.metadata)),
        account.limits.min_balance_minor,
        account.limits.max_balance_minor,
        account.limits.credit_limit_minor,
        account.update_time,
    )
