"""Amounts survive the way to a provider and back, for every currency that it takes."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.money import Money, exponent_of
from services.payments.providers.mtn_momo.adapter import MtnMomo
from services.payments.providers.stripe.adapter import Stripe
from services.payments.providers.stripe.reading import from_wire, to_wire

AMOUNTS = st.integers(0, 2**53)


@given(AMOUNTS, st.sampled_from(sorted(Stripe.currencies)))
def test_stripes_whole_numbers_come_back(amount_minor: int, currency: str) -> None:
    amount = Money(amount_minor, currency)
    # An ariary has five iraimbilanja in ISO 4217's hundredths, and none at Stripe.
    if currency == "MGA" and amount_minor % 100:
        with pytest.raises(ValueError, match="more decimals"):
            to_wire(amount)
        return

    assert from_wire(to_wire(amount), currency.lower()) == amount


@given(AMOUNTS, st.sampled_from(sorted(MtnMomo.currencies)))
def test_mtns_decimal_strings_come_back(amount_minor: int, currency: str) -> None:
    text = Money(amount_minor, currency).to_major_string()

    assert Money.from_major_string(text, currency) == Money(amount_minor, currency)
    assert len(text.partition(".")[2]) == exponent_of(currency)


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        (Money(1099, "USD"), 1099),
        (Money(500, "JPY"), 500),
        (Money(5120, "KWD"), 5120),
        (Money(5, "ISK"), 500),
        (Money(500, "MGA"), 5),
        (Money(100, "XOF"), 100),
    ],
)
def test_stripe_counts_as_its_documentation_says(amount: Money, expected: int) -> None:
    assert to_wire(amount) == expected


@pytest.mark.parametrize("count", ["1099", 10.5, None, True, []])
def test_an_amount_that_is_no_whole_number_is_not_read(count: object) -> None:
    with pytest.raises(ValueError, match="no whole number"):
        from_wire(count, "usd")


@given(st.integers(-(10**30), 10**30), st.one_of(st.text(max_size=4), st.sampled_from(sorted(Stripe.currencies))))
def test_any_currency_text_is_read_or_refused(count: int, currency: str) -> None:
    with suppress(ValueError):
        amount = from_wire(count, currency)
        assert amount.currency == currency.upper()
        assert to_wire(amount) == count
