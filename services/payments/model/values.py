"""What payments are made of."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something ended without money.

    Attributes:
        code: a name of kente.payments.v1.Failure.Code without its prefix.
        message: safe to show to a payer.
        provider_code: the provider's own code, for support.
    """

    code: str
    message: str
    provider_code: str = ""


@dataclass(frozen=True, slots=True)
class MobileMoney:
    """A wallet. `operator` is a provider slug when the caller overrides the number plan."""

    msisdn: str = field(repr=False)
    operator: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """A provider's token of a card."""

    token: str = field(repr=False)
    return_url: str = ""


@dataclass(frozen=True, slots=True)
class Payer:
    """Who pays."""

    display_name: str = field(default="", repr=False)
    email: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Link:
    """One connection of the tenant to a provider."""

    connection_id: str
    provider: str


@dataclass(frozen=True, slots=True)
class RouteCandidate:
    """One connection that routing looked at. The explanation holds no personal data."""

    provider: str
    connection_id: str
    eligible: bool
    explanation: str


@dataclass(frozen=True, slots=True)
class Route:
    """Which connection was chosen and why; candidates in the order in which they are tried."""

    provider: str
    connection_id: str
    explanation: str
    candidates: tuple[RouteCandidate, ...]


@dataclass(frozen=True, slots=True)
class NextAction:
    """What the payer must do."""

    redirect_url: str = ""
    instructions: str = ""
