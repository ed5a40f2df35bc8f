"""The book of double entry: accounts, postings, and what a posting does to accounts. No I/O.

Words: a posting is what a caller asks for, its parts are legs; a transaction is what was booked, its parts are entries.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from mesh.errors import Problem, Reason
from mesh.money import INT64_MAX, Money


class Side(enum.StrEnum):
    """Debit or credit."""

    DEBIT = "debit"
    CREDIT = "credit"


class AccountType(enum.StrEnum):
    """What an account is, which also gives its normal side."""

    ASSET = "asset"
    LIABILITY = "liability"
    EQUITY = "equity"
    INCOME = "income"
    EXPENSE = "expense"

    @property
    def normal_side(self) -> Side:
        """The side on which the account grows."""
        return Side.DEBIT if self in {AccountType.ASSET, AccountType.EXPENSE} else Side.CREDIT


class AccountState(enum.StrEnum):
    """Whether an account can be posted to: only an opened one can."""

    OPENED = "opened"
    FROZEN = "frozen"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class AccountDraft:
    """An account to create."""

    account_name: str
    type: AccountType
    currency: str
    display_name: str


@dataclass(frozen=True, slots=True)
class Account:
    """One account, in one currency.

    Attributes:
        account_key: its number inside the database; never leaves the service.
        account_name: its identity everywhere else.
        debits_minor: sum of all debits, in minor units, 0 to INT64_MAX.
        credits_minor: sum of all credits, likewise.
    """

    account_key: int
    account_name: str
    type: AccountType
    currency: str
    state: AccountState
    display_name: str
    debits_minor: int
    credits_minor: int
    create_time: datetime

    @property
    def balance(self) -> Money:
        """What is on the account, on its normal side; below zero when the other side is larger.

        Always fits in int64, because neither sum is below zero or above INT64_MAX.
        """
        debit_balance_minor = self.debits_minor - self.credits_minor
        is_debit = self.type.normal_side is Side.DEBIT
        return Money(debit_balance_minor if is_debit else -debit_balance_minor, self.currency)

    @property
    def debits(self) -> Money:
        """Sum of all debits."""
        return Money(self.debits_minor, self.currency)

    @property
    def credits(self) -> Money:
        """Sum of all credits."""
        return Money(self.credits_minor, self.currency)

    def was_made_from(self, draft: AccountDraft) -> bool:
        """Whether the draft asks for this very account."""
        return draft == AccountDraft(self.account_name, self.type, self.currency, self.display_name)


@dataclass(frozen=True, slots=True)
class Leg:
    """One side of a posting on one account; the amount is more than zero."""

    account_name: str
    side: Side
    amount: Money

    def __post_init__(self) -> None:
        if not 0 < self.amount.amount_minor <= INT64_MAX:
            message = f"a leg of {self.amount.amount_minor} minor units: the request was not validated"
            raise ValueError(message)


@dataclass(frozen=True, slots=True)
class Posting:
    """A transaction that a caller asks for.

    Attributes:
        transaction_id: made by the caller; what makes the posting happen once.
        effective_time: when it took effect; None means when it is booked.
    """

    transaction_id: str
    description: str
    source_id: str
    legs: tuple[Leg, ...]
    effective_time: datetime | None

    @property
    def account_names(self) -> list[str]:
        """Each account once."""
        return list(dict.fromkeys(leg.account_name for leg in self.legs))


@dataclass(frozen=True, slots=True)
class Entry:
    """One side of a booked transaction.

    Attributes:
        sequence: position in the tenant's book: gapless and rising from 1.
        balance_after: balance of the account on its normal side after it.
        create_time: when it was booked; never falls as the sequence rises.
    """

    sequence: int
    transaction_id: str
    account_name: str
    side: Side
    amount: Money
    balance_after: Money
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Transaction:
    """A booked transaction. Never changes.

    Attributes:
        entries: in the order of the posting's legs.
        effective_time: as the caller gave it; None means create_time.
    """

    transaction_id: str
    description: str
    source_id: str
    entries: tuple[Entry, ...]
    effective_time: datetime | None
    create_time: datetime

    def differences_from(self, posting: Posting) -> list[str]:
        """Names of the request's fields in which a posting with the same id asks for something else."""
        names = [
            name
            for name in ("description", "source_id", "effective_time")
            if getattr(self, name) != getattr(posting, name)
        ]
        if len(self.entries) != len(posting.legs):
            return [*names, "legs"]
        for index, (entry, leg) in enumerate(zip(self.entries, posting.legs, strict=True)):
            names += [
                f"legs[{index}].{name}"
                for name in ("account_name", "side", "amount")
                if getattr(entry, name) != getattr(leg, name)
            ]
        return names


