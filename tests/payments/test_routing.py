"""Routing is a pure choice: the number plan decides, every candidate is explained, and no explanation names anyone."""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import Problem, Reason
from mesh.provider.adapter import Adapter
from services.payments.model import Card, Link, MobileMoney
from services.payments.provider import CardCharge, WalletCollect
from services.payments.routing import choose, read_wallet


def wallet(name: str, countries: set[str], currencies: set[str]) -> type[Adapter]:
    """The facts of a wallet; routing looks at nothing else."""
    return type(name, (Adapter, WalletCollect), facts(name, countries, currencies))


def facts(name: str, countries: set[str], currencies: set[str]) -> dict[str, object]:
    """Class attributes of an adapter."""
    return {"slug": name, "countries": frozenset(countries), "currencies": frozenset(currencies)}


ADAPTERS: dict[str, type[Adapter]] = {
    "mtn_momo": wallet("mtn_momo", {"GH", "UG"}, {"GHS", "UGX"}),
    "vodafone_cash": wallet("vodafone_cash", {"GH"}, {"GHS"}),
    "airteltigo_money": wallet("airteltigo_money", {"GH"}, {"GHS"}),
    "mpesa_daraja": wallet("mpesa_daraja", {"KE", "TZ"}, {"KES", "TZS"}),
    "stripe": type("stripe", (Adapter, CardCharge), facts("stripe", set(), set())),
}
LINKS = [Link(f"con_{slug}", slug) for slug in ADAPTERS]


@pytest.mark.parametrize(
    ("msisdn", "currency", "provider"),
    [
        ("+233241234567", "GHS", "mtn_momo"),
        ("+233541234567", "GHS", "mtn_momo"),
        ("+233201234567", "GHS", "vodafone_cash"),
        ("+233271234567", "GHS", "airteltigo_money"),
        ("+256772123456", "UGX", "mtn_momo"),
        ("+254712345678", "KES", "mpesa_daraja"),
        ("+255754123456", "TZS", "mpesa_daraja"),
    ],
)
def test_the_number_plan_chooses_the_wallet(msisdn: str, currency: str, provider: str) -> None:
    route = choose(MobileMoney(msisdn), currency, LINKS, ADAPTERS)
    assert (route.provider, route.connection_id) == (provider, f"con_{provider}")
    assert [candidate.provider for candidate in route.candidates if candidate.eligible] == [provider]
    assert len(route.candidates) == len(LINKS)
    assert all(candidate.explanation for candidate in route.candidates)


def test_the_caller_knows_better_of_a_ported_number() -> None:
    route = choose(MobileMoney("+233241234567", "vodafone_cash"), "GHS", LINKS, ADAPTERS)
    assert route.provider == "vodafone_cash"
    assert "the request names" in route.explanation


def test_an_operator_without_a_known_wallet_leaves_every_wallet_of_the_country() -> None:
    # Airtel Kenya: the plan names it, and no adapter is for it.
    assert read_wallet("+254733123456").brand == "airtel"
    route = choose(MobileMoney("+254733123456"), "KES", LINKS, ADAPTERS)
    assert route.provider == "mpesa_daraja"
    assert "no known operator" in route.explanation


def test_a_wallet_of_another_operator_is_no_way_out() -> None:
    with pytest.raises(Problem) as refused:
        choose(MobileMoney("+233201234567"), "GHS", [Link("con_1", "mtn_momo")], ADAPTERS)
    assert refused.value.reason is Reason.NO_ROUTE
    assert refused.value.metadata == {"con_1": "mtn_momo: the number plan of GH gives the number to vodafone"}


def test_the_first_of_equal_connections_is_tried_first() -> None:
    links = [Link("con_b", "mtn_momo"), Link("con_x", "stripe"), Link("con_a", "mtn_momo")]
    route = choose(MobileMoney("+233241234567"), "GHS", links, ADAPTERS)
    assert [candidate.connection_id for candidate in route.candidates] == ["con_b", "con_a", "con_x"]


def test_cards_go_to_who_takes_cards() -> None:
    route = choose(Card("pm_1"), "USD", LINKS, ADAPTERS)
    assert route.provider == "stripe"
    reasons = {candidate.provider: candidate.explanation for candidate in route.candidates}
    assert reasons["mtn_momo"] == "does not take cards"


def test_a_currency_that_the_wallet_does_not_take_is_no_route() -> None:
    with pytest.raises(Problem, match="does not take USD"):
        choose(MobileMoney("+233241234567"), "USD", LINKS, ADAPTERS)


@pytest.mark.parametrize("msisdn", ["+233302123456", "+23324123499", "+999123456789", "+2332412345678", "233201234567"])
def test_what_is_no_mobile_number_is_refused_without_repeating_it(msisdn: str) -> None:
    with pytest.raises(Problem) as refused:
        read_wallet(msisdn)
    assert [violation.field for violation in refused.value.violations] == ["method.mobile_money.msisdn"]
    assert msisdn not in str(refused.value)


@given(st.from_regex(r"\+[1-9][0-9]{6,14}", fullmatch=True), st.sampled_from(["GHS", "KES", "USD"]))
def test_no_number_breaks_routing_or_appears_in_what_it_says(msisdn: str, currency: str) -> None:
    try:
        route = choose(MobileMoney(msisdn), currency, LINKS, ADAPTERS)
        said = [route.explanation, *(candidate.explanation for candidate in route.candidates)]
    except Problem as problem:
        said = [str(problem), str(problem.metadata)]
    assert not any(msisdn[1:] in text for text in said)


class Unlisted(Adapter):
    """An adapter that can do nothing that a payment needs."""

    slug = "unlisted"
    countries: ClassVar[frozenset[str]] = frozenset()
    currencies: ClassVar[frozenset[str]] = frozenset()


def test_what_is_unknown_or_unfit_is_explained_too() -> None:
    links = [Link("con_1", "unlisted"), Link("con_2", "gone")]
    with pytest.raises(Problem) as refused:
        choose(MobileMoney("+233241234567"), "GHS", links, {"unlisted": Unlisted})
    assert refused.value.metadata == {
        "con_1": "unlisted: does not take mobile money",
        "con_2": "gone: is not known as a payment provider",
    }
