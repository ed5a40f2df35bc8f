"""Settings of the ledger service."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from mesh.settings import ServiceSettings


class LedgerSettings(ServiceSettings):
    """What the ledger service needs for itself."""

    model_config = SettingsConfigDict(env_prefix="KENTE_LEDGER_", extra="ignore", frozen=True)

    port: int = Field(7403, ge=0, le=65535, description="Port of the gRPC server.")
    metrics_port: int = Field(7503, ge=0, le=65535, description="Port of /metrics and /healthz.")
