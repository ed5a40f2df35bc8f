"""What every adapter of an outside provider is: facts, and the means to call the provider over one connection."""

from __future__ import annotations

import enum
from abc import ABC
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, ClassVar

from mesh.provider.connection import ClientPolicy, Connection, Environment, RateQuota
from mesh.provider.errors import BadCredentials
from mesh.provider.http import ProviderClient


class AmountFormat(enum.StrEnum):
    """How a provider writes amounts."""

    MINOR_INTEGER = "minor_integer"
    MINOR_STRING = "minor_string"
    MAJOR_STRING = "major_string"
    NONE = "none"


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
    # One call in all, from connecting to the last byte. A connection's setting "timeout_seconds" overrides it.
    timeout_seconds: ClassVar[float] = 5.0
    client_policy: ClassVar[ClientPolicy] = ClientPolicy()
    # What the sandbox of this mesh accepts; never valid anywhere else.
    sandbox_credentials: ClassVar[Mapping[str, str]]
    sandbox_settings: ClassVar[Mapping[str, str]] = {}

    def __init__(self, connection: Connection, http: ProviderClient) -> None:
        self.connection = connection
        self.http = http
        self.credentials = self.read_credentials(connection.credentials)

    @classmethod
    def read_credentials(cls, values: Mapping[str, str]) -> Any:  # noqa: ANN401 - each adapter has its own type
        """The credentials as the adapter's own type.

        Raises:
            BadCredentials: one is missing or unknown; the message names fields, never values.
        """
        known = {field.name: field for field in fields(cls.Credentials)}
        missing = [name for name, field in known.items() if field.default is MISSING and not values.get(name)]
        unknown = sorted(set(values) - set(known))
        if missing or unknown:
            faults = [f"{name} is missing" for name in missing] + [f"{name} is unknown" for name in unknown]
            raise BadCredentials(f"credentials of {cls.slug}: {', '.join(faults)}")
        return cls.Credentials(**values)

    @property
    def base_url(self) -> str:
        """Address of the provider for this connection, without a slash at the end."""
        return (self.connection.base_url or self.base_urls[self.connection.environment]).rstrip("/")
