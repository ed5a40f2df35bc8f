"""Tenants and API keys: what they are, and what opens one. No I/O."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from mesh.errors import Problem, Reason, Violation
from mesh.tokens import Principal

_SECRET_BYTES = 32
_ID_PREFIX = "key_"
_KEY_TEXT = re.compile(r"kente_([0-9a-z]{26})_([A-Za-z0-9_-]{43})")
# Ids hold the time they were made at, so no key ever has this one.
_NO_KEY_ID = _ID_PREFIX + "0" * 26
# No known secret has this digest.
_NO_DIGEST = bytes(hashlib.sha256().digest_size)


@dataclass(frozen=True, slots=True)
class Tenant:
    """One customer of the mesh."""

    tenant_id: str
    display_name: str
    create_time: datetime


@dataclass(frozen=True, slots=True)
class ApiKeyDraft:
    """What a caller asks a new key to be.

    Attributes:
        scopes: sorted, without repetition, so that equal requests are equal.
        expire_time: aware; None means never.
    """

    display_name: str
    scopes: tuple[str, ...]
    expire_time: datetime | None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A credential of a tenant. What it holds can be shown; the digest of its secret is kept apart."""

    api_key_id: str
    tenant_id: str
    display_name: str
    scopes: tuple[str, ...]
    create_time: datetime
    revoke_time: datetime | None = None
    expire_time: datetime | None = None

    def is_usable(self, now: datetime) -> bool:
        """Whether the key opens anything at this time."""
        return self.revoke_time is None and (self.expire_time is None or now < self.expire_time)

    def was_made_from(self, draft: ApiKeyDraft) -> bool:
        """Whether the same request made this key."""
        return (self.display_name, self.scopes, self.expire_time) == (
            draft.display_name,
            draft.scopes,
            draft.expire_time,
        )


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key with the SHA-256 digest of its secret."""

    key: ApiKey
    secret_digest: bytes


@dataclass(frozen=True, slots=True)
class PresentedKey:
    """What a caller shows: the id of a key and a secret that may open it."""

    api_key_id: str
    secret: str

    def __repr__(self) -> str:
        # The secret must not reach a log through a debug print.
        return f"PresentedKey({self.api_key_id})"

    def to_text(self) -> str:
        """The whole key as its owner keeps it, "kente_<id>_<secret>"."""
        return f"kente_{self.api_key_id.removeprefix(_ID_PREFIX)}_{self.secret}"

    @classmethod
    def from_text(cls, text: str) -> PresentedKey:
        """Reads a whole key.

        Text of another shape becomes a key that does not exist, so that a caller can't tell it from a wrong one.
        """
        found = _KEY_TEXT.fullmatch(text)
        return cls(_ID_PREFIX + found[1], found[2]) if found else cls(_NO_KEY_ID, "")

    @classmethod
    def generate(cls, api_key_id: str) -> PresentedKey:
        """A new secret of 32 random bytes for a key."""
        text = base64.urlsafe_b64encode(secrets.token_bytes(_SECRET_BYTES)).decode().rstrip("=")
        return cls(api_key_id, text)

    def secret_digest(self) -> bytes:
        """SHA-256 of the secret. It has 256 random bits, so a slow hash would protect nothing more."""
        return hashlib.sha256(self.secret.encode()).digest()


def opens(presented: PresentedKey, stored: StoredKey | None, now: datetime) -> bool:
    """Whether the presented key is the stored one and can be used.

    A key that does not exist, is wrong, revoked or expired takes the same work, and none is told from another.
    """
    expected = stored.secret_digest if stored else _NO_DIGEST
    is_right = hmac.compare_digest(presented.secret_digest(), expected)
    is_usable = stored is not None and stored.key.is_usable(now)
    return is_right and is_usable


def check_scopes(scopes: Sequence[str], *, known: Collection[str], creator: Principal) -> None:
    """Checks that a creator may give these scopes to a key.

    Args:
        scopes: as asked for, in the request's order.
        known: every scope that a client can hold.
        creator: a client gives only what it has; a service is an operator and gives any.

    Raises:
        Problem: FIELD_INVALID, a scope does not exist; SCOPE_MISSING, the creator lacks one.
    """
    violations = [
        Violation(f"scopes[{index}]", f"is not a scope: use {', '.join(sorted(known))}")
        for index, scope in enumerate(scopes)
        if scope not in known
    ]
    if violations:
        raise Problem(Reason.FIELD_INVALID, violations=violations)
    lacking = sorted(set(scopes) - creator.scopes) if creator.kind == "client" else []
    if lacking:
        text = " ".join(lacking)
        raise Problem(Reason.SCOPE_MISSING, f"a key can't hold what its creator lacks: {text}", scope=text)


def grant_scopes(held: Iterable[str], wanted: str) -> tuple[str, ...]:
    """The scopes of a token (RFC 6749, section 3.3).

    Args:
        held: scopes of the key.
        wanted: scopes asked for, divided by blanks; all that are held when there is none.

    Raises:
        Problem: SCOPE_MISSING, one is not held.
    """
    asked = set(wanted.split())
    lacking = sorted(asked - set(held))
    if lacking:
        text = " ".join(lacking)
        raise Problem(Reason.SCOPE_MISSING, f"the key does not hold {text}", scope=text)
    return tuple(sorted(asked or held))


def token_lifetime_seconds(key: ApiKey, now: datetime, longest_seconds: int) -> int:
    """Whole seconds that a token made from this key lives: it ends with its key, but lives at least one second."""
    if key.expire_time is None:
        return longest_seconds
    return max(1, min(longest_seconds, int((key.expire_time - now).total_seconds())))


def credentials_invalid() -> Problem:
    """The one answer to every key that opens nothing, whatever the cause."""
    return Problem(Reason.CREDENTIALS_INVALID, "the API key is unknown, wrong, revoked or expired")
