"""Accounts and their limits. No I/O."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from mesh.money import INT64_MAX, Money

MAIN_BOOK = "main"


class Side(enum.StrEnum):
    """Debit or credit."""

    DEBIT = "debit"
    CREDIT = "credit"

    @property
    def opposite(self) -> Side:
        """The other side."""
        return Side.CREDIT if self is Side.DEBIT else Side.DEBIT


# For what is done for every leg: Python 3.11 takes longer to find a member of an enumeration than to add an amount.
DEBIT, CREDIT = Side.DEBIT, Side.CREDIT


class AccountType(enum.StrEnum):
    """What an account is, which also gives its normal side."""

    ASSET = "asset"
    LIABILITY = "liability"
    EQUITY = "equity"
    INCOME = "income"
    EXPENSE = "expense"

    @cached_property
    def normal_side(self) -> Side:
        """The side on which the account grows."""
        return Side.DEBIT if self in {AccountType.ASSET, AccountType.EXPENSE} else Side.CREDIT


class AccountState(enum.StrEnum):
    """Whether an account can be posted to: only an opened one can."""

    OPENED = "opened"
    FROZEN = "frozen"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class AccountLimits:
    """Limits of a balance on the normal side, in minor units; what is held counts as if it were posted.

    Attributes:
        credit_limit_minor: how far below the lowest balance (zero, when that is None) the balance may still go.
    """

    min_balance_minor: int | None = None
    max_balance_minor: int | None = None
    credit_limit_minor: int | None = None

    @property
    def lowest_minor(self) -> int | None:
        """The balance may not go below; None means no limit."""
        if self.credit_limit_minor is None:
            return self.min_balance_minor
        return (self.min_balance_minor or 0) - self.credit_limit_minor


NO_LIMITS = AccountLimits()


@dataclass(frozen=True, slots=True)
class AccountDraft:
    """An account to create.

    Attributes:
        account_number: None when it has none.
        scale: decimals of its currency.
    """

    book_name: str
    account_name: str
    account_number: str | None
    type: AccountType
    currency: str
    scale: int
    display_name: str
    metadata: Mapping[str, str]
    limits: AccountLimits


# Not frozen, though it never changes: they are read by the thousand, and freezing triples the time to make one.
@dataclass(slots=True)
class PostableAccount:
    """What postings need to know of an account.

    Attributes:
        account_key: its number inside the database; never leaves the service.
        debits_minor: sum of all posted debits, in minor units, 0 to INT64_MAX.
        credits_minor: sum of all posted credits, likewise.
        pending_debits_minor: sum of the debits that are held, likewise.
        pending_credits_minor: sum of the credits that are held, likewise.
    """

    account_key: int
    book_name: str
    account_name: str
    type: AccountType
    currency: str
    state: AccountState
    limits: AccountLimits
    debits_minor: int
    credits_minor: int
    pending_debits_minor: int
    pending_credits_minor: int


@dataclass(slots=True)
class Account(PostableAccount):
    """One account, in one currency.

    Attributes:
        account_number: None when it has none.
        scale: decimals of its currency.
    """

    account_number: str | None
    scale: int
    display_name: str
    metadata: Mapping[str, str]
    create_time: datetime
    update_time: datetime

    @property
    def balance_minor(self) -> int:
        """What is on the account, on its normal side; below zero when the other side is larger.

        Always fits in int64, because neither sum is below zero or above INT64_MAX.
        """
        difference_minor = self.debits_minor - self.credits_minor
        return difference_minor if self.type.normal_side is Side.DEBIT else -difference_minor

    @property
    def available_minor(self) -> int | None:
        """What can be taken off, never below zero; None when there is no lowest balance."""
        lowest_minor = self.limits.lowest_minor
        if lowest_minor is None:
            return None
        is_debit = self.type.normal_side is Side.DEBIT
        held_minor = self.pending_credits_minor if is_debit else self.pending_debits_minor
        # A high credit limit allows more than 64 bits can say.
        return min(max(0, self.balance_minor - held_minor - lowest_minor), INT64_MAX)

    def money(self, amount_minor: int) -> Money:
        """An amount in the account's currency."""
        return Money(amount_minor, self.currency)


@dataclass(frozen=True, slots=True)
class Book:
    """A set of accounts that balances by itself.

    Attributes:
        closed_time: what takes effect before is locked; None means nothing is.
    """

    book_name: str
    closed_time: datetime | None
    create_time: datetime
