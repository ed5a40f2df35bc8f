"""Transactions as a journal of hledger (https://hledger.org/hledger.html#journal) that passes its strict checks.

Accounts keep their names; their types, and all names and currencies, are declared. The journal ends with an assertion
of the balance of every account, which hledger checks against what it computes itself.

Texts of callers stand where they can't become anything else: in the description without the semicolon that would begin
a comment, and in tags with percent-encoding of what would end a tag. Tags that callers named begin with "meta-", since
some names mean something to hledger.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date

from services.ledger.model.accounts import AccountType
from services.ledger.model.exports.journals import (
    OPENING,
    JournalAccount,
    JournalHead,
    JournalTransaction,
    account_facts,
    amount_text,
)

_TYPES = {
    AccountType.ASSET: "A",
    AccountType.LIABILITY: "L",
    AccountType.EQUITY: "E",
    AccountType.INCOME: "R",
    AccountType.EXPENSE: "X",
}
_TAG_UNSAFE = re.compile(r"[%,\x00-\x1f\x7f-\x9f\u2028\u2029]|^\s+|\s+$")
_DESCRIPTION_UNSAFE = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")


class HledgerWriter:
    """Writes a journal piece by piece."""

    def __init__(self, head: JournalHead) -> None:
        self._head = head
        self._commodities = {currency: _commodity(currency) for currency in head.scales}
        self._last_day = head.first_day

    def begin(self) -> bytes:
        """What stands before the transactions: declarations, and the balances at the beginning."""
        head = self._head
        lines = [f"; Kente ledger, book {head.book_name}"]
        lines += [f"; {name.replace('_', ' ')}: {text}" for name, text in head.facts]
        lines += ["; What is held, and not posted, is not in it.", "", "decimal-mark .", ""]
        # A commodity is declared by an amount, which must have a decimal mark also when there are no decimals.
        lines += [
            f"commodity 1000.{'0' * scale} {self._commodities[currency]}" for currency, scale in head.scales.items()
        ]
        lines.append("")
        for account in head.accounts:
            tags = _tags([("type", _TYPES[account.type]), *account_facts(account)], account.metadata)
            lines.append(f"account {account.account_name}  ; {', '.join(tags)}")
        if head.opened:
            lines += ["", f"{head.first_day} * {OPENING}"]
            lines += [self._posting(account, account.opening_minor) for account in head.opened]
        return _text(lines)

    def transactions(self, transactions: Iterable[JournalTransaction]) -> bytes:
        """The next transactions, none of which took effect before the one before it."""
        lines: list[str] = []
        for transaction in transactions:
            self._last_day = transaction.day
            description = _DESCRIPTION_UNSAFE.sub(" ", transaction.description).replace(";", ",").strip()
            lines += ["", f"{transaction.day} * ({transaction.transaction_id}) {description}".rstrip()]
            facts = transaction.facts
            if description != transaction.description:
                facts.append(("description", transaction.description))
            lines += [f"    ; {tag}" for tag in _tags(facts, transaction.metadata)]
            lines += [
                f"    {entry.account_name}  "
                f"{amount_text(entry.amount_minor, entry.scale, self._commodities[entry.currency])}"
                for entry in transaction.entries
            ]
        return _text(lines) if lines else b""

    def end(self) -> bytes:
        """Prices, and the assertion of every balance."""
        head, day = self._head, self._last_day
        lines = [""] if head.prices else []
        lines += [
            f"P {day} {_commodity(currency)} {price} {_commodity(head.presentation_currency)}"
            for currency, price in sorted(head.prices.items())
        ]
        return _text([*lines, *self._assertions(day)])

    def _assertions(self, day: date) -> list[str]:
        if not self._head.used:
            return []
        lines = ["", f"{day} * Closing balances"]
        for account in self._head.used:
            closing = amount_text(account.closing_minor, account.scale, self._commodities[account.currency])
            # Two equals signs: this, and no other commodity.
            lines.append(f"{self._posting(account, 0)} == {closing}")
        return lines

    def _posting(self, account: JournalAccount, amount_minor: int) -> str:
        amount = amount_text(amount_minor, account.scale, self._commodities[account.currency])
        return f"    {account.account_name}  {amount}"


def _commodity(currency: str) -> str:
    """A commodity's symbol; digits would be taken for the amount's."""
    return currency if currency.isalpha() else f'"{currency}"'


def _tags(facts: Iterable[tuple[str, str]], metadata: Mapping[str, str]) -> list[str]:
    pairs = [*facts, *((f"meta-{name}", text) for name, text in sorted(metadata.items()))]
    return [f"{name}:{_TAG_UNSAFE.sub(_percent_encoded, text)}" for name, text in pairs]


def _percent_encoded(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode())


def _text(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()
