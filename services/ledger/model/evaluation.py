"""What postings do to the accounts of one tenant. No I/O.

Postings are applied in memory, in order, to what was read under the tenant's lock. Each is applied as a whole or not at
all, and sees what those before it left; `movements` then is the net change of each account, to be written once however
often the account occurs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from mesh.errors import Problem, Reason, Violation
from mesh.ids import new_id
from mesh.money import INT64_MAX
from services.ledger.model.accounts import Account, AccountState, Side
from services.ledger.model.postings import Entry, HoldState, Kind, Leg, Posting, Transaction

_REVERSIBLE = {Kind.POSTING, Kind.HOLD_POSTING}


class Running:
    """The sums of one account while postings are applied to it, in minor units."""

    __slots__ = (
        "account",
        "credits",
        "debits",
        "is_debit",
        "is_limited",
        "lowest",
        "pending_credits",
        "pending_debits",
        "postable_currency",
    )

    def __init__(self, account: Account) -> None:
        self.account = account
        self.is_debit = account.type.normal_side is Side.DEBIT
        self.lowest = account.limits.lowest_minor
        self.is_limited = self.lowest is not None or account.limits.max_balance_minor is not None
        # None: nothing can be posted to it.
        self.postable_currency = account.currency if account.state is AccountState.OPENED else None
        self.debits = account.debits_minor
        self.credits = account.credits_minor
        self.pending_debits = account.pending_debits_minor
        self.pending_credits = account.pending_credits_minor

    def save(self) -> tuple[int, int, int, int]:
        """What `restore` needs to undo all that comes."""
        return self.debits, self.credits, self.pending_debits, self.pending_credits

    def restore(self, saved: tuple[int, int, int, int]) -> None:
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
        return None if self.lowest is None else max(0, self.low - self.lowest)

    def add(self, side: Side, amount_minor: int, *, pending: bool) -> None:
        """Adds to one of the four sums; a negative amount takes away."""
        if pending:
            if side is Side.DEBIT:
                self.pending_debits += amount_minor
            else:
                self.pending_credits += amount_minor
        elif side is Side.DEBIT:
            self.debits += amount_minor
        else:
            self.credits += amount_minor

    @property
    def overflows(self) -> bool:
        """Whether a sum would not fit in 64 bits, now or once what is held is posted."""
        return self.debits + self.pending_debits > INT64_MAX or self.credits + self.pending_credits > INT64_MAX


@dataclass(slots=True)
class Related:
    """A transaction that a later one may end or reverse, and what became of it.

    Attributes:
        hold_state: of a hold.
        ended_by: id of the transaction that ended the hold.
        reversed_by: by sequence of the entry, the id of the transaction that reversed it.
    """

    transaction: Transaction
    hold_state: HoldState | None
    ended_by: str
    reversed_by: dict[int, str]

    def save(self) -> tuple[HoldState | None, str, dict[int, str]]:
        """What `restore` needs to undo all that comes."""
        return self.hold_state, self.ended_by, self.reversed_by

    def restore(self, saved: tuple[HoldState | None, str, dict[int, str]]) -> None:
        """Undoes everything since `save`."""
        self.hold_state, self.ended_by, self.reversed_by = saved


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
class Booked:
    """A transaction that can be written, with the balances of its accounts after it."""

    transaction: Transaction
    account_keys: Sequence[int]
    balances: tuple[BalanceAfter, ...]


@dataclass(slots=True)
class Movement:
    """What an evaluation adds to one account in all, in minor units of the account's currency."""

    account_key: int
    debits_minor: int
    credits_minor: int
    pending_debits_minor: int
    pending_credits_minor: int


