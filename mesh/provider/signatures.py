"""Checks of callback signatures: over the raw bytes, in constant time, within a window of time."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from mesh.provider.errors import WebhookUnverified

TOLERANCE_SECONDS = 300
# A header could name thousands of signatures to make us compute; while a secret is rolled a provider sends two.
_SIGNATURES_MAX = 16

Digest = Literal["sha256", "sha512", "sha1"]
Encoding = Literal["hex", "base64"]


def hmac_text(secret: bytes, message: bytes, *, digest: Digest = "sha256", encoding: Encoding = "hex") -> str:
    """The HMAC of a message as text, hex in lower case."""
    code = hmac.new(secret, message, getattr(hashlib, digest)).digest()
    return code.hex() if encoding == "hex" else base64.b64encode(code).decode()


def check_hmac(
    secrets: Iterable[bytes],
    message: bytes,
    signatures: Iterable[str],
    *,
    digest: Digest = "sha256",
    encoding: Encoding = "hex",
) -> None:
    """Passes when one of the signatures is the message's under one of the secrets.

    Every pair is compared, so that the time taken does not tell which one was close.

    Raises:
        WebhookUnverified: none is, or there is no secret, an empty one, or no signature.
    """
    expected = [hmac_text(secret, message, digest=digest, encoding=encoding).encode() for secret in secrets if secret]
    given = [signature.encode() for signature in signatures][:_SIGNATURES_MAX]
    matches = [hmac.compare_digest(ours, theirs) for ours in expected for theirs in given]
    if not any(matches):
        raise WebhookUnverified("the signature is missing or wrong")


def check_timestamp(unix_seconds: str, receive_time: datetime, tolerance_seconds: int = TOLERANCE_SECONDS) -> None:
    """Passes when a callback was signed within the tolerance of its arrival, before or after.

    Raises:
        WebhookUnverified: it was not, or the text is no number.
    """
    # int() takes signs, blanks and underscores that no provider sends.
    if not (unix_seconds.isascii() and unix_seconds.isdigit() and len(unix_seconds) <= len("253402300799")):
        raise WebhookUnverified("the time of the signature is missing or no number")
    if abs(receive_time.timestamp() - int(unix_seconds)) > tolerance_seconds:
        raise WebhookUnverified("the signature is too old, or from the future")


def parse_pairs(header: str) -> dict[str, list[str]]:
    """Reads "t=1,v1=aa,v1=bb" into {"t": ["1"], "v1": ["aa", "bb"]}; what is no pair is left out."""
    pairs: dict[str, list[str]] = {}
    for part in header.split(","):
        name, divider, value = part.strip().partition("=")
        if divider:
            pairs.setdefault(name, []).append(value)
    return pairs
