"""SQL of journals: the head of everything that a tenant ever booked.

Whoever books, or changes an account or a book, locks the tenant's journal first and nothing else. So nobody waits in a
circle, and what is read after the lock stays as it is until the end of the transaction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from mesh.database import TENANT_SETTING, Connection, Row

# The order in which journal_of reads them.
JOURNAL_COLUMNS = """
    journal_key, tenant_id, last_sequence, tree_size, frontier, last_create_time, next_expire_time,
    (SELECT token FROM account_changes WHERE account_changes.journal_key = journals.journal_key)
"""
_FIRST_MOMENT = datetime.min.replace(tzinfo=UTC)
_FIND = f"SELECT {JOURNAL_COLUMNS} FROM journals WHERE tenant_id = $1"  # noqa: S608 - a constant of this file
_TENANT = f"current_setting('{TENANT_SETTING}')"
# Locks the journal of the transaction's tenant until its end, and makes it before when there is none yet. It looks
# first, because an insertion that finds the row there uses up a number all the same.
LOCK_FIRST = f"""
    INSERT INTO journals (tenant_id)
    SELECT {_TENANT} WHERE NOT EXISTS (SELECT FROM journals WHERE tenant_id = {_TENANT})
    ON CONFLICT (tenant_id) DO NOTHING;
    SELECT FROM journals WHERE tenant_id = {_TENANT} FOR NO KEY UPDATE
"""  # noqa: S608 - constants of this file
_FIND_EXPIRING = (
    "SELECT tenant_id, next_expire_time FROM journals WHERE next_expire_time IS NOT NULL"
    " ORDER BY next_expire_time LIMIT $1"
)
# How many tenants are looked at in one go.
_DUE_TENANTS = 100


@dataclass(frozen=True, slots=True)
class Journal:
    """The head of a tenant's bookings.

    Attributes:
        journal_key: its number inside the database; never leaves the service.
        last_sequence: of the newest entry; 0 before the first.
        tree_size: number of transactions, each of which is a leaf of the tenant's tree.
        frontier: roots of the full subtrees that make up the tree, from left to right, 32 bytes each.
        last_create_time: of the newest transaction; the first moment of year 1 (UTC) before the first.
        next_expire_time: no hold expires before; None means that none expires.
        change_token: another each time that anything but postings changes accounts or books; None before the first.
    """

    journal_key: int
    tenant_id: str
    last_sequence: int
    tree_size: int
    frontier: bytes
    last_create_time: datetime
    next_expire_time: datetime | None
    change_token: UUID | None

    def has_same_books(self, other: Journal) -> bool:
        """Whether nothing became of books and accounts between this and another state of a journal.

        The frontier stands for all that was ever booked, and so for the sums of all accounts.
        """
        return (self.journal_key, self.tree_size, self.frontier, self.change_token) == (
            other.journal_key,
            other.tree_size,
            other.frontier,
            other.change_token,
        )

    def is_any_due(self, now: datetime) -> bool:
        """Whether the time of a hold is over."""
        return self.next_expire_time is not None and self.next_expire_time <= now


async def lock_journal(connection: Connection, tenant_id: str) -> Journal:
    """The journal of the transaction's tenant, locked until its end; made when there is none yet."""
    await connection.execute(LOCK_FIRST)
    journal = await find_journal(connection, tenant_id)
    if journal is None:
        raise LookupError("the journal that was locked is not there")
    return journal


async def find_journal(connection: Connection, tenant_id: str) -> Journal | None:
    """The tenant's journal, not locked; None when the tenant has none yet."""
    row = await connection.fetchrow(_FIND, tenant_id)
    return journal_of(row) if row else None


def later(journal: Journal, now: datetime) -> datetime:
    """The time of what is booked now: never before what was booked last, even when the clock was set back."""
    return max(journal.last_create_time, now)


async def find_due_tenants(connection: Connection, now: datetime) -> tuple[list[str], datetime | None]:
    """Tenants with a hold whose time may be over, and when the next hold of the others expires.

    For a transaction that sees every tenant.
    """
    rows = await connection.fetch(_FIND_EXPIRING, _DUE_TENANTS)
    due = [row["tenant_id"] for row in rows if row["next_expire_time"] <= now]
    return due, next((row["next_expire_time"] for row in rows if row["next_expire_time"] > now), None)


def journal_of(row: Row | tuple[Any, ...]) -> Journal:
    """The journal in a row of JOURNAL_COLUMNS."""
    journal = Journal(*row)
    if journal.last_create_time.tzinfo is None:
        # The driver gives -infinity without a time zone, and such a time can't be compared with others.
        return replace(journal, last_create_time=_FIRST_MOMENT)
    return journal
