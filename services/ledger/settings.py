"""Settings of the ledger service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from mesh.settings import ServiceSettings


class LedgerSettings(ServiceSettings):
    """What the ledger service needs for itself."""

    model_config = SettingsConfigDict(env_prefix="KENTE_LEDGER_", extra="ignore", frozen=True)

    port: int = Field(7403, ge=0, le=65535, description="Port of the gRPC server.")
    metrics_port: int = Field(7503, ge=0, le=65535, description="Port of /metrics and /healthz.")
    checkpoint_key_file: Path | None = Field(
        None, description="Private Ed25519 key (JWK or PEM) that checkpoints are signed with. Needed."
    )
    log_name: str = Field(
        "kente.local/ledger",
        pattern=r"^[^\s+]+$",
        max_length=200,
        description="Name of the log in checkpoints: best an address that you own, without https://.",
    )
    verify_processes: int = Field(
        2, ge=1, le=64, description="Processes that check books when asked to; they end when they are done."
    )
    batch_limit: int = Field(8192, ge=1, le=8192, description="Most postings that are written in one transaction.")
    queue_limit: int = Field(
        32_768, ge=1, description="Most postings that may wait in one process; more are told to come back."
    )
    ahead_postings: int = Field(
        256, ge=1, description="When so many postings wait, they are decided while others are being written."
    )
    effective_skew_seconds: float = Field(
        300.0, ge=0, description="How far in the future something may take effect that is booked now."
    )
