"""What must hold of the legs of one posting. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

from mesh.errors import Problem, Reason
from services.ledger.model.accounts import Side
from services.ledger.model.postings import Entry, Leg


def check_balanced(legs: Sequence[Leg]) -> None:
    """Checks that the debits of each currency equal its credits.

    Raises:
        Problem: TRANSACTION_UNBALANCED, with the sums and the difference of the first currency at fault.
    """
    if len(legs) == 2:  # noqa: PLR2004 - one debit and one credit, as most are
        one, other = legs
        if one.amount_minor == other.amount_minor and one.side is not other.side and one.currency == other.currency:
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


def legs_of(entries: Sequence[Entry], amount: Leg | None = None) -> tuple[Leg, ...]:
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


def check_held(entries: Sequence[Entry], legs: Sequence[Leg]) -> None:
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
