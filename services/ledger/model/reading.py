"""What readers of the books ask for, and what they get. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from services.ledger.model.accounts import Account, AccountType, Side
from services.ledger.model.postings import Entry, Kind

BEGINNING_OF_TIME = datetime.min.replace(tzinfo=UTC)
END_OF_TIME = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Moment:
    """What is known, and how much of that counts: two axes of time.

    Attributes:
        booking_time: only what was booked by then is known; None means all there is.
        effective_time: only what had taken effect by then counts; None means also what takes effect later.
    """

    booking_time: datetime | None = None
    effective_time: datetime | None = None

    @property
    def field(self) -> str:
        """The field of a request that reaches furthest into the past."""
        return "booking_time" if self.effective_time is None else "effective_time"

    @property
    def is_now(self) -> bool:
        """Whether everything that is known counts."""
        return self.booking_time is None and self.effective_time is None


@dataclass(frozen=True, slots=True)
class Period:
    """From its start up to, and without, its end.

    Attributes:
        start_time: None means from the first entry on.
        end_time: None means without end.
    """

    start_time: datetime | None = None
    end_time: datetime | None = None

    @property
    def last_time_before(self) -> datetime | None:
        """What takes effect by then lies before the period; None when nothing does."""
        return None if self.start_time is None else _just_before(self.start_time)

    @property
    def last_time(self) -> datetime | None:
        """What takes effect later lies after the period; None when nothing does."""
        return None if self.end_time is None else _just_before(self.end_time)


def period_of(start_time: datetime | None, end_time: datetime | None) -> Period | None:
    """The period between two times; None when it would end before or as it starts."""
    if start_time == BEGINNING_OF_TIME:
        start_time = None
    if end_time is not None and end_time <= (start_time or BEGINNING_OF_TIME):
        return None
    return Period(start_time, end_time)


def _just_before(time: datetime) -> datetime:
    """Times are kept in whole microseconds, so there is a last one before each."""
    return time - timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class BookedEntry:
    """An entry with what its transaction says about it.

    Attributes:
        leaf_index: place of its transaction among all of the tenant.
        effective_time: as the caller gave it; None means create_time.
    """

    entry: Entry
    transaction_id: str
    leaf_index: int
    description: str
    source_id: str
    effective_time: datetime | None
    create_time: datetime


@dataclass(frozen=True, slots=True)
class StatementLine:
    """An entry with the balance after it, on the normal side and in the order of effect."""

    booked: BookedEntry
    running_balance_minor: int


@dataclass(frozen=True, slots=True)
class Balance:
    """Sums of one account at some moment, in minor units.

    Attributes:
        available_minor: what can be taken off; None when there is no lowest balance, and of a moment that is past.
        sequence: of the last entry that was known.
    """

    account: Account
    debits_minor: int
    credits_minor: int
    pending_debits_minor: int
    pending_credits_minor: int
    available_minor: int | None
    sequence: int

    @property
    def balance_minor(self) -> int:
        """On the account's normal side."""
        difference_minor = self.debits_minor - self.credits_minor
        return difference_minor if self.account.type.normal_side is Side.DEBIT else -difference_minor


@dataclass(frozen=True, slots=True)
class Statement:
    """What happened on an account in a period, or a page of it.

    Attributes:
        debits_minor: sum of the debits of the whole period.
        credits_minor: sum of the credits of the whole period.
    """

    account: Account
    opening_balance_minor: int
    closing_balance_minor: int
    debits_minor: int
    credits_minor: int
    lines: tuple[StatementLine, ...]


@dataclass(frozen=True, slots=True)
class BranchBalance:
    """Sums of one account, or of the accounts of one branch, type and currency.

    Attributes:
        branch: name, or the parts of it that all accounts of the branch share.
        debits_minor: sum of all posted debits.
        credits_minor: sum of all posted credits.
    """

    branch: str
    type: AccountType
    currency: str
    debits_minor: int
    credits_minor: int
    account_count: int

    @property
    def balance_minor(self) -> int:
        """On the normal side of the type."""
        difference_minor = self.debits_minor - self.credits_minor
        return difference_minor if self.type.normal_side is Side.DEBIT else -difference_minor


@dataclass(frozen=True, slots=True)
class TransactionFilter:
    """Which transactions of a book to list; what is empty or None lets all through.

    Attributes:
        booked: when they were booked.
        metadata: they have all of these.
    """

    book_name: str
    source_id: str = ""
    kind: Kind | None = None
    booked: Period = Period()
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """Which entries of a book to list; what is empty or None lets all through.

    Attributes:
        booked: when they were booked.
        metadata: their transactions have all of these.
    """

    book_name: str
    account_name: str = ""
    account_name_prefix: str = ""
    account_type: AccountType | None = None
    side: Side | None = None
    min_amount_minor: int | None = None
    max_amount_minor: int | None = None
    source_id: str = ""
    booked: Period = Period()
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def names_accounts(self) -> bool:
        """Whether it is about some accounts only."""
        return bool(self.account_name or self.account_name_prefix or self.account_type)