@dataclass(frozen=True, slots=True)
class Movement:
    """What an evaluation adds to one account in all, in minor units of the account's currency."""

    account_key: int
    debits_minor: int
    credits_minor: int


@dataclass(frozen=True, slots=True)
class EvaluatedLeg:
    """A leg that can be booked, with the balance of its account after it."""

    leg: Leg
    account_key: int
    balance_after: Money


class Evaluation:
    """Postings applied in memory, in order, to accounts that the database holds locked.

    Each posting is applied as a whole or not at all, and sees what those before it left. `movements` then is the net
    change of each account, to be written once however often the account occurs.
    """

    def __init__(self, locked_accounts: Iterable[Account]) -> None:
        self._before = {account.account_name: account for account in locked_accounts}
        self._now = dict(self._before)

    def post(self, posting: Posting) -> list[EvaluatedLeg]:
        """Applies one posting; a refused one changes nothing.

        Raises:
            Problem: TRANSACTION_UNBALANCED, ACCOUNT_NOT_FOUND, ACCOUNT_NOT_OPEN, ACCOUNT_CURRENCY_MISMATCH or
                BALANCE_OVERFLOW, for the first leg at fault.
        """
        check_balanced(posting.legs)
        changed: dict[str, Account] = {}
        evaluated = []
        for leg in posting.legs:
            account = changed.get(leg.account_name) or self._now.get(leg.account_name)
            account = _check_postable(account, leg)
            account = _apply(account, leg)
            changed[leg.account_name] = account
            evaluated.append(EvaluatedLeg(leg, account.account_key, account.balance))
        self._now.update(changed)
        return evaluated

    def movements(self) -> list[Movement]:
        """The net change of each account that any posting touched."""
        return [
            Movement(
                account_key=now.account_key,
                debits_minor=now.debits_minor - before.debits_minor,
                credits_minor=now.credits_minor - before.credits_minor,
            )
            for before, now in zip(self._before.values(), self._now.values(), strict=True)
            if now is not before
        ]


def check_balanced(legs: Sequence[Leg]) -> None:
    """Checks that the debits of each currency equal its credits.

    Raises:
        Problem: TRANSACTION_UNBALANCED, with the sums and the difference of the first currency at fault.
    """
    for currency in dict.fromkeys(leg.amount.currency for leg in legs):
        sums_minor = dict.fromkeys(Side, 0)
        for leg in legs:
            if leg.amount.currency == currency:
                sums_minor[leg.side] += leg.amount.amount_minor
        debits_minor, credits_minor = sums_minor[Side.DEBIT], sums_minor[Side.CREDIT]
        if debits_minor != credits_minor:
            raise Problem(
                Reason.TRANSACTION_UNBALANCED,
                f"in {currency}, debits are {debits_minor} and credits {credits_minor} minor units",
                currency=currency,
                debits_minor=str(debits_minor),
                credits_minor=str(credits_minor),
                difference_minor=str(debits_minor - credits_minor),
            )


def _check_postable(account: Account | None, leg: Leg) -> Account:
    if account is None:
        raise Problem(
            Reason.ACCOUNT_NOT_FOUND, f"account {leg.account_name} does not exist", account_name=leg.account_name
        )
    if account.state is not AccountState.OPENED:
        raise Problem(
            Reason.ACCOUNT_NOT_OPEN,
            f"account {account.account_name} is {account.state}",
            account_name=account.account_name,
            state=account.state.value.upper(),
        )
    if account.currency != leg.amount.currency:
        raise Problem(
            Reason.ACCOUNT_CURRENCY_MISMATCH,
            f"account {account.account_name} holds {account.currency}, the leg is in {leg.amount.currency}",
            account_name=account.account_name,
            account_currency=account.currency,
            leg_currency=leg.amount.currency,
        )
    return account


def _apply(account: Account, leg: Leg) -> Account:
    """The account after the leg.

    Raises:
        Problem: BALANCE_OVERFLOW.
    """
    debits_minor, credits_minor = account.debits_minor, account.credits_minor
    if leg.side is Side.DEBIT:
        debits_minor += leg.amount.amount_minor
    else:
        credits_minor += leg.amount.amount_minor
    if max(debits_minor, credits_minor) > INT64_MAX:
        raise Problem(
            Reason.BALANCE_OVERFLOW,
            f"the {leg.side}s of account {account.account_name} would no longer fit in 64 bits",
            account_name=account.account_name,
            side=leg.side.value.upper(),
        )
    return replace(account, debits_minor=debits_minor, credits_minor=credits_minor)
