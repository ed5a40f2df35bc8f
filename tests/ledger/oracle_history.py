"""What was ever booked, as plain data. Every sum is made anew from all of it.

Shares no code with the service. Amounts are whole minor units, sides are "debit" and "credit", times are aware UTC.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

INT64_MAX = 2**63 - 1
OPPOSITE = {"debit": "credit", "credit": "debit"}
NORMAL_SIDE = {"asset": "debit", "expense": "debit", "liability": "credit", "equity": "credit", "income": "credit"}
# What became of a hold, by the kind of the transaction that ended it.
HOLD_STATE_AFTER = {"hold_posting": "posted", "hold_void": "voided", "hold_expiry": "expired"}


@dataclass(frozen=True)
class Leg:
    """One side of what is asked for."""

    account: str
    side: str
    amount: int
    currency: str

    @property
    def opposite(self) -> Leg:
        """The leg that undoes it."""
        return Leg(self.account, OPPOSITE[self.side], self.amount, self.currency)


@dataclass(frozen=True)
class Limits:
    """Limits of an account; None means there is none."""

    lowest: int | None = None
    highest: int | None = None
    credit: int | None = None

    @property
    def floor(self) -> int | None:
        """The balance may not go below."""
        return self.lowest if self.credit is None else (self.lowest or 0) - self.credit


@dataclass(frozen=True)
class OracleAccount:
    """What is known of an account beside its history."""

    type: str
    currency: str
    state: str = "opened"
    limits: Limits = Limits()

    @property
    def normal_side(self) -> str:
        """The side on which it grows."""
        return NORMAL_SIDE[self.type]


@dataclass(frozen=True)
class Ask:
    """What a caller asks to be booked: kind posting, hold, hold_posting, hold_void or reversal.

    Attributes:
        legs: of a hold_posting, empty means all that is held.
        related_id: the hold to end, or what to reverse.
        entry_indexes: of a reversal, empty means all.
        assertions: (account, balance, currency).
        metadata: (name, value), sorted.
        form: "transaction" for a request of its own, "transfer" for an item of CreateTransfers.
    """

    transaction_id: str
    kind: str
    legs: tuple[Leg, ...] = ()
    book: str = "main"
    description: str = ""
    source_id: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    effective_time: datetime | None = None
    expire_time: datetime | None = None
    related_id: str = ""
    entry_indexes: tuple[int, ...] = ()
    assertions: tuple[tuple[str, int, str], ...] = ()
    linked: bool = False
    up_to_available: bool = False
    form: str = "transaction"


@dataclass(frozen=True)
class OracleEntry:
    """One side of what was booked."""

    sequence: int
    account: str
    side: str
    pending: bool
    amount: int
    currency: str
    balance_after: int

    @property
    def leg(self) -> Leg:
        """What it moves."""
        return Leg(self.account, self.side, self.amount, self.currency)


@dataclass(frozen=True)
class Booked:
    """One transaction. What became of it since is in the history after it."""

    transaction_id: str
    kind: str
    book: str
    leaf_index: int
    entries: tuple[OracleEntry, ...]
    description: str
    source_id: str
    metadata: tuple[tuple[str, str], ...]
    effective_time: datetime
    expire_time: datetime | None
    related_id: str
    create_time: datetime


@dataclass
class History:
    """All of one tenant's accounts and transactions."""

    accounts: dict[tuple[str, str], OracleAccount] = field(default_factory=dict)
    booked: list[Booked] = field(default_factory=list)

    @property
    def next_sequence(self) -> int:
        """Of the next entry."""
        return 1 + sum(len(transaction.entries) for transaction in self.booked)

    def find(self, transaction_id: str) -> Booked | None:
        """The transaction with an id."""
        return next((found for found in self.booked if found.transaction_id == transaction_id), None)

    def later(self, transaction_id: str) -> list[Booked]:
        """What ended a hold, or reversed something."""
        return [found for found in self.booked if found.related_id == transaction_id]

    def hold_state(self, hold: Booked) -> str:
        """What became of a hold: held, posted, voided or expired."""
        return next((HOLD_STATE_AFTER[found.kind] for found in self.later(hold.transaction_id)), "held")

    def entries(
        self,
        key: tuple[str, str],
        effective_time: datetime | None = None,
        booking_time: datetime | None = None,
    ) -> Iterator[OracleEntry]:
        """The posted entries of an account that had taken effect, and were booked, by then."""
        for transaction in self.booked:
            if transaction.book != key[0]:
                continue
            if effective_time is not None and transaction.effective_time > effective_time:
                continue
            if booking_time is not None and transaction.create_time > booking_time:
                continue
            yield from (entry for entry in transaction.entries if entry.account == key[1] and not entry.pending)

    def total(self, key: tuple[str, str], side: str, *times: datetime | None) -> int:
        """Sum of one side of an account."""
        return sum(entry.amount for entry in self.entries(key, *times) if entry.side == side)

    def balance(self, key: tuple[str, str], *times: datetime | None) -> int:
        """Balance on the normal side."""
        side = self.accounts[key].normal_side
        return self.total(key, side, *times) - self.total(key, OPPOSITE[side], *times)

    def held(self, key: tuple[str, str], side: str) -> int:
        """Sum of what is held now on one side of an account."""
        return sum(
            entry.amount
            for hold in self.booked
            if hold.kind == "hold" and hold.book == key[0] and self.hold_state(hold) == "held"
            for entry in hold.entries
            if entry.account == key[1] and entry.side == side
        )

    def low(self, key: tuple[str, str]) -> int:
        """The balance as if all that lowers it and is held were posted."""
        return self.balance(key) - self.held(key, OPPOSITE[self.accounts[key].normal_side])

    def high(self, key: tuple[str, str]) -> int:
        """The balance as if all that raises it and is held were posted."""
        return self.balance(key) + self.held(key, self.accounts[key].normal_side)

    def available(self, key: tuple[str, str]) -> int | None:
        """What can be taken off; None when there is no lowest balance."""
        floor = self.accounts[key].limits.floor
        return None if floor is None else max(0, self.low(key) - floor)
