"""SQL of branches: accounts rolled up along the hierarchy that their names make."""

from __future__ import annotations

from dataclasses import dataclass

from mesh.database import Connection
from services.ledger.model.accounts import AccountType
from services.ledger.model.reading import BranchBalance

# A branch is the account of that name and those below it, whose names go on with a colon. ";" comes after the colon.
_ACCOUNTS = """
    FROM accounts
    WHERE book_key = (SELECT books.book_key FROM books WHERE books.tenant_id = $1 AND books.book_name = $2)
      AND ($3 = '' OR account_name = $3 OR account_name >= $3 || ':')
      AND account_name >= $3 AND ($3 = '' OR account_name < $3 || ';')
"""
_LIST_ACCOUNTS = f"""
    SELECT account_name AS branch, type, currency, debits_minor, credits_minor, 1 AS account_count,
           ARRAY[account_key] AS account_keys
    {_ACCOUNTS} AND account_name > $4
    ORDER BY account_name LIMIT $5
"""
_LIST_BRANCHES = f"""
    SELECT branch, type, currency, sum(debits_minor) AS debits_minor, sum(credits_minor) AS credits_minor,
           count(*) AS account_count, array_agg(account_key) AS account_keys
    FROM (
        SELECT array_to_string((string_to_array(account_name, ':'))[1:$6], ':') COLLATE "C" AS branch,
               type COLLATE "C" AS type, currency COLLATE "C" AS currency, account_key, debits_minor, credits_minor
        {_ACCOUNTS}
    ) AS rolled_up
    WHERE (branch, type, currency) > ($4, $7, $8)
    GROUP BY branch, type, currency
    ORDER BY branch, type, currency LIMIT $5
"""  # noqa: S608 - only constants of this file


@dataclass(frozen=True, slots=True)
class BranchPlace:
    """The branch, type and currency that a page ended at."""

    branch: str = ""
    type: str = ""
    currency: str = ""


@dataclass(frozen=True, slots=True)
class Branch:
    """The sums of a branch as they are now, and whose they are."""

    balance: BranchBalance
    account_keys: tuple[int, ...]


async def list_branches(
    connection: Connection,
    tenant_id: str,
    *,
    book_name: str,
    branch: str,
    depth: int,
    after: BranchPlace,
    limit: int,
) -> list[Branch]:
    """Branches by name, type and currency.

    Args:
        branch: only the account of that name and those below it; "" means all.
        depth: how many parts of the names to roll up to; 0 means each account by itself.
    """
    # The byte order of names is not that of their parts: only all names of a book give the branches in order.
    if depth == 0:
        rows = await connection.fetch(_LIST_ACCOUNTS, tenant_id, book_name, branch, after.branch, limit)
    else:
        rows = await connection.fetch(
            _LIST_BRANCHES,
            tenant_id,
            book_name,
            branch,
            after.branch,
            limit,
            depth,
            after.type,
            after.currency,
        )
    return [
        Branch(
            BranchBalance(
                branch=row["branch"],
                type=AccountType(row["type"]),
                currency=row["currency"],
                # PostgreSQL adds bigint up to numeric.
                debits_minor=int(row["debits_minor"]),
                credits_minor=int(row["credits_minor"]),
                account_count=row["account_count"],
            ),
            tuple(row["account_keys"]),
        )
        for row in rows
    ]
