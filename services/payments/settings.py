"""Settings of the payments service."""

from __future__ import annotations

from pydantic import Field, PositiveFloat
from pydantic_settings import SettingsConfigDict

from mesh.settings import ServiceSettings


class PaymentsSettings(ServiceSettings):
    """What the payments service needs for itself."""

    model_config = SettingsConfigDict(env_prefix="KENTE_PAYMENTS_", extra="ignore", frozen=True)

    port: int = Field(default=7401, ge=0, le=65535, description="Port of the gRPC server.")
    metrics_port: int = Field(default=7501, ge=0, le=65535, description="Port of /metrics and /healthz.")
    send_timeout_seconds: PositiveFloat = Field(
        default=10.0,
        description="Longest that one instruction to a provider may take, with its safe repetitions; after that its"
        " outcome is unknown and the provider is asked.",
    )
    not_found_wait_seconds: PositiveFloat = Field(
        default=12.0,
        description="How long after sending a provider's 'I have no such operation' proves nothing: the instruction may"
        " still be on its way.",
    )
    send_window_seconds: PositiveFloat = Field(
        default=600.0,
        description="How long after its creation a payment, refund or capture that did not reach a provider is still"
        " sent; after that it fails.",
    )
    poll_first_seconds: PositiveFloat = Field(
        default=1.0, description="First pause before a provider is asked for an outcome."
    )
    poll_longest_seconds: PositiveFloat = Field(default=30.0, description="Longest pause between two such questions.")
    report_delay_seconds: PositiveFloat = Field(
        default=3600.0,
        description="After this long without an outcome an event tells the operators; the asking goes on.",
    )
    poll_rare_seconds: PositiveFloat = Field(
        default=900.0, description="Pause between questions after that, and for payments that wait for a capture."
    )
    webhook_match_seconds: PositiveFloat = Field(
        default=600.0, description="How long a callback about something unknown is tried again before it is set aside."
    )
    ledger_retry_longest_seconds: PositiveFloat = Field(
        default=60.0, description="Longest pause before a posting is tried again while the ledger is away."
    )
    ledger_refused_longest_seconds: PositiveFloat = Field(
        default=300.0,
        description="Longest pause before a posting is tried again that the ledger refused, as for a frozen account.",
    )
    connections_cache_seconds: PositiveFloat = Field(
        default=5.0, description="How long the list of a tenant's connections is remembered."
    )
    adapter_cache_seconds: PositiveFloat = Field(
        default=30.0, description="How long an adapter with its credentials is kept in memory."
    )
