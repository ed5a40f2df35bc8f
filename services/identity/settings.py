"""Settings of the identity service."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from mesh.settings import ServiceSettings
from mesh.tokens import ACCESS_TOKEN_SECONDS


class IdentitySettings(ServiceSettings):
    """What the identity service needs for itself."""

    model_config = SettingsConfigDict(env_prefix="KENTE_IDENTITY_", extra="ignore", frozen=True)

    port: int = Field(7402, ge=0, le=65535, description="Port of the gRPC server.")
    metrics_port: int = Field(7502, ge=0, le=65535, description="Port of /metrics and /healthz.")
    token_lifetime_seconds: int = Field(
        ACCESS_TOKEN_SECONDS,
        ge=30,
        le=3600,
        description="How long an access token lives. A key's revocation takes at most this long to be felt everywhere.",
    )
