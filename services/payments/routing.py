"""Which connection carries a payment: a pure choice in which every candidate keeps its explanation.

The number plan (the phonenumbers library) gives the country and the operator of a wallet's number. Explanations name
countries, operators and providers, never the number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import phonenumbers
from phonenumbers import PhoneNumberType, carrier

from mesh.errors import Problem, Reason, Violation
from mesh.provider.adapter import Adapter
from services.payments.model import Card, Link, MobileMoney, Route, RouteCandidate
from services.payments.provider import CardCharge, WalletCollect

_MOBILE_TYPES = {PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE_OR_MOBILE}

# A wallet is recognised by the first word of its slug, which is its brand: "mtn" of "mtn_momo". These carriers sell
# wallets under another brand than the number plan's name for them.
_BRANDS = {
    ("GH", "telecel"): "vodafone",
    ("GH", "at"): "airteltigo",
    ("KE", "safaricom"): "mpesa",
    ("TZ", "vodacom"): "mpesa",
}


@dataclass(frozen=True, slots=True)
class Wallet:
    """What the number plan says about a wallet's number.

    Attributes:
        country: ISO 3166 alpha-2.
        brand: first word of the operator's wallet's slug; empty when the plan does not say.
    """

    country: str
    brand: str


def read_wallet(msisdn: str) -> Wallet:
    """Reads a number in E.164 form.

    Raises:
        Problem: FIELD_INVALID, it is no mobile number of its country. The number is not repeated.
    """
    try:
        number = phonenumbers.parse(msisdn)
        valid = phonenumbers.is_valid_number(number) and phonenumbers.number_type(number) in _MOBILE_TYPES
    except phonenumbers.NumberParseException:
        valid = False
    if not valid:
        detail = "is not a mobile number of its country: send it in E.164 form, such as +233241234567"
        raise Problem(Reason.FIELD_INVALID, violations=[Violation("method.mobile_money.msisdn", detail)])
    country = phonenumbers.region_code_for_number(number) or ""
    name = re.split(r"[^a-z0-9]", carrier.name_for_number(number, "en").lower())[0]
    return Wallet(country, _BRANDS.get((country, name), name))


def choose(
    method: MobileMoney | Card,
    currency: str,
    links: Iterable[Link],
    adapters: Mapping[str, type[Adapter]],
) -> Route:
    """Orders a tenant's connections for a payment; the first eligible one is chosen.

    The links come in order of preference; the adapters are all that there are, by slug.

    Raises:
        Problem: FIELD_INVALID for a bad number; NO_ROUTE, whose metadata say for each connection why not.
    """
    judge = _WalletJudge(method, adapters) if isinstance(method, MobileMoney) else _CardJudge()
    candidates = [_judged(link, currency, adapters.get(link.provider), judge) for link in links]
    # Stable: among the eligible, and among the others, the order of preference stays.
    ordered = tuple(sorted(candidates, key=lambda candidate: not candidate.eligible))
    if not ordered or not ordered[0].eligible:
        reasons = {candidate.connection_id: f"{candidate.provider}: {candidate.explanation}" for candidate in ordered}
        detail = "; ".join(reasons.values()) or "there is no connection to a payment provider"
        message = f"no connection can carry this payment: {detail}"
        raise Problem(Reason.NO_ROUTE, message, violations=(), retry_after_seconds=None, **reasons)
    chosen = ordered[0]
    return Route(chosen.provider, chosen.connection_id, chosen.explanation, ordered)


class _CardJudge:
    def objection(self, adapter: type[Adapter]) -> str:
        """Why an adapter can't take the method; empty when it can."""
        return "" if issubclass(adapter, CardCharge) else "does not take cards"

    def reason(self, _adapter: type[Adapter]) -> str:
        """Why an adapter that can is right."""
        return "takes cards"


class _WalletJudge:
    def __init__(self, method: MobileMoney, adapters: Mapping[str, type[Adapter]]) -> None:
        self.wallet = read_wallet(method.msisdn)
        self.override = method.operator
        known = {slug.split("_")[0] for slug, adapter in adapters.items() if issubclass(adapter, WalletCollect)}
        # A carrier without a wallet that we know says nothing: every wallet of the country may be right.
        self.brand = self.wallet.brand if self.wallet.brand in known else ""

    def objection(self, adapter: type[Adapter]) -> str:
        """Why an adapter can't take the method; empty when it can."""
        country = self.wallet.country
        if not issubclass(adapter, WalletCollect):
            return "does not take mobile money"
        if adapter.countries and country not in adapter.countries:
            return f"does not serve {country}"
        if self.override and adapter.slug != self.override:
            return f"the request names the operator {self.override}"
        if not self.override and self.brand and adapter.slug.split("_")[0] != self.brand:
            return f"the number plan of {country} gives the number to {self.brand}"
        return ""

    def reason(self, adapter: type[Adapter]) -> str:
        """Why an adapter that can is right."""
        country = self.wallet.country
        if self.override:
            return f"the request names the operator {self.override}, which serves {country}"
        if self.brand:
            return f"the number plan of {country} gives the number to {adapter.slug}"
        return f"the number plan of {country} names no known operator; this wallet serves the country"


def _judged(
    link: Link, currency: str, adapter: type[Adapter] | None, judge: _CardJudge | _WalletJudge
) -> RouteCandidate:
    if adapter is None:
        objection = "is not known as a payment provider"
    else:
        objection = judge.objection(adapter)
        if not objection and adapter.currencies and currency not in adapter.currencies:
            objection = f"does not take {currency}"
        if not objection:
            explanation = f"{judge.reason(adapter)}, in {currency}"
            return RouteCandidate(link.provider, link.connection_id, eligible=True, explanation=explanation)
    return RouteCandidate(link.provider, link.connection_id, eligible=False, explanation=objection)
