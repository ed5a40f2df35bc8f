"""Whether what many callers were told at the same time could have happened one after the other.

The order that is checked is the one that the service claims: the leaf index of what it booked. In that order, every
answer must be the oracle's, to the last field. What was refused has no place of its own, and neither has a change of an
account: there must be a place for each, between its call and its return, so that all answers fit. And what had
returned before something else was called must come before it (strict serialisability).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

from tests.ledger.oracle import Oracle, Outcome
from tests.ledger.oracle_history import Ask, Booked, OracleAccount

Accounts = dict[tuple[str, str], OracleAccount]


@dataclass
class Claim:
    """What one or more callers were told about the same asks, which are booked together or not at all.

    Attributes:
        called: when the first of them called, in seconds of a clock that never falls.
        returned: when the first of them was answered.
        leaves: of each ask, its leaf index; -1 when it was refused.
        fits: whether outcomes are what the callers were told; the oracle is as it is right after them.
        latest: no clock said more when it was decided.
        told: the answer for people.
    """

    asks: tuple[Ask, ...]
    called: float
    returned: float
    leaves: tuple[int, ...]
    fits: Callable[[Oracle, Sequence[Outcome]], bool]
    latest: datetime
    told: str

    @property
    def is_refused(self) -> bool:
        """Whether nothing of it was booked."""
        return self.leaves[0] < 0


@dataclass
class Change:
    """A change of an account, of which one caller made all, one after the other.

    Attributes:
        apply: gives the accounts after it.
        fits: whether the answer is what the caller was told; the oracle is as it is right after it.
    """

    called: float
    returned: float
    apply: Callable[[Accounts], Accounts]
    fits: Callable[[Oracle], bool]


@dataclass
class Reading:
    """A reading of balances, which must have been true at some moment between its call and its return."""

    called: float
    returned: float
    fits: Callable[[Oracle], bool]


@dataclass(frozen=True)
class Window:
    """Where something may be: after so many leaves and so many changes, at least and at most."""

    first_leaf: int
    last_leaf: int
    first_change: int
    last_change: int

    def holds(self, leaf: int, change: int) -> bool:
        """Whether a place is in it."""
        return self.first_leaf <= leaf <= self.last_leaf and self.first_change <= change <= self.last_change

    def places(self) -> Iterable[tuple[int, int]]:
        """All places in it."""
        return (
            (leaf, change)
            for leaf in range(self.first_leaf, self.last_leaf + 1)
            for change in range(self.first_change, self.last_change + 1)
        )


@dataclass
class Checker:
    """Checks one history.

    Attributes:
        booked: all that was booked in the claimed order, as the service lists it.
        faults: what is wrong; filled by `check`.
    """

    accounts: Accounts
    booked: list[Booked]
    claims: list[Claim]
    changes: list[Change]
    readings: list[Reading]
    expiry_id: Callable[[str], str]
    faults: list[str] = field(default_factory=list)

    def check(self) -> list[str]:
        """What is wrong: nothing, when the history is strictly serialisable."""
        self._check_real_time()
        if not self.faults:
            self._find_path()
        if not self.faults:
            for reading in self.readings:
                window = self.window(reading.called, reading.returned)
                if not any(reading.fits(self.view(*place)) for place in window.places()):
                    self.faults.append(f"a reading was true at no moment between its call and its return: {window}")
        return self.faults

    @cached_property
    def claim_of_leaf(self) -> dict[int, tuple[Claim, Ask]]:
        """What booked each leaf; expiries were asked for by nobody."""
        return {
            leaf: (claim, ask)
            for claim in self.claims
            for leaf, ask in zip(claim.leaves, claim.asks, strict=True)
            if leaf >= 0
        }

    @cached_property
    def accounts_after(self) -> list[Accounts]:
        """The accounts after so many changes."""
        all_accounts = [self.accounts]
        for change in self.changes:
            all_accounts.append(change.apply(all_accounts[-1]))
        return all_accounts

    @cached_property
    def _asked(self) -> dict[str, tuple[Ask, Outcome]]:
        by_leaf = self.claim_of_leaf
        return {
            self.booked[leaf].transaction_id: (ask, self.booked[leaf])
            for leaf, (_, ask) in by_leaf.items()
            if leaf < len(self.booked)
        }

    def view(self, leaves: int, changes: int) -> Oracle:
        """An oracle that knows so many transactions and changes."""
        oracle = Oracle(self.expiry_id)
        oracle.accounts = dict(self.accounts_after[changes])
        oracle.booked = self.booked[:leaves]
        oracle.answers = {
            booked.transaction_id: self._asked[booked.transaction_id]
            for booked in oracle.booked
            if booked.transaction_id in self._asked
        }
        return oracle

    @cached_property
    def _returns(self) -> tuple[list[float], list[int]]:
        """When something had returned, and the last leaf that was booked by then."""
        ends = sorted((claim.returned, max(claim.leaves)) for claim in self.claims if not claim.is_refused)
        highest, tops = -1, []
        for _, leaf in ends:
            highest = max(highest, leaf)
            tops.append(highest)
        return [returned for returned, _ in ends], tops

    @cached_property
    def _calls(self) -> tuple[list[float], list[int]]:
        """When something was called, and the first leaf that was booked by what was called then or later."""
        starts = sorted((claim.called, min(claim.leaves)) for claim in self.claims if not claim.is_refused)
        lowest, bottoms = len(self.booked), []
        for _, leaf in reversed(starts):
            lowest = min(lowest, leaf)
            bottoms.append(lowest)
        return [called for called, _ in starts], bottoms[::-1]

    def window(self, called: float, returned: float) -> Window:
        """Where something that took so long may be."""
        times, tops = self._returns
        before = bisect_left(times, called)
        first_leaf = tops[before - 1] + 1 if before else 0
        times, bottoms = self._calls
        after = bisect_left(times, returned)
        last_leaf = bottoms[after] if after < len(bottoms) else len(self.booked)
        first_change = sum(change.returned < called for change in self.changes)
        last_change = sum(change.called < returned for change in self.changes)
        return Window(first_leaf, last_leaf, first_change, last_change)

    def _check_real_time(self) -> None:
        missing = [leaf for leaf, made in enumerate(self.booked) if made.leaf_index != leaf]
        if missing:
            self.faults.append(f"there is a gap before leaf {missing[0]}")
        for leaf, made in enumerate(self.booked):
            if leaf not in self.claim_of_leaf and made.kind != "hold_expiry":
                self.faults.append(f"leaf {leaf} was asked for by nobody: {made}")
        for leaf, (claim, ask) in self.claim_of_leaf.items():
            if leaf >= len(self.booked) or self.booked[leaf].transaction_id != ask.transaction_id:
                self.faults.append(f"{ask.transaction_id} was told leaf {leaf}, which is not its")
            window = self.window(claim.called, claim.returned)
            if not window.first_leaf <= leaf <= window.last_leaf:
                self.faults.append(f"leaf {leaf} is out of its time: it must be in {window}")

    def _find_path(self) -> None:
        """Looks for an order of leaves and changes in which everything fits."""
        refusals = [(claim, self.window(claim.called, claim.returned)) for claim in self.claims if claim.is_refused]
        places = [
            frozenset(place for place in window.places() if self._refusal_fits(claim, place))
            for claim, window in refusals
        ]
        for (claim, window), fitting in zip(refusals, places, strict=True):
            if not fitting:
                self.faults.append(f"at no moment in {window}, {claim.asks} was to be told: {claim.told}")
        if self.faults:
            return
        furthest = 0
        # Depth first. What waits are the refusals that found no place yet on the path so far.
        stack = [(0, 0, frozenset(range(len(refusals))))]
        seen = set(stack)
        while stack:
            leaf, change, waiting = stack.pop()
            waiting = frozenset(number for number in waiting if (leaf, change) not in places[number])
            if any(_lies_behind(places[number], leaf, change) for number in waiting):
                continue
            if (leaf, change) == (len(self.booked), len(self.changes)):
                return
            furthest = max(furthest, leaf)
            steps = {(*place, waiting) for place in self._next_places(leaf, change)} - seen
            seen |= steps
            stack += sorted(steps, key=lambda step: step[:2])
        next_one = self.booked[furthest] if furthest < len(self.booked) else "the last refusals or changes"
        reached = sorted(change for leaf, change, _ in seen if leaf == furthest)
        self.faults.append(
            f"no order fits all answers; all fail at leaf {furthest}, after {reached} changes: {next_one}"
        )

    def _next_places(self, leaf: int, change: int) -> Iterable[tuple[int, int]]:
        if change < len(self.changes) and self._change_fits(leaf, change):
            yield leaf, change + 1
        if leaf < len(self.booked) and self._leaf_fits(leaf, change):
            yield leaf + 1, change

    def _refusal_fits(self, claim: Claim, place: tuple[int, int]) -> bool:
        # When it was decided is not told: at the earliest when the last transaction before was booked.
        earliest = self.booked[place[0] - 1].create_time if place[0] else datetime.min.replace(tzinfo=UTC)
        for now in (earliest, claim.latest):
            oracle = self.view(*place)
            if claim.fits(oracle, oracle.answer_group(claim.asks, now)):
                return True
        return False

    def _change_fits(self, leaf: int, change: int) -> bool:
        made = self.changes[change]
        window = self.window(made.called, made.returned)
        return window.first_leaf <= leaf <= window.last_leaf and made.fits(self.view(leaf, change + 1))

    def _leaf_fits(self, leaf: int, change: int) -> bool:
        oracle, made = self.view(leaf, change), self.booked[leaf]
        due = oracle.expire_due(made.create_time)
        if made.kind == "hold_expiry":
            return bool(due) and due[0] == made
        claim, ask = self.claim_of_leaf[leaf]
        window = self.window(claim.called, claim.returned)
        if due or not window.first_change <= change <= window.last_change:
            return False
        outcome = oracle.answer(ask, made.create_time)
        if outcome != made:
            return False
        if leaf != max(claim.leaves):
            return True
        outcomes: list[Outcome] = [self.booked[one] for one in claim.leaves]
        return claim.fits(oracle, outcomes)


def _lies_behind(places: Iterable[tuple[int, int]], leaf: int, change: int) -> bool:
    """Whether no path from here reaches any of the places."""
    return all(one_leaf < leaf or one_change < change for one_leaf, one_change in places)
