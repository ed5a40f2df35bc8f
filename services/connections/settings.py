"""Settings of the connections service."""

from __future__ import annotations

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from mesh.settings import ServiceSettings
from services.connections.model import KeyRing


class ConnectionsSettings(ServiceSettings):
    """What the connections service needs for itself."""

    model_config = SettingsConfigDict(env_prefix="KENTE_CONNECTIONS_", extra="ignore", frozen=True)

    port: int = Field(7405, ge=0, le=65535, description="Port of the gRPC server.")
    metrics_port: int = Field(7505, ge=0, le=65535, description="Port of /metrics and /healthz.")
    encryption_keys: SecretStr = Field(
        SecretStr(""),
        validate_default=True,
        description="Keys that credentials are sealed with, as id:base64,id:base64 or as JSON; 32 bytes each. The first"
        " one seals, all of them open. Needed.",
    )
    credential_cache_seconds: float = Field(
        10.0,
        gt=0,
        le=300,
        description="How long sealed credentials stay in memory, and so how long another worker process still resolves"
        " a deleted connection.",
    )
    provider_cache_seconds: float = Field(
        60.0, gt=0, le=3600, description="How long the providers that a domain lists are remembered."
    )

    @field_validator("encryption_keys")
    @classmethod
    def _check_encryption_keys(cls, keys: SecretStr) -> SecretStr:
        KeyRing.parse(keys.get_secret_value())
        return keys
