"""What every adapter of an outside provider is: facts, and a connection to act for."""

from __future__ import annotations

import enum
from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from mesh.provider.http import ProviderClient


class Environment(enum.StrEnum):
    """Which of a provider's environments a connection uses."""

    SANDBOX = "sandbox"
    PRODUCTION = "production"


class AmountFormat(enum.StrEnum):
    """How a provider writes amounts."""

    MINOR_INTEGER = "minor_integer"
    MINOR_STRING = "minor_string"
    MAJOR_STRING = "major_string"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Connection:
    """A tenant's link to a provider, opened: what an adapter acts for.

    Attributes:
        base_url: address to use instead of the environment's own, or None.
        settings: what is not secret, such as a target market.
        credentials: in the clear; checked against the adapter's Credentials.
        callback_url: address where the provider reaches us about this connection.
    """

    connection_id: str
    tenant_id: str
    provider: str
    environment: Environment
    base_url: str | None
    settings: Mapping[str, str]
    credentials: Mapping[str, str]
    callback_url: str

    def __repr__(self) -> str:
        # Credentials must not reach a log through a debug print.
        return f"Connection({self.connection_id}, {self.provider}, {self.environment})"


@dataclass(frozen=True, slots=True)
class RateQuota:
    """How many requests a provider takes from one connection."""

    requests: int
    per_seconds: float


class Adapter(ABC):
    """Base of every adapter. A subclass states the facts and implements capability interfaces of its domain.

    What an adapter can do is which capability interfaces it inherits; nothing says "not implemented".
    """

    slug: ClassVar[str]
    display_name: ClassVar[str]
    # ISO 3166 alpha-2; empty means worldwide.
    countries: ClassVar[frozenset[str]]
    # ISO 4217; empty means any.
    currencies: ClassVar[frozenset[str]]
    base_urls: ClassVar[Mapping[Environment, str]]
    amount_format: ClassVar[AmountFormat]
    # A frozen dataclass of strings; a field's metadata["description"] says what it is and where to find it.
    Credentials: ClassVar[type[Any]]
    rate_quota: ClassVar[RateQuota | None] = None
    timeout_seconds: ClassVar[float] = 5.0
    # What the sandbox of this mesh accepts; never valid anywhere else.
    sandbox_credentials: ClassVar[Mapping[str, str]]
    sandbox_settings: ClassVar[Mapping[str, str]] = {}

    def __init__(self, connection: Connection, http: ProviderClient) -> None:
        self.connection = connection
        self.http = http
        self.credentials = self.Credentials(**connection.credentials)

    @property
    def base_url(self) -> str:
        """Address of the provider for this connection, without a slash at the end."""
        return (self.connection.base_url or self.base_urls[self.connection.environment]).rstrip("/")
