"""Money, ids, the clock and page tokens, against any value."""

from __future__ import annotations

import base64
import json
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mesh.clock import utc_now
from mesh.errors import Problem, Reason
from mesh.ids import derive_id, derive_uuid, new_id
from mesh.money import INT64_MAX, Money, check_currency, exponent_of
from mesh.pages import decode_page_token, encode_page_token, page_size

# With 0, 2, 3, 4 and 6 decimals.
EXPONENTS = {"JPY": 0, "UGX": 0, "GHS": 2, "USD": 2, "BHD": 3, "TND": 3, "CLF": 4, "USDC": 6}
currencies = st.sampled_from(sorted(EXPONENTS))
amounts = st.integers(-INT64_MAX, INT64_MAX)


@given(amounts, currencies)
def test_an_amount_survives_its_way_through_major_units(amount_minor: int, currency: str) -> None:
    money = Money(amount_minor, currency)
    text = money.to_major_string()

    assert Money.from_major_string(text, currency) == money
    assert Decimal(text) * 10 ** EXPONENTS[currency] == amount_minor
    assert len(text.partition(".")[2]) == EXPONENTS[currency]
    assert str(money) == f"{currency} {text}"


@pytest.mark.parametrize(
    ("text", "currency", "amount_minor"),
    [
        ("10.50", "GHS", 1050),
        ("10.5", "GHS", 1050),
        ("10", "GHS", 1000),
        ("1050", "JPY", 1050),
        ("1050.00", "JPY", 1050),
        ("1.050", "BHD", 1050),
        ("-0.01", "GHS", -1),
        ("0.000001", "USDC", 1),
        ("92233720368547758.07", "GHS", INT64_MAX),
    ],
)
def test_amounts_are_read_as_providers_write_them(text: str, currency: str, amount_minor: int) -> None:
    assert Money.from_major_string(text, currency) == Money(amount_minor, currency)


@pytest.mark.parametrize(
    ("text", "currency"),
    [
        *[(text, "GHS") for text in ("", " ", "ten", "1,000.00", "1 000", "1_000", "10.505", "1e3", "NaN", "sNaN")],
        *[
            (text, "GHS")
            for text in (
                "Infinity",
                "-Infinity",
                "0x10",
                "\N{ARABIC-INDIC DIGIT ONE}",
                "10.50 ",
                "--1",
                "1.2.3",
                ".5",
                "5.",
            )
        ],
        ("10.5", "JPY"),
        ("1.0505", "BHD"),
        ("92233720368547758.08", "GHS"),
        ("9" * 29, "JPY"),
        ("12345678901234567890123456789.01", "GHS"),
        ("9" * 5000, "JPY"),
    ],
)
def test_what_is_no_exact_amount_is_refused(text: str, currency: str) -> None:
    with pytest.raises(ValueError, match="amount"):
        Money.from_major_string(text, currency)


@given(st.text(max_size=40), currencies)
def test_any_text_is_an_amount_or_refused(text: str, currency: str) -> None:
    try:
        money = Money.from_major_string(text, currency)
    except ValueError:
        return

    assert Decimal(text) == money.to_decimal()


@given(amounts, amounts, currencies, currencies)
def test_amounts_add_and_subtract_in_one_currency_only(one: int, other: int, first: str, second: str) -> None:
    left, right = Money(one, first), Money(other, second)
    if first == second:
        assert (left + right) - right == left
        assert left + -left == Money(0, first)
        return
    with pytest.raises(ValueError, match="can't be added"):
        left + right
    with pytest.raises(ValueError, match="can't be added"):
        left - right


@given(st.text(max_size=8).filter(lambda text: text not in EXPONENTS))
def test_an_unknown_currency_is_refused_naming_the_field(code: str) -> None:
    try:
        exponent_of(code)
    except ValueError:
        with pytest.raises(Problem) as raised:
            check_currency(code, "amount.currency")
        assert raised.value.reason == Reason.FIELD_INVALID
        assert raised.value.violations[0].field == "amount.currency"
    else:
        assert check_currency(code, "amount.currency") == code


@pytest.mark.parametrize("code", ["", "ghs", "GH", "XAU", "XXX", "GHSS", "ZZZ"])
def test_codes_without_minor_units_or_meaning_are_no_currency(code: str) -> None:
    with pytest.raises(Problem):
        check_currency(code, "currency")


