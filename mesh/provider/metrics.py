"""What Prometheus sees of providers."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

# Values of the breaker gauge by state.
BREAKER_VALUES = {"closed": 0, "half-opened": 1, "opened": 2}

TRIES = Counter(
    "kente_provider_tries_total",
    "Tries to call a provider, by how each ended.",
    ["provider", "operation", "outcome"],
)
SECONDS = Histogram(
    "kente_provider_try_seconds",
    "Duration of one try, from admission to the last byte.",
    ["provider", "operation"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
BREAKER = Gauge(
    "kente_provider_breaker_state",
    "Breaker of a connection: 0 closed, 1 half-open, 2 open.",
    ["provider", "connection"],
)
IN_FLIGHT = Gauge(
    "kente_provider_calls_in_flight",
    "Calls to a provider that have not ended.",
    ["provider"],
)
