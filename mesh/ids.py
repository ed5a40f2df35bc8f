"""Ids: a type prefix and 128 bits in 26 characters, such as "pay_01jd3x0r8v5m1q9z2k7c4b6t8n"."""

from __future__ import annotations

import hashlib
import uuid

import uuid_utils

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 26


def new_id(prefix: str) -> str:
    """A new id, ordered by time (UUIDv7)."""
    return f"{prefix}_{_encode(uuid_utils.uuid7().int)}"


def derive_id(prefix: str, *parts: str) -> str:
    """The same id for the same parts, for what must exist once per cause."""
    return f"{prefix}_{_encode(_digest(parts))}"


def derive_uuid(*parts: str) -> str:
    """The same UUID (form 4) for the same parts, for request ids and for providers' idempotency keys."""
    return str(uuid.UUID(int=_digest(parts), version=4))


def _digest(parts: tuple[str, ...]) -> int:
    # Each part goes in with its length, so ("a", "bc") and ("ab", "c") differ.
    joined = b"".join(len(data).to_bytes(4, "big") + data for data in (part.encode() for part in parts))
    return int.from_bytes(hashlib.sha256(joined).digest()[:16], "big")


def _encode(number: int) -> str:
    digits = []
    for _ in range(_LENGTH):
        number, digit = divmod(number, 32)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
