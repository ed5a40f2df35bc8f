"""Settings of the gateway, read once at start from KENTE_GATEWAY_* environment variables."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict


class GatewaySettings(BaseSettings):
    """What the gateway needs beside the settings that every process shares."""

    model_config = SettingsConfigDict(env_prefix="KENTE_GATEWAY_", extra="ignore", frozen=True)

    port: int = Field(8080, ge=0, le=65535, description="Port of the REST server.")
    trusted_proxies: str = Field(
        "", description="Addresses of proxies in front, by commas; what they say of a client's address is believed."
    )
    body_max_bytes: PositiveInt = Field(1024 * 1024, description="Largest request body that is accepted.")
    max_timeout_seconds: PositiveFloat = Field(
        120.0, description="Longest deadline that Kente-Timeout-Seconds can ask for; a longer one is shortened to it."
    )
    stream_timeout_seconds: PositiveFloat = Field(
        3600.0, description="How long a stream of server-sent events stays open without Kente-Timeout-Seconds."
    )
    heartbeat_seconds: PositiveFloat = Field(
        15.0,
        description="A comment is sent on a stream that was silent for this long, to keep proxies from closing it.",
    )
    location_cache_seconds: PositiveFloat = Field(
        60.0, description="How long the gateway remembers which domain handles a connection's callbacks."
    )
    refusal_cache_seconds: PositiveFloat = Field(
        2.0, description="How long an API key or a connection that was refused is refused again without asking."
    )
    key_exchanges_at_once: PositiveInt = Field(
        16, description="Most API keys that are being exchanged for a token at the same time."
    )
    ready_timeout_seconds: PositiveFloat = Field(
        1.0, description="How long /readyz waits for the health of each service."
    )
