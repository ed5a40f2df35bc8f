"""Settings of `kente up`, read once at start from KENTE_* environment variables."""

from pydantic import Field, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict


class EmbeddedSettings(BaseSettings):
    """What `kente up` needs beside the settings that every process shares."""

    model_config = SettingsConfigDict(env_prefix="KENTE_", extra="ignore", frozen=True)

    postgres_port: int = Field(7432, ge=1, le=65535, description="Port of the embedded PostgreSQL.")
    nats_port: int = Field(7422, ge=1, le=65535, description="Port of the embedded NATS server.")
    nats_monitor_port: int = Field(7482, ge=1, le=65535, description="Port of the NATS server's monitoring pages.")
    start_limit_seconds: PositiveFloat = Field(60.0, description="How long `kente up` waits for all to be ready.")
    stop_limit_seconds: PositiveFloat = Field(
        10.0, description="How long a process may take to stop before it is killed."
    )
    log_file_max_bytes: PositiveInt = Field(
        10_485_760, description="Size at which a log in the state folder is rotated."
    )
    trace_file_max_bytes: PositiveInt = Field(
        52_428_800, description="Size above which a process's trace file is set aside when the process starts."
    )
