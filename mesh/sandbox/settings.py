"""Settings of the provider sandbox."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class SandboxSettings(BaseSettings):
    """What the sandbox needs for itself."""

    model_config = SettingsConfigDict(env_prefix="KENTE_SANDBOX_", extra="ignore", frozen=True)

    port: int = Field(
        default=7480, ge=0, le=65535, description="Port of the simulators that speak HTTP; 0 is any free one."
    )
    smtp_port: int = Field(
        default=7425, ge=0, le=65535, description="Port of the simulated mail server; 0 is any free one."
    )
    seed: int = Field(default=1, description="Seed of the random faults: the same seed gives the same faults.")
    fault_rate: float = Field(default=0.0, ge=0.0, le=1.0, description="Share of requests that get a random fault.")
    approval_seconds: float = Field(default=0.3, ge=0.0, description="How long a simulated payer takes to approve.")
    late_callback_seconds: float = Field(default=3.0, ge=0.0, description="How much later a late callback comes.")
    hang_seconds: float = Field(
        default=120.0, gt=0.0, description="How long a request that gets no answer is held open."
    )
    callback_hosts: str = Field(
        default="127.0.0.1,localhost,::1", description="Hosts that callbacks may go to, divided by commas."
    )
