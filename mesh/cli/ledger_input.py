"""What people write for the ledger: legs and amounts in major units, times, names with values."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from mesh.cli.output import CommandError
from mesh.money import INT64_MAX

SIDES = ("debit", "credit")
_AMOUNT = re.compile(r"(?P<sign>-?)(?P<whole>[0-9]{1,30})(?:\.(?P<decimals>[0-9]{1,30}))?")
_CURRENCY = re.compile(r"[A-Z][A-Z0-9]{2,11}")
_RATE = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?")
_DURATION = re.compile(r"(?P<count>[0-9]{1,6})(?P<unit>[smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_EXAMPLE = "debit assets:bank 10.50 GHS credit income:sales 10.50 GHS"


@dataclass(frozen=True, slots=True)
class LegText:
    """One leg as it was written; the currency is empty when it was left out."""

    side: str
    account_name: str
    amount: str
    currency: str


def parse_legs(words: Iterable[str]) -> list[LegText]:
    """Legs of words such as "debit assets:bank 10.50 GHS", whether each is quoted or not.

    Raises:
        CommandError: they are none, or fewer than two.
    """
    rest = [part for word in words for part in word.split()]
    legs: list[LegText] = []
    while rest:
        if len(rest) < 3 or rest[0] not in SIDES:  # noqa: PLR2004 - side, account and amount
            raise CommandError(f"{' '.join(rest[:4])!r} is no leg: write legs such as `{_EXAMPLE}`")
        side, account_name, amount, *rest = rest
        currency = rest.pop(0) if rest and _CURRENCY.fullmatch(rest[0]) else ""
        legs.append(LegText(side, account_name, amount, currency))
    if len(legs) < 2:  # noqa: PLR2004 - one gives, one takes
        raise CommandError(f"a transaction has two legs or more: write for example `{_EXAMPLE}`")
    return legs


def parse_amount(text: str, scale: int, currency: str) -> int:
    """An amount in major units as minor units, by digits and so exactly.

    Raises:
        CommandError: it is no amount of that currency.
    """
    found = _AMOUNT.fullmatch(text)
    decimals = (found["decimals"] or "") if found else ""
    if found is None or decimals[scale:].strip("0"):
        example = format_amount(1050, scale)
        raise CommandError(f"{text!r} is no amount of {currency}, which has {scale} decimals: write such as {example}")
    amount_minor = int(found["sign"] + found["whole"] + decimals[:scale].ljust(scale, "0"))
    if abs(amount_minor) > INT64_MAX:
        raise CommandError(f"{text} {currency} is more than an amount can hold")
    return amount_minor


def format_amount(amount_minor: int, scale: int) -> str:
    """An amount in major units with all of its decimals: 1050 with scale 2 is "10.50"."""
    digits = str(abs(amount_minor)).rjust(scale + 1, "0")
    sign = "-" if amount_minor < 0 else ""
    return f"{sign}{digits[:-scale]}.{digits[-scale:]}" if scale else f"{sign}{digits}"


def parse_time(text: str, option: str) -> Timestamp | None:
    """A day or a time, in UTC unless it says otherwise; None when nothing was written.

    Raises:
        CommandError: it is none.
    """
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time
        timestamp = Timestamp()
        timestamp.FromDatetime(time.astimezone(UTC))
    except (ValueError, OverflowError):
        raise CommandError(f"{option} {text!r} is no time: write such as 2026-01-31 or 2026-01-31T18:00:00Z") from None
    return timestamp


def parse_time_from_now(text: str, option: str, now: datetime) -> Timestamp | None:
    """A time, or how long from now, such as "15m"; None when nothing was written.

    Raises:
        CommandError: it is none.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        return parse_time(text, option)
    timestamp = Timestamp()
    timestamp.FromDatetime(now + timedelta(seconds=int(found["count"]) * _SECONDS[found["unit"]]))
    return timestamp


def parse_pairs(pairs: Sequence[str], option: str) -> dict[str, str]:
    """Names and values of "name=value".

    Raises:
        CommandError: one has no value, or a name comes twice.
    """
    values: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name or name in values:
            wrong = "comes twice" if name in values else "is not NAME=VALUE"
            raise CommandError(f"{option} {pair!r} {wrong}")
        values[name] = value
    return values


def parse_rates(pairs: Sequence[str], presentation_currency: str) -> dict[str, str]:
    """Rates of "USD=12.5": what one unit is worth in the currency to present amounts in.

    Raises:
        CommandError: one is none, or there is no such currency.
    """
    rates = parse_pairs(pairs, "--rate")
    if rates and not presentation_currency:
        raise CommandError("--rate says what a currency is worth in another: name that with --in")
    for currency, rate in rates.items():
        if not _CURRENCY.fullmatch(currency) or not _RATE.fullmatch(rate):
            raise CommandError(f"--rate {currency}={rate} is no rate: write such as USD=12.5")
    return rates