class Evaluation:
    """The postings of one batch, applied one after the other.

    Attributes:
        booked: what is to be written, in order.
    """

    def __init__(
        self,
        *,
        accounts: Iterable[Account],
        closed_times: Mapping[str, datetime | None],
        related: Mapping[str, Related],
        leaf_index: int,
        sequence: int,
        now: datetime,
        latest_time: datetime,
    ) -> None:
        self._accounts = {(account.book_name, account.account_name): Running(account) for account in accounts}
        self._closed_times = closed_times
        self._related = dict(related)
        self._first_leaf_index = leaf_index
        self._sequence = sequence
        self._now = now
        self._latest_time = latest_time
        # What undoes each change, the newest last.
        self._undo: list[tuple[Callable[[Any], object], Any]] = []
        self._booked_by_id: dict[str, Transaction] = {}
        # Accounts that the posting being applied touched, with low and high before; None of one without limits.
        self._touched: dict[Running, tuple[int, int] | None] = {}
        self.booked: list[Booked] = []

    @property
    def next_sequence(self) -> int:
        """Sequence of the entry that would come next."""
        return self._sequence

    def mark(self) -> tuple[int, int, int]:
        """A point to go back to with `undo`."""
        return len(self._undo), len(self.booked), self._sequence

    def undo(self, mark: tuple[int, int, int]) -> None:
        """Makes everything since the mark not have happened."""
        undone, booked, self._sequence = mark
        while len(self._undo) > undone:
            restore, saved = self._undo.pop()
            restore(saved)
        for one in self.booked[booked:]:
            del self._booked_by_id[one.transaction.transaction_id]
            self._related.pop(one.transaction.transaction_id, None)
        del self.booked[booked:]

    def post(self, posting: Posting) -> Booked:
        """Applies one posting; a refused one changes nothing.

        Raises:
            Problem: the reasons that the contract gives for the RPC.
        """
        mark = self.mark()
        self._touched = {}
        try:
            return self._post(posting)
        except Problem:
            self.undo(mark)
            raise

    def expire(self, hold_id: str) -> Booked:
        """Releases a hold whose time is over."""
        hold = self._related[hold_id]
        expiry = Posting(
            # Nobody can have taken it; that it happens once is what the hold's own state says.
            transaction_id=new_id("txn"),
            kind=Kind.HOLD_EXPIRY,
            request=b"",
            book_name=hold.transaction.book_name,
            effective_time=hold.transaction.expire_time,
            related_id=hold_id,
        )
        self._touched = {}
        self._release(hold, HoldState.EXPIRED, expiry.transaction_id)
        return self._book(expiry, (), hold.transaction.book_name)

    def reversed_sequences(self, reversal: Transaction) -> list[int]:
        """Sequences of the entries that a reversal of this batch reversed."""
        reversed_by = self._related[reversal.related_id].reversed_by
        return [sequence for sequence, by in reversed_by.items() if by == reversal.transaction_id]

    def movements(self) -> list[Movement]:
        """The net change of each account that any posting changed."""
        return [
            Movement(account.account_key, *difference)
            for running in self._accounts.values()
            for account in (running.account,)
            if any(
                difference := (
                    running.debits - account.debits_minor,
                    running.credits - account.credits_minor,
                    running.pending_debits - account.pending_debits_minor,
                    running.pending_credits - account.pending_credits_minor,
                )
            )
        ]

    def _post(self, posting: Posting) -> Booked:
        if posting.kind is Kind.HOLD_VOID:
            hold = self._held(posting)
            self._release(hold, HoldState.VOIDED, posting.transaction_id)
            return self._book(posting, (), hold.transaction.book_name)
        if posting.kind is Kind.HOLD_POSTING:
            return self._post_hold(posting)
        if posting.kind is Kind.REVERSAL:
            return self._reverse(posting)
        check_balanced(posting.legs)
        self._check_time(posting, posting.book_name)
        return self._book(posting, posting.legs, posting.book_name)

    def _post_hold(self, posting: Posting) -> Booked:
        hold = self._held(posting)
        book_name = hold.transaction.book_name
        legs = posting.legs or _legs_of(hold.transaction.entries)
        if len(legs) == 1:
            # A transfer says the amount only.
            legs = _legs_of(hold.transaction.entries, legs[0])
        check_balanced(legs)
        _check_held(hold.transaction.entries, legs)
        self._check_time(posting, book_name)
        self._release(hold, HoldState.POSTED, posting.transaction_id)
        return self._book(posting, legs, book_name)

    def _reverse(self, posting: Posting) -> Booked:
        related = self._found(posting)
        before = related.transaction
        if before.kind not in _REVERSIBLE:
            raise Problem(
                Reason.TRANSACTION_NOT_REVERSIBLE,
                f"transaction {before.transaction_id} is a {before.kind.replace('_', ' ')}",
                transaction_id=before.transaction_id,
                kind=before.kind.value.upper(),
            )
        indexes = posting.entry_indexes or range(len(before.entries))
        if max(indexes) >= len(before.entries):
            raise Problem(
                Reason.RESOURCE_NOT_FOUND,
                f"transaction {before.transaction_id} has {len(before.entries)} entries, counted from 0",
                transaction_id=before.transaction_id,
                entry_count=str(len(before.entries)),
            )
        entries = [before.entries[index] for index in indexes]
        for entry in entries:
            if entry.sequence in related.reversed_by:
                reversal_id = related.reversed_by[entry.sequence]
                raise Problem(
                    Reason.TRANSACTION_ALREADY_REVERSED,
                    f"transaction {before.transaction_id} was reversed by {reversal_id}",
                    transaction_id=before.transaction_id,
                    reversal_transaction_id=reversal_id,
                )
        legs = tuple(
            Leg(entry.account_name, entry.side.opposite, entry.amount_minor, entry.currency) for entry in entries
        )
        check_balanced(legs)
        self._check_time(posting, before.book_name)
        self._undo.append((related.restore, related.save()))
        related.reversed_by = related.reversed_by | {entry.sequence: posting.transaction_id for entry in entries}
        return self._book(posting, legs, before.book_name)

    def _found(self, posting: Posting) -> Related:
        related = self._related.get(posting.related_id)
        if related is None and posting.related_id in self._booked_by_id:
            transaction = self._booked_by_id[posting.related_id]
            hold_state = HoldState.HELD if transaction.kind is Kind.HOLD else None
            related = self._related[posting.related_id] = Related(transaction, hold_state, "", {})
        if related is None:
            raise Problem(
                Reason.RESOURCE_NOT_FOUND,
                f"transaction {posting.related_id} does not exist",
                transaction_id=posting.related_id,
            )
        return related

    def _held(self, posting: Posting) -> Related:
        """The hold that a posting ends."""
        hold = self._found(posting)
        if hold.hold_state is not HoldState.HELD:
            state = "NONE" if hold.hold_state is None else hold.hold_state.value.upper()
            raise Problem(
                Reason.HOLD_NOT_PENDING,
                f"transaction {posting.related_id} is no hold"
                if hold.hold_state is None
                else f"hold {posting.related_id} was {hold.hold_state} by {hold.ended_by}",
                transaction_id=posting.related_id,
                state=state,
                ended_by_transaction_id=hold.ended_by,
            )
        return hold

    def _release(self, hold: Related, state: HoldState, ended_by: str) -> None:
        self._undo.append((hold.restore, hold.save()))
        hold.hold_state, hold.ended_by = state, ended_by
        for entry in hold.transaction.entries:
            running = self._accounts[hold.transaction.book_name, entry.account_name]
            self._remember(running)
            running.add(entry.side, -entry.amount_minor, pending=True)

    def _remember(self, running: Running) -> None:
        """Keeps what an account was before the posting that is being applied."""
        if running not in self._touched:
            self._touched[running] = (running.low, running.high) if running.is_limited else None
            self._undo.append((running.restore, running.save()))

    def _check_time(self, posting: Posting, book_name: str) -> None:
        """Checks when a posting takes effect.

        Raises:
            Problem: FIELD_INVALID, too far in the future; PERIOD_CLOSED.
        """
        effective_time = posting.effective_time
        if effective_time is not None and effective_time > self._latest_time:
            words = f"is too far in the future: use a time up to {self._latest_time.isoformat()}"
            raise Problem(Reason.FIELD_INVALID, violations=[Violation("effective_time", words)])
        closed_time = self._closed_times.get(book_name)
        if closed_time is not None and (effective_time or self._now) < closed_time:
            raise Problem(
                Reason.PERIOD_CLOSED,
                f"book {book_name} is closed for what takes effect before {closed_time.isoformat()}",
                book_name=book_name,
                closed_time=closed_time.isoformat(),
            )

    def _book(self, posting: Posting, legs: Sequence[Leg], book_name: str) -> Booked:
        """Applies legs that balance, and numbers what is booked.

        Raises:
            Problem: ACCOUNT_NOT_FOUND, ACCOUNT_NOT_OPEN, ACCOUNT_CURRENCY_MISMATCH or BALANCE_OVERFLOW for the first
                leg at fault; BALANCE_LIMIT_EXCEEDED; BALANCE_ASSERTION_FAILED.
        """
        pending = posting.kind is Kind.HOLD
        if posting.up_to_available:
            legs = self._reduced(legs, book_name)
        entries, account_keys = [], []
        sequence = self._sequence
        moved: dict[Running, None] = {}
        for leg in legs:
            running = self._postable(leg, book_name)
            moved[running] = None
            self._remember(running)
            running.add(leg.side, leg.amount_minor, pending=pending)
            if running.overflows:
                raise _overflow(leg)
            entries.append(
                Entry(sequence, leg.account_name, leg.side, pending, leg.amount_minor, leg.currency, running.balance)
            )
            account_keys.append(running.account.account_key)
            sequence += 1
        for running in moved:
            before = self._touched[running]
            if before is not None:
                _check_limits(running, *before)
        for assertion in posting.assertions:
            self._check_assertion(assertion.account_name, assertion.balance_minor, assertion.currency, book_name)
        transaction = Transaction(
            posting.transaction_id,
            posting.kind,
            book_name,
            self._first_leaf_index + len(self.booked),
            self._sequence,
            tuple(entries),
            posting.description,
            posting.source_id,
            posting.metadata,
            posting.effective_time,
            posting.expire_time,
            posting.related_id,
            self._now,
            HoldState.HELD if pending else None,
        )
        balances = tuple(_balance_after(running) for running in moved) if posting.include_balances else ()
        booked = Booked(transaction, account_keys, balances)
        self._sequence = sequence
        self.booked.append(booked)
        self._booked_by_id[transaction.transaction_id] = transaction
        return booked

    def _reduced(self, legs: Sequence[Leg], book_name: str) -> Sequence[Leg]:
        """The legs for as much of their amount as balances and limits leave.

        Raises:
            Problem: BALANCE_LIMIT_EXCEEDED, they leave nothing.
        """
        amount_minor = legs[0].amount_minor
        for running, leg in [(self._postable(leg, book_name), leg) for leg in legs]:
            room_minor = _room(running, leg.side)
            if room_minor is None:
                continue
            if room_minor <= 0:
                is_raised = (leg.side is Side.DEBIT) is running.is_debit
                raise _limit_exceeded(running, leg.amount_minor - room_minor, 0, is_raised=is_raised)
            amount_minor = min(amount_minor, room_minor)
        return [replace(leg, amount_minor=amount_minor) for leg in legs]

    def _postable(self, leg: Leg, book_name: str) -> Running:
        """The account of a leg.

        Raises:
            Problem: ACCOUNT_NOT_FOUND, ACCOUNT_NOT_OPEN or ACCOUNT_CURRENCY_MISMATCH.
        """
        running = self._accounts.get((book_name, leg.account_name))
        if running is None or running.postable_currency != leg.currency:
            raise _leg_problem(running, leg)
        return running

    def _check_assertion(self, account_name: str, balance_minor: int, currency: str, book_name: str) -> None:
        running = self._accounts.get((book_name, account_name))
        if running is None:
            raise Problem(Reason.ACCOUNT_NOT_FOUND, f"account {account_name} does not exist", account_name=account_name)
        if running.balance != balance_minor or running.account.currency != currency:
            raise Problem(
                Reason.BALANCE_ASSERTION_FAILED,
                f"account {account_name} would have {running.balance} and not {balance_minor} minor units",
                account_name=account_name,
                balance_minor=str(running.balance),
                asserted_minor=str(balance_minor),
                currency=running.account.currency,
            )


