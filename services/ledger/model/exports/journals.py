"""What the journals of hledger and of beancount have in common.

Amounts have the sign that both tools use: debits above zero, credits below. Days are those of UTC.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from services.ledger.model.accounts import AccountState, AccountType
from services.ledger.model.exports.tables import major_text, time_text
from services.ledger.model.postings import Kind

OPENING = "Opening balances"
_HASH_DIGITS = 6


@dataclass(frozen=True, slots=True)
class JournalAccount:
    """An account with its balances around the period.

    Attributes:
        scale: decimals of its currency.
        opening_minor: before the first transaction of the journal.
        closing_minor: after the last.
        is_used: whether anything was posted to it until then.
    """

    account_name: str
    account_number: str
    type: AccountType
    currency: str
    scale: int
    display_name: str
    state: AccountState
    metadata: Mapping[str, str]
    opening_minor: int
    closing_minor: int
    is_used: bool


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One posted entry."""

    account_name: str
    amount_minor: int
    currency: str
    scale: int


@dataclass(frozen=True, slots=True)
class JournalTransaction:
    """One transaction that moved amounts."""

    transaction_id: str
    kind: Kind
    description: str
    source_id: str
    related_id: str
    metadata: Mapping[str, str]
    effective_time: datetime
    create_time: datetime
    entries: Sequence[JournalEntry]

    @property
    def day(self) -> date:
        """The day on which it took effect."""
        return self.effective_time.astimezone(UTC).date()

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What both tools are told of it besides its entries, by name; none is empty."""
        facts = (
            ("kind", self.kind.value),
            ("effective-time", time_text(self.effective_time)),
            ("booking-time", time_text(self.create_time)),
            ("source-id", self.source_id),
            ("related-transaction-id", self.related_id),
        )
        return [(name, text) for name, text in facts if text]


@dataclass(frozen=True, slots=True)
class JournalHead:
    """What a journal is about.

    Attributes:
        facts: such as the period, by name.
        first_day: no transaction took effect before.
        accounts: all of the book, in the order in which they were created.
        prices: units of the presentation currency for one unit of each currency, as decimal numbers.
    """

    book_name: str
    facts: tuple[tuple[str, str], ...]
    first_day: date
    accounts: tuple[JournalAccount, ...]
    presentation_currency: str
    prices: Mapping[str, str]

    @property
    def scales(self) -> dict[str, int]:
        """Decimals of each currency, by its code, sorted."""
        return dict(sorted((account.currency, account.scale) for account in self.accounts))

    @property
    def opened(self) -> list[JournalAccount]:
        """The accounts that the journal begins with a balance on. All of them together balance in each currency."""
        return [account for account in self.accounts if account.opening_minor]

    @property
    def used(self) -> list[JournalAccount]:
        """The accounts that anything was posted to."""
        return [account for account in self.accounts if account.is_used]


def account_facts(account: JournalAccount) -> list[tuple[str, str]]:
    """What both tools are told of an account besides its name, type and currency; none is empty."""
    facts = (
        ("account-number", account.account_number),
        ("display-name", account.display_name),
        ("state", "" if account.state is AccountState.OPENED else account.state.value),
    )
    return [(name, text) for name, text in facts if text]


def amount_text(amount_minor: int, scale: int, commodity: str) -> str:
    """An amount as both tools write it: "10.50 GHS"."""
    return f"{major_text(amount_minor, scale)} {commodity}"


def distinct(names: Iterable[str], shape: Callable[[str], str]) -> dict[str, str]:
    """A shape for each name, no two the same.

    Where two names would have the same shape, the first keeps it, and each other is told apart by digits of its own
    hash. So a name that is added last never changes the shape of another.
    """
    shapes: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        plain = shaped = shape(name)
        digits = hashlib.sha256(name.encode()).hexdigest()
        length = _HASH_DIGITS
        while shaped in taken:
            shaped = f"{plain}-x{digits[:length]}"
            length += 1
        shapes[name] = shaped
        taken.add(shaped)
    return shapes
