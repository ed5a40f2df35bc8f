"""What postings do to the accounts of one tenant. No I/O.

Postings are applied in memory, in order, to what was read under the tenant's lock. Each is applied as a whole or not at
all, and sees what those before it left; `movements` then is what became of each account, to be written once however
often the account occurs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any

from mesh.errors import Problem, Reason, Violation
from mesh.ids import new_id
from services.ledger.model.legs import check_balanced, check_held, legs_of
from services.ledger.model.postings import Entry, HoldState, Kind, Leg, Posting, Transaction
from services.ledger.model.related import Related
from services.ledger.model.running import (
    BalanceAfter,
    Movement,
    Running,
    Sums,
    balance_after,
    check_assertion,
    check_limits,
    postable,
    reduced,
)

_account_key = attrgetter("account_key")
# Found once, as DEBIT is.
_HOLD = Kind.HOLD
_HELD = HoldState.HELD
_WITH_LEGS = {Kind.POSTING, Kind.HOLD}
_REVERSIBLE = {Kind.POSTING, Kind.HOLD_POSTING}


@dataclass(slots=True)
class Booked:
    """A transaction that can be written, with the balances of its accounts after it."""

    transaction: Transaction
    account_keys: Sequence[int]
    balances: tuple[BalanceAfter, ...]


class Evaluation:
    """The postings of one batch, applied one after the other.

    Args:
        accounts: by name of the book, by name of the account; they become what the postings make of them.
        closed_times: by name of the book.
        related: what the postings may end or reverse, by transaction id.
        leaf_index: of the first transaction.
        sequence: of the first entry.
        now: when all of it is booked.
        latest_time: nothing may take effect after.

    Attributes:
        booked: what is to be written, in order.
    """

    def __init__(
        self,
        *,
        accounts: Mapping[str, Mapping[str, Running]],
        closed_times: Mapping[str, datetime | None],
        related: Mapping[str, Related],
        leaf_index: int,
        sequence: int,
        now: datetime,
        latest_time: datetime,
    ) -> None:
        self._accounts = accounts
        self._closed_times = closed_times
        self._related = dict(related)
        self._first_leaf_index = leaf_index
        self._sequence = sequence
        self._now = now
        self._latest_time = latest_time
        # What undoes each change, the newest last.
        self._undo: list[tuple[Callable[[Any], object], Any]] = []
        self._booked_by_id: dict[str, Transaction] = {}
        # Of the posting being applied: what the accounts that it touched were before, and of those with limits, low
        # and high before.
        self._touched: dict[Running, Sums] = {}
        self._bounds: dict[Running, tuple[int, int]] = {}
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
        self._undo_changes(undone)
        for one in self.booked[booked:]:
            del self._booked_by_id[one.transaction.transaction_id]
            self._related.pop(one.transaction.transaction_id, None)
        del self.booked[booked:]

    def post(self, posting: Posting) -> Booked:
        """Applies one posting; a refused one changes nothing.

        Raises:
            Problem: the reasons that the contract gives for the RPC.
        """
        undone = len(self._undo)
        self._begin()
        try:
            return self._post(posting)
        except Problem:
            self._undo_changes(undone)
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
        self._begin()
        self._release(hold, HoldState.EXPIRED, expiry.transaction_id)
        return self._book(expiry, (), hold.transaction.book_name)

    def reversed_sequences(self, reversal: Transaction) -> list[int]:
        """Sequences of the entries that a reversal of this batch reversed."""
        reversed_by = self._related[reversal.related_id].reversed_by
        return [sequence for sequence, by in reversed_by.items() if by == reversal.transaction_id]

    def movements(self) -> list[Movement]:
        """What became of each account that any posting changed, in the order of their keys."""
        before: dict[Running, Sums] = {}
        # The oldest come last: what an account was before the first posting that touched it.
        for restore, touched in reversed(self._undo):
            if restore is _restore:
                before.update(touched)
        movements = [running.movement_since(before[running]) for running in sorted(before, key=_account_key)]
        return [movement for movement in movements if movement is not None]

    def _begin(self) -> None:
        """Begins a posting."""
        self._touched, self._bounds = {}, {}
        self._undo.append((_restore, self._touched))

    def _undo_changes(self, undone: int) -> None:
        while len(self._undo) > undone:
            restore, saved = self._undo.pop()
            restore(saved)

    def _post(self, posting: Posting) -> Booked:
        if posting.kind in _WITH_LEGS:
            check_balanced(posting.legs)
            self._check_time(posting, posting.book_name)
            return self._book(posting, posting.legs, posting.book_name)
        if posting.kind is Kind.HOLD_VOID:
            hold = self._held(posting)
            self._release(hold, HoldState.VOIDED, posting.transaction_id)
            return self._book(posting, (), hold.transaction.book_name)
        if posting.kind is Kind.HOLD_POSTING:
            return self._post_hold(posting)
        return self._reverse(posting)

    def _post_hold(self, posting: Posting) -> Booked:
        hold = self._held(posting)
        book_name = hold.transaction.book_name
        legs = posting.legs or legs_of(hold.transaction.entries)
        if len(legs) == 1:
            # A transfer says the amount only.
            legs = legs_of(hold.transaction.entries, legs[0])
        check_balanced(legs)
        check_held(hold.transaction.entries, legs)
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
        if related.is_archived:
            raise Problem(
                Reason.RESOURCE_NOT_FOUND,
                f"the entries of transaction {posting.related_id} are archived: attach their month to the table again",
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
        accounts = self._accounts[hold.transaction.book_name]
        for entry in hold.transaction.entries:
            running = accounts[entry.account_name]
            self._remember(running)
            running.release(entry)

    def _remember(self, running: Running) -> None:
        """Keeps what an account was before the posting that is being applied."""
        if running not in self._touched:
            self._touched[running] = running.save()
            if running.is_limited:
                self._bounds[running] = running.low, running.high

    def _check_time(self, posting: Posting, book_name: str) -> None:
        """Checks when a posting takes effect, and until when it holds.

        Raises:
            Problem: FIELD_INVALID, too far in the future, or a hold that is over; PERIOD_CLOSED.
        """
        effective_time = posting.effective_time
        if effective_time is not None and effective_time > self._latest_time:
            words = f"is too far in the future: use a time up to {self._latest_time.isoformat()}"
            raise Problem(Reason.FIELD_INVALID, violations=[Violation("effective_time", words)])
        if posting.expire_time is not None and posting.expire_time <= self._now:
            # It would never be held.
            words = f"is over: use a time after {self._now.isoformat()}, or leave it out"
            raise Problem(Reason.FIELD_INVALID, violations=[Violation("expire_time", words)])
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
        pending = posting.kind is _HOLD
        accounts = self._accounts.get(book_name, {})
        if posting.up_to_available:
            legs = reduced(legs, accounts)
        entries, moved = [], []
        sequence = self._sequence
        for leg in legs:
            running = postable(leg, accounts)
            self._remember(running)
            if pending:
                running.hold(leg)
            else:
                running.post(leg)
            entries.append(
                Entry(sequence, leg.account_name, leg.side, pending, leg.amount_minor, leg.currency, running.balance)
            )
            moved.append(running)
            sequence += 1
        if self._bounds:
            for running in moved:
                if running.is_limited:
                    check_limits(running, *self._bounds[running])
        for assertion in posting.assertions:
            check_assertion(assertion, accounts)
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
            _HELD if pending else None,
        )
        balances = tuple(map(balance_after, dict.fromkeys(moved))) if posting.include_balances else ()
        booked = Booked(transaction, [running.account_key for running in moved], balances)
        self._sequence = sequence
        self.booked.append(booked)
        self._booked_by_id[transaction.transaction_id] = transaction
        return booked


def _restore(touched: Mapping[Running, Sums]) -> None:
    for running, sums in touched.items():
        running.restore(sums)