def check_balanced(legs: Sequence[Leg]) -> None:
    """Checks that the debits of each currency equal its credits.

    Raises:
        Problem: TRANSACTION_UNBALANCED, with the sums and the difference of the first currency at fault.
    """
    if len(legs) == 2 and _are_opposite(*legs):  # noqa: PLR2004 - one debit and one credit, as most are
        return
    sums_minor: dict[str, list[int]] = {}
    for leg in legs:
        sums_minor.setdefault(leg.currency, [0, 0])[leg.side is Side.CREDIT] += leg.amount_minor
    for currency, (debits_minor, credits_minor) in sums_minor.items():
        if debits_minor != credits_minor:
            raise Problem(
                Reason.TRANSACTION_UNBALANCED,
                f"in {currency}, debits are {debits_minor} and credits {credits_minor} minor units",
                currency=currency,
                debits_minor=str(debits_minor),
                credits_minor=str(credits_minor),
                difference_minor=str(debits_minor - credits_minor),
            )


def _are_opposite(one: Leg, other: Leg) -> bool:
    return one.amount_minor == other.amount_minor and one.side is not other.side and one.currency == other.currency


def _legs_of(entries: Sequence[Entry], amount: Leg | None = None) -> tuple[Leg, ...]:
    """The legs that post what entries hold: all of it, or so much of each."""
    return tuple(
        Leg(
            entry.account_name,
            entry.side,
            entry.amount_minor if amount is None else amount.amount_minor,
            entry.currency if amount is None else amount.currency,
        )
        for entry in entries
    )


