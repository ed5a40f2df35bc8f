"""Ids: a type prefix and 128 bits in 26 characters, such as "pay_01jd3x0r8v5m1q9z2k7c4b6t8n"."""

from __future__ import annotations

import hashlib

import uuid_utils

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
# Two digits at a time, from the left.
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_SHIFTS = range(120, -1, -10)


def new_id(prefix: str) -> str:
    """A new id, ordered by time (UUIDv7)."""
    return f"{prefix}_{_encode(uuid_utils.uuid7().int)}"


def derive_id(prefix: str, *parts: str) -> str:
    """The same id for the same parts, for what must exist once per cause."""
    return f"{prefix}_{_encode(_digest(parts))}"


def derive_uuid(*parts: str) -> str:
    """The same UUID (form 4) for the same parts, for request ids and for providers' idempotency keys."""
    return str(uuid_utils.UUID(int=_digest(parts), version=4))


def _digest(parts: tuple[str, ...]) -> int:
    joined = b""
    for part in parts:
        data = part.encode()
        # With its length, so ("a", "bc") and ("ab", "c") differ.
        joined += len(data).to_bytes(4, "big") + data
    return int.from_bytes(hashlib.sha256(joined).digest()[:16], "big")


def _encode(number: int) -> str:
    return "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])
