"""Transactions as a journal of beancount (https://beancount.github.io/docs/beancount_language_syntax.html).

Beancount wants accounts named by its own rules: the type first, then capitalised parts of letters, digits and hyphens.
So "assets:mtn_momo:ghs" becomes "Assets:Mtn-momo:Ghs"; the name itself is in the metadata of the account's `open`. The
journal ends with the balance of every account, which beancount checks, exactly, against what it computes itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date, timedelta

from services.ledger.model.accounts import AccountType
from services.ledger.model.exports.journals import (
    OPENING,
    JournalAccount,
    JournalHead,
    JournalTransaction,
    account_facts,
    amount_text,
    distinct,
)

# The first part of a name that says no more than the type does.
_ROOTS = {
    AccountType.ASSET: ("Assets", {"asset", "assets"}),
    AccountType.LIABILITY: ("Liabilities", {"liability", "liabilities"}),
    AccountType.EQUITY: ("Equity", {"equity"}),
    AccountType.INCOME: ("Income", {"income", "revenue", "revenues"}),
    AccountType.EXPENSE: ("Expenses", {"expense", "expenses"}),
}
# Beancount reads no other years.
_FIRST_DAY, _LAST_DAY = date(1700, 1, 1), date(2099, 12, 30)
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


class BeancountWriter:
    """Writes a journal piece by piece."""

    def __init__(self, head: JournalHead) -> None:
        self._head = head
        types = {account.account_name: account.type for account in head.accounts}
        self._names = distinct(types, lambda name: beancount_name(name, types[name]))
        self._last_day = _day(head.first_day)

    def begin(self) -> bytes:
        """What stands before the transactions: declarations, and the balances at the beginning."""
        head, day = self._head, _day(self._head.first_day)
        lines = [f"; Kente ledger, book {head.book_name}"]
        lines += [f"; {name.replace('_', ' ')}: {text}" for name, text in head.facts]
        lines += ["; What is held, and not posted, is not in it.", ""]
        lines.append(f"option {_string('title')} {_string(f'Kente ledger, book {head.book_name}')}")
        for currency, scale in head.scales.items():
            lines += ["", f"{day} commodity {currency}", f"  scale: {scale}"]
        for account in head.accounts:
            facts = [("account-name", account.account_name), *account_facts(account)]
            lines += ["", f"{day} open {self._names[account.account_name]} {account.currency}"]
            lines += _metadata(facts, account.metadata)
        if head.opened:
            lines += ["", f"{day} * {_string(OPENING)}"]
            lines += [self._posting(account, account.opening_minor) for account in head.opened]
        return _text(lines)

    def transactions(self, transactions: Iterable[JournalTransaction]) -> bytes:
        """The next transactions."""
        lines: list[str] = []
        for transaction in transactions:
            self._last_day = max(self._last_day, _day(transaction.day))
            lines += ["", f"{_day(transaction.day)} * {_string(transaction.description)}"]
            lines += _metadata([("transaction-id", transaction.transaction_id), *transaction.facts], {})
            lines += _metadata([], transaction.metadata)
            lines += [
                f"  {self._names[entry.account_name]}  {amount_text(entry.amount_minor, entry.scale, entry.currency)}"
                for entry in transaction.entries
            ]
        return _text(lines) if lines else b""

    def end(self) -> bytes:
        """Prices, and the balance of every account."""
        head = self._head
        lines = [""] if head.prices else []
        lines += [
            f"{self._last_day} price {currency} {price} {head.presentation_currency}"
            for currency, price in sorted(head.prices.items())
        ]
        # Beancount looks at a balance in the morning, before the transactions of the day.
        morning_after = self._last_day + timedelta(days=1)
        lines += [
            # Without the tolerance that beancount would allow otherwise.
            f"{morning_after} balance {self._names[account.account_name]}  "
            f"{amount_text(account.closing_minor, account.scale, f'~ 0 {account.currency}')}"
            for account in head.used
        ]
        return _text(lines)

    def _posting(self, account: JournalAccount, amount_minor: int) -> str:
        amount = amount_text(amount_minor, account.scale, account.currency)
        return f"  {self._names[account.account_name]}  {amount}"


def beancount_name(account_name: str, type_: AccountType) -> str:
    """An account's name by the rules of beancount. Two names may become the same."""
    root, synonyms = _ROOTS[type_]
    first, *others = account_name.split(":")
    # A root alone is no account.
    parts = others if others and first in synonyms else [first, *others]
    return ":".join([root, *(_part(part) for part in parts)])


def _part(part: str) -> str:
    return part[0].upper() + re.sub(r"[^a-z0-9-]", "-", part[1:])


def _day(day: date) -> date:
    return min(max(day, _FIRST_DAY), _LAST_DAY)


def _string(text: str) -> str:
    return f'"{text.translate(_ESCAPES)}"'


def _metadata(facts: Iterable[tuple[str, str]], metadata: Mapping[str, str]) -> list[str]:
    """Lines of metadata. Callers' names can't be taken for others: each begins with "meta-"."""
    names = distinct(sorted(metadata), lambda name: "meta-" + re.sub(r"[^a-z0-9_-]", "-", name))
    pairs = [*facts, *((names[name], metadata[name]) for name in names)]
    return [f"  {name}: {_string(text)}" for name, text in pairs]


def _text(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()
