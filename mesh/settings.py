"""Settings that every process shares, read once at start from KENTE_* environment variables."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, PositiveFloat, PositiveInt, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

Loaded = TypeVar("Loaded", bound=BaseSettings)


class MeshSettings(BaseSettings):
    """What every process of the mesh needs."""

    model_config = SettingsConfigDict(env_prefix="KENTE_", extra="ignore", frozen=True)

    host: str = Field("127.0.0.1", description="Address that every server of this process listens on.")
    state_dir: Path = Field(Path(".kente"), description="Folder for everything `kente up` keeps.")
    database_url: SecretStr = Field(
        SecretStr(""), description="PostgreSQL address of this process's own role; of an administrator for `kente`."
    )
    nats_url: str = Field("nats://127.0.0.1:7422", description="NATS address, several divided by commas.")
    nats_replicas: Literal[1, 3, 5] = Field(1, description="Copies of the event stream: 3 on a NATS cluster.")
    cache_url: str = Field("", description="Valkey address for caches and rate limits; in memory when empty.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Lowest level that is logged.")
    log_format: Literal["json", "console"] = Field("json", description="How log lines look.")
    otlp_endpoint: str = Field("", description="OpenTelemetry collector (OTLP over gRPC) that traces go to.")
    trace_file: Path | None = Field(None, description="File that finished spans are appended to, a JSON object a line.")
    identity_file: Path | None = Field(None, description="Private key (JWK) that this process signs its calls with.")
    request_hash_key: SecretStr = Field(
        SecretStr(""),
        description="Secret that stored fingerprints of requests are made with: 32 characters or more, the same on"
        " every replica of a service, never changed.",
    )
    trust_bundle_file: Path | None = Field(None, description="Public keys (JWKS) of all processes of the mesh.")
    public_url: str = Field("http://127.0.0.1:8080", description="Address of the gateway as providers reach it.")
    sandbox_url: str = Field("http://127.0.0.1:7480", description="Address of the provider sandbox.")
    payments_address: str = Field("127.0.0.1:7401", description="Address of the payments service.")
    identity_address: str = Field("127.0.0.1:7402", description="Address of the identity service.")
    ledger_address: str = Field("127.0.0.1:7403", description="Address of the ledger service.")
    notifications_address: str = Field("127.0.0.1:7404", description="Address of the notifications service.")
    connections_address: str = Field("127.0.0.1:7405", description="Address of the connections service.")
    default_deadline_seconds: PositiveFloat = Field(15.0, description="Deadline of a call that comes without one.")
    drain_seconds: PositiveFloat = Field(5.0, description="How long a stopping server lets calls end.")
    event_max_deliveries: PositiveInt = Field(8, description="Tries to handle an event before it is a dead letter.")
    job_max_attempts: PositiveInt = Field(20, description="Tries to run a failing job before it is held.")
    job_heartbeat_seconds: PositiveFloat = Field(
        4.0, description="A job whose process was silent for this long is run by another."
    )
    read_rate_per_second: PositiveInt = Field(500, description="Reads that one tenant may make a second.")
    write_rate_per_second: PositiveInt = Field(200, description="Writes that one tenant may make a second.")
    credential_rate_per_minute: PositiveInt = Field(
        600, description="Calls a minute from one address that ask for a credential."
    )

    def address_of(self, service: str) -> str:
        """Address of a service of the mesh, host:port."""
        address: str = getattr(self, f"{service}_address")
        return address


class ServiceSettings(BaseSettings):
    """What every domain service needs for itself. A subclass sets the prefix and the ports."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    port: int = Field(0, ge=0, le=65535, description="Port of the gRPC server.")
    metrics_port: int = Field(0, ge=0, le=65535, description="Port of /metrics and /healthz.")
    workers: int = Field(1, ge=1, le=64, description="Processes that share the port.")
    database_pool_size: int = Field(6, ge=2, le=100, description="Most database connections of one process.")


def load(settings: type[Loaded]) -> Loaded:
    """Reads settings, or ends the process with one line for each that is wrong."""
    try:
        return settings()
    except ValidationError as error:
        prefix = settings.model_config.get("env_prefix", "")
        for fault in error.errors():
            name = prefix + "_".join(str(part) for part in fault["loc"]).upper()
            print(f"{name}: {fault['msg']}. See docs/settings.md.", file=sys.stderr)  # noqa: T201 - logs are not set up
        raise SystemExit(2) from None
