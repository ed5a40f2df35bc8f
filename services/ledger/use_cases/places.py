"""What page tokens hold. A token is not signed: what it holds is input like any other."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from mesh.errors import Problem, Reason

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def micros_of(time: datetime) -> int:
    """Microseconds since 1970."""
    return (time - _EPOCH) // _MICROSECOND


def number_in(place: Mapping[str, str | int], name: str, least: int = 0) -> int:
    """A number of a token.

    Raises:
        Problem: PAGE_TOKEN_INVALID.
    """
    number = place.get(name)
    if not isinstance(number, int) or number < least:
        raise _invalid()
    return number


def text_in(place: Mapping[str, str | int], name: str) -> str:
    """A text of a token.

    Raises:
        Problem: PAGE_TOKEN_INVALID.
    """
    text = place.get(name)
    if not isinstance(text, str):
        raise _invalid()
    return text


def time_in(place: Mapping[str, str | int], name: str) -> datetime:
    """A time of a token, which holds it as microseconds since 1970.

    Raises:
        Problem: PAGE_TOKEN_INVALID.
    """
    micros = place.get(name)
    if not isinstance(micros, int):
        raise _invalid()
    try:
        return _EPOCH + micros * _MICROSECOND
    except OverflowError:
        raise _invalid() from None


def _invalid() -> Problem:
    return Problem(Reason.PAGE_TOKEN_INVALID, "page_token was not made by this list")