def _check_held(entries: Sequence[Entry], legs: Sequence[Leg]) -> None:
    """Checks that legs post no more than entries hold.

    Raises:
        Problem: HOLD_EXCEEDED.
    """
    held_minor: dict[tuple[str, Side, str], int] = {}
    for entry in entries:
        key = (entry.account_name, entry.side, entry.currency)
        held_minor[key] = held_minor.get(key, 0) + entry.amount_minor
    asked_minor: dict[tuple[str, Side, str], int] = {}
    for leg in legs:
        key = (leg.account_name, leg.side, leg.currency)
        asked_minor[key] = asked_minor.get(key, 0) + leg.amount_minor
    for key, amount_minor in asked_minor.items():
        if amount_minor > held_minor.get(key, 0):
            account_name, side, currency = key
            raise Problem(
                Reason.HOLD_EXCEEDED,
                f"{held_minor.get(key, 0)} minor units are held as a {side} of account {account_name}",
                account_name=account_name,
                side=side.value.upper(),
                currency=currency,
                held_minor=str(held_minor.get(key, 0)),
                amount_minor=str(amount_minor),
            )


def _room(running: Running, side: Side) -> int | None:
    """How much can be added on a side of an account; None for any amount. Without a lowest balance, down to zero."""
    if (side is Side.DEBIT) is running.is_debit:
        highest = running.account.limits.max_balance_minor
        return None if highest is None else highest - running.high
    return running.low - (running.lowest or 0)


def _check_limits(running: Running, low_before: int, high_before: int) -> None:
    """Checks the limits in the direction in which a posting moved the account.

    Raises:
        Problem: BALANCE_LIMIT_EXCEEDED.
    """
    lowest, highest = running.lowest, running.account.limits.max_balance_minor
    if lowest is not None and lowest > running.low < low_before:
        raise _limit_exceeded(running, lowest - running.low, max(0, low_before - lowest), is_raised=False)
    if highest is not None and highest < running.high > high_before:
        raise _limit_exceeded(running, running.high - highest, max(0, highest - high_before), is_raised=True)


def _limit_exceeded(running: Running, exceeded_by_minor: int, available_minor: int, *, is_raised: bool) -> Problem:
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


def _overflow(leg: Leg) -> Problem:
    return Problem(
        Reason.BALANCE_OVERFLOW,
        f"the {leg.side}s of account {leg.account_name} would no longer fit in 64 bits",
        account_name=leg.account_name,
        side=leg.side.value.upper(),
    )


def _balance_after(running: Running) -> BalanceAfter:
    return BalanceAfter(
        running.account.account_name,
        running.account.currency,
        running.balance,
        running.pending_debits,
        running.pending_credits,
        running.available,
    )
