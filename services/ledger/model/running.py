"""An account while postings are applied to it, and what stands in their way. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mesh.errors import Problem, Reason
from mesh.money import INT64_MAX
from services.ledger.model.accounts import DEBIT, AccountState, PostableAccount, Side
from services.ledger.model.postings import Assertion, Entry, Leg

_OPENED = AccountState.OPENED

# Debits, credits, pending debits and pending credits of an account, in minor units.
Sums = tuple[int, int, int, int]


class Running:
    """The sums of one account while postings are applied to it, in minor units.

    Those of `account` are what they were when it was read.
    """

    __slots__ = (
        "account",
        "account_key",
        "credits",
        "debits",
        "is_debit",
        "is_limited",
        "lowest",
        "pending_credits",
        "pending_debits",
        "postable_currency",
    )

    def __init__(self, account: PostableAccount) -> None:
        self.account = account
        self.account_key = account.account_key
        self.is_debit = account.type.normal_side is DEBIT
        self.lowest = account.limits.lowest_minor
        self.is_limited = self.lowest is not None or account.limits.max_balance_minor is not None
        # None: nothing can be posted to it.
        self.postable_currency = account.currency if account.state is _OPENED else None
        self.debits = account.debits_minor
        self.credits = account.credits_minor
        self.pending_debits = account.pending_debits_minor
        self.pending_credits = account.pending_credits_minor

    def save(self) -> Sums:
        """What `restore` needs to undo all that comes."""
        return self.debits, self.credits, self.pending_debits, self.pending_credits

    def restore(self, saved: Sums) -> None:
        """Undoes everything since `save`."""
        self.debits, self.credits, self.pending_debits, self.pending_credits = saved

    @property
    def balance(self) -> int:
        """Posted, on the normal side."""
        return self.debits - self.credits if self.is_debit else self.credits - self.debits

    @property
    def low(self) -> int:
        """The balance if all that is held against it were posted."""
        return self.balance - (self.pending_credits if self.is_debit else self.pending_debits)

    @property
    def high(self) -> int:
        """The balance if all that is held for it were posted."""
        return self.balance + (self.pending_debits if self.is_debit else self.pending_credits)

    @property
    def available(self) -> int | None:
        """What can be taken off; None when there is no lowest balance."""
        # A high credit limit allows more than 64 bits can say.
        return None if self.lowest is None else min(max(0, self.low - self.lowest), INT64_MAX)

    def post(self, leg: Leg) -> None:
        """Adds what a leg posts.

        Raises:
            Problem: BALANCE_OVERFLOW.
        """
        if leg.side is DEBIT:
            self.debits += leg.amount_minor
        else:
            self.credits += leg.amount_minor
        self._check_fits(leg)

    def hold(self, leg: Leg) -> None:
        """Adds what a leg holds.

        Raises:
            Problem: BALANCE_OVERFLOW.
        """
        if leg.side is DEBIT:
            self.pending_debits += leg.amount_minor
        else:
            self.pending_credits += leg.amount_minor
        self._check_fits(leg)

    def release(self, entry: Entry) -> None:
        """Takes away what an entry held."""
        if entry.side is DEBIT:
            self.pending_debits -= entry.amount_minor
        else:
            self.pending_credits -= entry.amount_minor

    def movement_since(self, saved: Sums) -> Movement | None:
        """What became of it since `save`; None when that is nothing."""
        sums = self.save()
        return None if sums == saved else Movement(self.account_key, saved, sums)

    def _check_fits(self, leg: Leg) -> None:
        """Checks that no sum leaves 64 bits, now or once what is held is posted."""
        if self.debits + self.pending_debits > INT64_MAX or self.credits + self.pending_credits > INT64_MAX:
            raise _overflow_problem(leg)


@dataclass(slots=True)
class BalanceAfter:
    """Sums of an account after a transaction, in minor units; available is None without a lowest balance."""

    account_name: str
    currency: str
    balance_minor: int
    pending_debits_minor: int
    pending_credits_minor: int
    available_minor: int | None


@dataclass(slots=True)
class Movement:
    """What an evaluation makes of the sums of one account."""

    account_key: int
    before: Sums
    after: Sums


def balance_after(running: Running) -> BalanceAfter:
    return BalanceAfter(
        running.account.account_name,
        running.account.currency,
        running.balance,
        running.pending_debits,
        running.pending_credits,
        running.available,
    )


def postable(leg: Leg, accounts: Mapping[str, Running]) -> Running:
    """The account of a leg.

    Raises:
        Problem: ACCOUNT_NOT_FOUND, ACCOUNT_NOT_OPEN or ACCOUNT_CURRENCY_MISMATCH.
    """
    running = accounts.get(leg.account_name)
    if running is None or running.postable_currency != leg.currency:
        raise _leg_problem(running, leg)
    return running


def reduced(legs: Sequence[Leg], accounts: Mapping[str, Running]) -> Sequence[Leg]:
    """The legs for as much of their amount as balances and limits leave.

    Raises:
        Problem: BALANCE_LIMIT_EXCEEDED, they leave nothing.
    """
    amount_minor = legs[0].amount_minor
    for running, leg in [(postable(leg, accounts), leg) for leg in legs]:
        room_minor = _room_of(running, leg.side)
        if room_minor is None:
            continue
        if room_minor <= 0:
            is_raised = (leg.side is DEBIT) is running.is_debit
            raise _limit_problem(running, leg.amount_minor - room_minor, 0, is_raised=is_raised)
        amount_minor = min(amount_minor, room_minor)
    return [replace(leg, amount_minor=amount_minor) for leg in legs]


def _room_of(running: Running, side: Side) -> int | None:
    """How much can be added on a side of an account; None for any amount. Without a lowest balance, down to zero."""
    if (side is DEBIT) is running.is_debit:
        highest = running.account.limits.max_balance_minor
        return None if highest is None else highest - running.high
    return running.low - (running.lowest or 0)


def check_limits(running: Running, low_before: int, high_before: int) -> None:
    """Checks the limits in the direction in which a posting moved the account.

    Raises:
        Problem: BALANCE_LIMIT_EXCEEDED.
    """
    lowest, highest = running.lowest, running.account.limits.max_balance_minor
    if lowest is not None and lowest > running.low < low_before:
        raise _limit_problem(running, lowest - running.low, max(0, low_before - lowest), is_raised=False)
    if highest is not None and highest < running.high > high_before:
        raise _limit_problem(running, running.high - highest, max(0, highest - high_before), is_raised=True)


def check_assertion(assertion: Assertion, accounts: Mapping[str, Running]) -> None:
    """Checks that an account has the balance that it must have.

    Raises:
        Problem: ACCOUNT_NOT_FOUND or BALANCE_ASSERTION_FAILED.
    """
    account_name, balance_minor = assertion.account_name, assertion.balance_minor
    running = accounts.get(account_name)
    if running is None:
        raise Problem(Reason.ACCOUNT_NOT_FOUND, f"account {account_name} does not exist", account_name=account_name)
    if running.balance != balance_minor or running.account.currency != assertion.currency:
        raise Problem(
            Reason.BALANCE_ASSERTION_FAILED,
            f"account {account_name} would have {running.balance} and not {balance_minor} minor units",
            account_name=account_name,
            balance_minor=str(running.balance),
            asserted_minor=str(balance_minor),
            currency=running.account.currency,
        )


def _limit_problem(running: Running, exceeded_by_minor: int, available_minor: int, *, is_raised: bool) -> Problem:
    account, limits = running.account, running.account.limits
    if is_raised:
        limit, limit_minor = "MAX_BALANCE", limits.max_balance_minor
    else:
        limit = "MIN_BALANCE" if limits.credit_limit_minor is None else "CREDIT_LIMIT"
        limit_minor = running.lowest or 0
    words = limit.lower().replace("_", " ")
    return Problem(
        Reason.BALANCE_LIMIT_EXCEEDED,
        f"account {account.account_name} would pass its {words} by {exceeded_by_minor} minor units;"
        f" {available_minor} are available",
        account_name=account.account_name,
        limit=limit,
        limit_minor=str(limit_minor),
        exceeded_by_minor=str(exceeded_by_minor),
        available_minor=str(available_minor),
        currency=account.currency,
    )


def _leg_problem(running: Running | None, leg: Leg) -> Problem:
    """Why a leg can't be posted to its account."""
    if running is None:
        return Problem(
            Reason.ACCOUNT_NOT_FOUND, f"account {leg.account_name} does not exist", account_name=leg.account_name
        )
    account = running.account
    if running.postable_currency is None:
        return Problem(
            Reason.ACCOUNT_NOT_OPEN,
            f"account {account.account_name} is {account.state}",
            account_name=account.account_name,
            state=account.state.value.upper(),
        )
    return Problem(
        Reason.ACCOUNT_CURRENCY_MISMATCH,
        f"account {account.account_name} holds {account.currency}, the leg is in {leg.currency}",
        account_name=account.account_name,
        account_currency=account.currency,
        leg_currency=leg.currency,
    )


def _overflow_problem(leg: Leg) -> Problem:
    return Problem(
        Reason.BALANCE_OVERFLOW,
        f"the {leg.side}s of account {leg.account_name} would no longer fit in 64 bits",
        account_name=leg.account_name,
        side=leg.side.value.upper(),
    )
