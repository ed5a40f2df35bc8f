"""Settings of the notifications service."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat
from pydantic_settings import SettingsConfigDict

from mesh.settings import ServiceSettings


class NotificationsSettings(ServiceSettings):
    """What the notifications service needs for itself."""

    model_config = SettingsConfigDict(env_prefix="KENTE_NOTIFICATIONS_", extra="ignore", frozen=True)

    port: int = Field(7404, ge=0, le=65535, description="Port of the gRPC server.")
    metrics_port: int = Field(7504, ge=0, le=65535, description="Port of /metrics and /healthz.")
    sender: str = Field(
        "Receipts <receipts@kente.example>",
        pattern=r"^[^\x00-\x1f\x7f]*[^\s<>@]+@[^\s<>@]+>?$",
        description='Mailbox that e-mail comes from, when the connection has no setting "sender".',
    )
    message_domain: str = Field(
        "messages.kente.example",
        pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)+$",
        description="Domain of the Message-ID of every e-mail; one that you own.",
    )
    receipts: bool = Field(default=True, description="Whether payers get a receipt for a payment that succeeded.")
    receipt_locale: str = Field("en", pattern=r"^[A-Za-z-]{2,35}$", description="Language of receipts, a BCP 47 tag.")
    retry_first_seconds: PositiveFloat = Field(2.0, description="First pause after a try that sent nothing.")
    retry_longest_seconds: PositiveFloat = Field(300.0, description="Longest pause between two tries.")
    delivery_window_seconds: PositiveFloat = Field(
        86_400.0,
        description="How long after its creation a message that was not handed over is still tried, also while the"
        " tenant has no connection that could carry it; after that it fails.",
    )
    unknown_outcome: Literal["hold", "resend"] = Field(
        "hold",
        description="What becomes of a message that may have been taken when the provider can't be asked: hold leaves"
        " it in state SENDING for a person to look at, resend sends it once more under the same Message-ID.",
    )
    unknown_recheck_seconds: PositiveFloat = Field(
        900.0,
        description="Pause between looks at a held message, so that a changed setting or connection takes effect.",
    )
    connections_cache_seconds: PositiveFloat = Field(
        5.0, description="How long the list of a tenant's connections is remembered."
    )
