"""What callers ask to be booked, and what was booked. No I/O.

Words: a posting is what a caller asks for, its parts are legs; a transaction is what was booked, its parts are entries.

Nothing here changes once it is made. What is made by the thousand is not declared frozen all the same: that triples the
time it takes to make one.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from services.ledger.model.accounts import MAIN_BOOK, Side


class Kind(enum.StrEnum):
    """What a transaction does."""

    POSTING = "posting"
    HOLD = "hold"
    HOLD_POSTING = "hold_posting"
    HOLD_VOID = "hold_void"
    HOLD_EXPIRY = "hold_expiry"
    REVERSAL = "reversal"


class HoldState(enum.StrEnum):
    """What became of what is held."""

    HELD = "held"
    POSTED = "posted"
    VOIDED = "voided"
    EXPIRED = "expired"


@dataclass(slots=True)
class Leg:
    """One side of a posting on one account; the amount is more than zero."""

    account_name: str
    side: Side
    amount_minor: int
    currency: str


@dataclass(frozen=True, slots=True)
class Assertion:
    """A balance, on the normal side, that an account must have after a posting."""

    account_name: str
    balance_minor: int
    currency: str


@dataclass(slots=True)
class Posting:
    """A transaction that a caller asks for.

    Attributes:
        transaction_id: made by the caller; what makes the posting happen once.
        request: what was asked for, as bytes, to recognise the same posting again.
        legs: of a HOLD_POSTING, empty means all that is held; of a REVERSAL or HOLD_VOID, always empty.
        effective_time: when it took effect; None means when it is booked.
        expire_time: of a HOLD, when it is released by itself; None means never.
        related_id: of the hold to end, or of the transaction to reverse.
        entry_indexes: of a REVERSAL, which entries, from 0; empty means all.
        linked: booked only together with the posting after it.
        up_to_available: book only as much as balances and limits leave; only with two legs.
        include_proof: the answer carries the proof that it is in the book.
        include_balances: the answer carries the balances of all its accounts.
    """

    transaction_id: str
    kind: Kind
    request: bytes
    legs: tuple[Leg, ...] = ()
    book_name: str = MAIN_BOOK
    description: str = ""
    source_id: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    effective_time: datetime | None = None
    expire_time: datetime | None = None
    related_id: str = ""
    entry_indexes: tuple[int, ...] = ()
    assertions: tuple[Assertion, ...] = ()
    linked: bool = False
    up_to_available: bool = False
    include_proof: bool = False
    include_balances: bool = True


@dataclass(slots=True)
class Entry:
    """One side of a booked transaction.

    Attributes:
        sequence: position among all entries of the tenant: gapless and rising from 1.
        pending: held and not posted; it changes no balance.
        balance_after_minor: posted balance of the account on its normal side after it.
    """

    sequence: int
    account_name: str
    side: Side
    pending: bool
    amount_minor: int
    currency: str
    balance_after_minor: int


@dataclass(slots=True)
class Transaction:
    """A booked transaction. Never changes, but for what became of it since.

    Attributes:
        leaf_index: place among all transactions of the tenant, from 0: its leaf in the tree.
        first_sequence: of its first entry, or of the next there will be when it has none.
        entries: in the order of the posting's legs.
        effective_time: as the caller gave it; None means create_time.
        related_id: of the hold that it ends, or of the transaction that it reverses.
        create_time: when it was booked; never falls as the leaf index rises.
        hold_state: of a HOLD, what became of it since; None means that it is no hold.
        later_ids: of a HOLD, what ended it; of others, their reversals.
    """

    transaction_id: str
    kind: Kind
    book_name: str
    leaf_index: int
    first_sequence: int
    entries: tuple[Entry, ...]
    description: str
    source_id: str
    metadata: Mapping[str, str]
    effective_time: datetime | None
    expire_time: datetime | None
    related_id: str
    create_time: datetime
    hold_state: HoldState | None = None
    later_ids: tuple[str, ...] = ()
