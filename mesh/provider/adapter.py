"""What every adapter of an outside provider is: facts, and a connection to act for."""

from __future__ import annotations

import enum
from abc import ABC
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from mesh.provider.errors import BadCredentials

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
        settings: what is not secret, such as a target market. "timeout_seconds" is known to every adapter.
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
    per_seconds: int


@dataclass(frozen=True, slots=True)
class ClientPolicy:
    """How carefully a provider is called, per connection. The defaults are right for most.

    Attributes:
        attempts: tries of one call in all, for what is safe to send again.
        wait_initial_seconds, wait_max_seconds, wait_jitter_seconds: exponential pause between tries.
        breaker_failures: failures in a row that open the breaker.
        breaker_reset_seconds: how long it stays open before one call is let through to try.
        concurrent_requests: most calls at once.
        queue_seconds: how long a call waits for its turn before it counts as not sent.
        resend_header: response header with which the provider says "true" or "false" to another try; overrides
            what the status alone would mean. Empty when it has none.
        body_bytes_max: longest answer that is read.
    """

    attempts: int = 3
    wait_initial_seconds: float = 1.0
    wait_max_seconds: float = 30.0
    wait_jitter_seconds: float = 1.0
    breaker_failures: int = 5
    breaker_reset_seconds: float = 60.0
    concurrent_requests: int = 64
    queue_seconds: float = 1.0
    resend_header: str = ""
    body_bytes_max: int = 4 * 1024 * 1024


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
