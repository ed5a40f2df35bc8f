"""Amounts of money: whole minor units of one currency, never a float."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from functools import cache

from iso4217 import Currency

from mesh.errors import Problem, Reason, Violation

INT64_MAX = 2**63 - 1

# Assets outside ISO 4217, with their number of decimals.
ASSET_EXPONENTS = {"USDC": 6, "USDT": 6}
_MAJOR = re.compile(r"(?P<sign>[+-]?)(?P<whole>[0-9]{1,30})(?:\.(?P<decimals>[0-9]{1,30}))?")


@dataclass(frozen=True, slots=True)
class Money:
    """An amount of one currency.

    Attributes:
        amount_minor: count of minor units, within int64.
        currency: ISO 4217 code or a code of ASSET_EXPONENTS.
    """

    amount_minor: int
    currency: str

    def __add__(self, other: Money) -> Money:
        return Money(self.amount_minor + self._same_currency(other).amount_minor, self.currency)

    def __sub__(self, other: Money) -> Money:
        return Money(self.amount_minor - self._same_currency(other).amount_minor, self.currency)

    def __neg__(self) -> Money:
        return Money(-self.amount_minor, self.currency)

    def __str__(self) -> str:
        return f"{self.currency} {self.to_major_string()}"

    def _same_currency(self, other: Money) -> Money:
        if other.currency != self.currency:
            message = f"{self.currency} and {other.currency} can't be added or subtracted"
            raise ValueError(message)
        return other

    def to_decimal(self) -> Decimal:
        """The amount in major units, with exactly the currency's decimals."""
        return Decimal(self.amount_minor).scaleb(-exponent_of(self.currency))

    def to_major_string(self) -> str:
        """The amount in major units as providers write it: "10.50" for GHS, "1050" for JPY, "1.050" for BHD."""
        return f"{self.to_decimal():f}"

    @classmethod
    def from_major_string(cls, text: str, currency: str) -> Money:
        """Reads an amount in major units.

        Raises:
            ValueError: text is not a plain decimal number, has more decimals than the currency, or leaves int64.
        """
        found = _MAJOR.fullmatch(text)
        exponent = exponent_of(currency)
        decimals = (found["decimals"] or "") if found is not None else ""
        # By digits, never by arithmetic: decimal rounds numbers of more than 28 digits without a word.
        if found is None or decimals[exponent:].strip("0"):
            message = f"{text!r} is not an amount of {currency}"
            raise ValueError(message)
        minor = int(found["sign"] + found["whole"] + decimals[:exponent].ljust(exponent, "0"))
        if not -INT64_MAX <= minor <= INT64_MAX:
            message = f"{text!r} {currency} is more than an amount can hold"
            raise ValueError(message)
        return cls(minor, currency)


@cache
def exponent_of(currency: str) -> int:
    """Number of decimals of a currency.

    Raises:
        ValueError: the currency is unknown, or has no minor unit (such as XAU).
    """
    if currency in ASSET_EXPONENTS:
        return ASSET_EXPONENTS[currency]
    exponent = Currency(currency).exponent
    if exponent is None:
        message = f"{currency} has no minor unit"
        raise ValueError(message)
    return int(exponent)


def check_currency(currency: str, field: str) -> str:
    """Returns the currency when it can be used.

    Args:
        currency: code to check.
        field: name of the request's field, for the error.

    Raises:
        Problem: FIELD_INVALID, the code is unknown.
    """
    try:
        exponent_of(currency)
    except ValueError:
        detail = f"{currency!r} is not an ISO 4217 currency or a known asset: use a code such as GHS, USD or USDC"
        raise Problem(Reason.FIELD_INVALID, violations=[Violation(field, detail)]) from None
    return currency