def test_ids_are_unique_and_ordered_by_time() -> None:
    # The first ten characters are the milliseconds.
    earlier = [new_id("pay") for _ in range(5_000)]
    millisecond = time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 == millisecond:
        pass
    later = [new_id("pay") for _ in range(5_000)]

    assert len({*earlier, *later}) == 10_000
    assert max(earlier) < min(later)
    assert [id_[:14] for id_ in earlier] == sorted(id_[:14] for id_ in earlier)


@given(st.from_regex(r"[a-z]{2,5}", fullmatch=True), st.lists(st.text(max_size=12), max_size=5))
def test_ids_have_one_shape(prefix: str, parts: list[str]) -> None:
    for made in (new_id(prefix), derive_id(prefix, *parts)):
        assert made.startswith(f"{prefix}_")
        assert len(made) == len(prefix) + 27
        assert set(made[-26:]) <= set("0123456789abcdefghjkmnpqrstvwxyz")


@given(st.lists(st.text(max_size=6), max_size=4), st.lists(st.text(max_size=6), max_size=4))
def test_a_derived_id_is_that_of_its_parts_alone(one: list[str], other: list[str]) -> None:
    assert (derive_id("txn", *one) == derive_id("txn", *other)) == (one == other)
    assert (derive_uuid(*one) == derive_uuid(*other)) == (one == other)


def test_derived_ids_tell_where_a_part_ends() -> None:
    assert derive_id("txn", "a", "bc") != derive_id("txn", "ab", "c")
    assert derive_id("txn", "a", "") != derive_id("txn", "a")
    assert derive_uuid("a", "bc") != derive_uuid("ab", "c")


def test_a_derived_id_never_changes() -> None:
    # Stored and sent to providers: another derivation would charge again what was charged before.
    assert derive_id("txn", "pay_1", "capture") == "txn_0rc6kfa1sq9jtf4jhjcd3yp72q"
    assert derive_uuid("pay_1", "capture") == "1861a6f5-0737-4cb4-b24a-326347eb1c57"


def test_the_clock_is_aware_and_in_utc() -> None:
    assert utc_now().tzinfo is UTC
    assert abs(utc_now() - datetime.now(UTC)) < timedelta(seconds=1)


keys = st.text(st.characters(categories=["L", "N", "P"]), max_size=20)
arguments = st.dictionaries(keys, st.one_of(keys, st.integers(-INT64_MAX, INT64_MAX)), max_size=4)


@given(arguments, arguments)
def test_a_page_token_gives_back_its_position(position: dict[str, str | int], arguments: dict[str, str | int]) -> None:
    token = encode_page_token(position, arguments)

    assert decode_page_token(token, arguments) == position
    assert token.isascii()
    assert set(token).isdisjoint("+/= ")


@given(arguments, arguments, arguments)
def test_a_page_token_is_refused_with_other_arguments(
    position: dict[str, str | int], one: dict[str, str | int], other: dict[str, str | int]
) -> None:
    assume(one != other)

    with pytest.raises(Problem) as raised:
        decode_page_token(encode_page_token(position, one), other)

    assert raised.value.reason == Reason.PAGE_TOKEN_INVALID


@given(st.text(min_size=1, max_size=60))
def test_any_text_is_no_page_token(text: str) -> None:
    with pytest.raises(Problem) as raised:
        decode_page_token(text, {})

    assert raised.value.reason == Reason.PAGE_TOKEN_INVALID


@pytest.mark.parametrize(
    "position",
    [None, 7, "x", [], {"a": None}, {"a": []}, {"a": {}}, {"a": True}, {"a": 1.5}, {"a": 2**63}, {"a": "\0"}],
)
def test_a_page_token_that_a_caller_made_up_is_refused(position: object) -> None:
    real = json.loads(base64.urlsafe_b64decode(encode_page_token({}, {}) + "=="))
    made_up = base64.urlsafe_b64encode(json.dumps({**real, "after": position}).encode()).decode().rstrip("=")

    with pytest.raises(Problem) as raised:
        decode_page_token(made_up, {})

    assert raised.value.reason == Reason.PAGE_TOKEN_INVALID


def test_the_first_page_needs_no_token() -> None:
    assert decode_page_token("", {"any": 1}) is None


@given(st.integers(0, 2**31 - 1))
def test_a_page_has_from_one_to_two_hundred_items(requested: int) -> None:
    assert page_size(requested) == (50 if requested == 0 else min(requested, 200))
