"""A connection to a provider, and how carefully the provider is called over it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class Environment(enum.StrEnum):
    """Which of a provider's environments a connection uses."""

    SANDBOX = "sandbox"
    PRODUCTION = "production"


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
