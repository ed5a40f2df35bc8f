"""What people write for `kente ledger` is read exactly, or refused with what to write instead."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.cli.ledger_input import (
    LegText,
    format_amount,
    parse_amount,
    parse_legs,
    parse_pairs,
    parse_rates,
    parse_time,
    parse_time_from_now,
)
from mesh.cli.output import CommandError

NOW = datetime(2026, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    "words",
    [
        ["debit", "assets:bank", "10.50", "GHS", "credit", "income:sales", "10.50"],
        ["debit assets:bank 10.50 GHS", "credit income:sales 10.50"],
        ["debit assets:bank 10.50 GHS credit income:sales 10.50"],
    ],
)
def test_legs_may_be_quoted_in_any_way(words: list[str]) -> None:
    assert parse_legs(words) == [
        LegText("debit", "assets:bank", "10.50", "GHS"),
        LegText("credit", "income:sales", "10.50", ""),
    ]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "two legs or more"),
        (["debit a 1"], "two legs or more"),
        (["debit a 1 cred b 1"], "'cred b 1' is no leg"),
        (["debit a 1 GHS USD credit b 1"], "'USD credit b 1' is no leg"),
        (["debit a"], "'debit a' is no leg"),
    ],
)
def test_what_is_no_leg_is_named(words: list[str], part: str) -> None:
    with pytest.raises(CommandError, match=part):
        parse_legs(words)


@given(st.integers(-(2**63) + 1, 2**63 - 1), st.integers(0, 18))
def test_amounts_are_read_as_they_are_shown(amount_minor: int, scale: int) -> None:
    assert parse_amount(format_amount(amount_minor, scale), scale, "GHS") == amount_minor


@pytest.mark.parametrize("text", ["1,000", "1.005", "1e3", "٣", "", "+1", "1.", ".5", "--1", "NaN"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match="is no amount of GHS, which has 2 decimals"):
        parse_amount(text, 2, "GHS")


def test_more_than_an_amount_can_hold_is_refused() -> None:
    with pytest.raises(CommandError, match="more than an amount can hold"):
        parse_amount(str(2**63), 0, "JPY")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31", "2026-01-31T00:00:00Z"),
        ("2026-01-31T18:00", "2026-01-31T18:00:00Z"),
        ("2026-01-31T18:00:00+02:00", "2026-01-31T16:00:00Z"),
        ("2026-01-31 18:00:00.000001Z", "2026-01-31T18:00:00.000001Z"),
    ],
)
def test_times_are_of_utc_unless_they_say_otherwise(text: str, expected: str) -> None:
    timestamp = parse_time(text, "--at")

    assert timestamp is not None
    assert timestamp.ToJsonString() == expected


@pytest.mark.parametrize("text", ["soon", "31.1.2026", "2026-02-30", "0001-01-01T00:00:00+14:00"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match="is no time: write such as 2026-01-31"):
        parse_time(text, "--at")


def test_a_time_may_be_counted_from_now() -> None:
    timestamp = parse_time_from_now("15m", "--expires", NOW)

    assert timestamp is not None
    assert timestamp.ToJsonString() == "2026-01-31T00:15:00Z"


def test_no_time_is_none() -> None:
    assert parse_time("", "--at") is None
    assert parse_time_from_now("", "--expires", NOW) is None


@pytest.mark.parametrize(
    ("pairs", "part"), [(["a"], "is not NAME=VALUE"), (["=b"], "is not"), (["a=1", "a=2"], "twice")]
)
def test_what_is_no_pair_is_refused(pairs: list[str], part: str) -> None:
    with pytest.raises(CommandError, match=part):
        parse_pairs(pairs, "--metadata")


def test_a_value_may_hold_an_equals_sign_or_nothing() -> None:
    assert parse_pairs(["a=b=c", "d="], "--metadata") == {"a": "b=c", "d": ""}


@pytest.mark.parametrize("pair", ["GHS=half", "ghs=1", "GHS=-1", "GHS=1e3", "GHS="])
def test_what_is_no_rate_is_refused(pair: str) -> None:
    with pytest.raises(CommandError, match="is no rate: write such as USD="):
        parse_rates([pair], "USD")


def test_a_rate_needs_a_currency_to_show_amounts_in() -> None:
    with pytest.raises(CommandError, match="name that with --in"):
        parse_rates(["GHS=0.5"], "")
