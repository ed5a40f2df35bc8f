"""Signed identities: JWTs (RFC 7519) with Ed25519 keys, verified against one trust bundle (RFC 7517).

Every process has a key of its own and signs short-lived tokens for its calls, in the manner of SPIFFE JWT-SVIDs. The
identity service signs the access tokens of clients with its key. The bundle binds each key to its issuer, so a key
can speak for nobody else. Verification needs no network; rotation is a new entry in the bundle, which is read again
when the file changes.
"""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jwt
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import OKPAlgorithm

from mesh.errors import Problem, Reason

log = structlog.get_logger()

TRUST_DOMAIN = "spiffe://kente"
AUDIENCE = "kente"
ACCESS_TOKEN_SECONDS = 300
SERVICE_TOKEN_SECONDS = 120
# The one process whose key signs tokens for clients.
TOKEN_ISSUER = f"{TRUST_DOMAIN}/identity"
_LEEWAY_SECONDS = 10
_BUNDLE_SECONDS = 1.0
# A bound on memory; any large number does.
_REMEMBERED_TOKENS = 10_000
# A tenant becomes part of subjects, and of the setting that row-level security reads, where "*" stands for all.
_TENANT = re.compile(r"[\w-]{0,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls.

    Attributes:
        subject: "key_..." of a client, "spiffe://kente/payments" of a service.
        tenant_id: whom it acts for; empty when for nobody.
        scopes: what a client may do; a service may do all that its audience allows.
    """

    subject: str
    tenant_id: str
    scopes: frozenset[str]
    kind: Literal["client", "service"]


class Identity:
    """A process's private key."""

    def __init__(self, name: str, key_id: str, key: Ed25519PrivateKey) -> None:
        self.name = name
        self.subject = f"{TRUST_DOMAIN}/{name}"
        self.key_id = key_id
        self._key = key
        self._cached: dict[str, tuple[str, float]] = {}

    @classmethod
    def load(cls, path: Path) -> Identity:
        """Reads a JWK file written by create_identities.

        Raises:
            SystemExit: the file is missing or unreadable.
        """
        try:
            document = json.loads(path.read_text())
            key = OKPAlgorithm.from_jwk(document)
        except (OSError, ValueError, jwt.InvalidKeyError) as error:
            raise SystemExit(
                f"KENTE_IDENTITY_FILE: {path} can't be read ({type(error).__name__}); run `kente up`"
            ) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise SystemExit(f"KENTE_IDENTITY_FILE: {path} holds no private key")
        return cls(str(document["name"]), str(document["kid"]), key)

    def service_token(self, tenant_id: str) -> str:
        """A token for this process's own calls, on behalf of a tenant or of nobody. Made anew before it ages."""
        token, good_until = self._cached.get(tenant_id, ("", 0.0))
        if time.monotonic() < good_until:
            return token
        if len(self._cached) > 10_000:  # noqa: PLR2004 - a bound on memory, any large number does
            self._cached.clear()
        token = self._sign({"sub": self.subject, "tenant": tenant_id}, SERVICE_TOKEN_SECONDS)
        self._cached[tenant_id] = (token, time.monotonic() + SERVICE_TOKEN_SECONDS / 2)
        return token

    def access_token(self, subject: str, tenant_id: str, scopes: Iterable[str], lifetime_seconds: int) -> str:
        """A token for a client. Only the identity service's is believed."""
        claims = {"sub": subject, "tenant": tenant_id, "scope": " ".join(sorted(scopes))}
        return self._sign(claims, lifetime_seconds)

    def _sign(self, claims: Mapping[str, str], lifetime_seconds: int) -> str:
        now = int(time.time())
        payload = {
            **claims,
            "iss": self.subject,
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + lifetime_seconds,
            "jti": str(uuid.uuid4()),
        }
        return jwt.encode(payload, self._key, algorithm="EdDSA", headers={"kid": self.key_id})


class TrustBundle:
    """The public keys of all processes, each bound to its issuer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._version: tuple[int, int, int] | None = None
        self._look_again = 0.0
        self._keys: dict[str, tuple[str, Any]] = {}
        # Who each token speaks for, and until when: to verify a signature takes longer than all else about a call.
        self._verified: dict[str, tuple[Principal, float]] = {}
        self.reload()

    def reload(self) -> None:
        """Reads the file again when it changed. Should it be unreadable by then, what was known stays.

        Raises:
            SystemExit: the file can't be read at start.
        """
        self._look_again = time.monotonic() + _BUNDLE_SECONDS
        try:
            found = self.path.stat()
            version = (found.st_ino, found.st_mtime_ns, found.st_size)
            if version == self._version:
                return
            keys = {
                str(entry["kid"]): (f"{TRUST_DOMAIN}/{entry['name']}", OKPAlgorithm.from_jwk(entry))
                for entry in json.loads(self.path.read_text())["keys"]
            }
        except (OSError, ValueError, KeyError, TypeError, jwt.PyJWTError) as error:
            if self._keys:
                log.warning("trust_bundle_unreadable", error=type(error).__name__)
                return
            detail = f"{self.path} can't be read ({type(error).__name__}); run `kente up`"
            raise SystemExit(f"KENTE_TRUST_BUNDLE_FILE: {detail}") from None
        self._keys, self._version = keys, version
        self._verified.clear()

    def public_keys(self, issuer: str) -> list[dict[str, str]]:
        """The public keys of one issuer, as JWKs."""
        return [
            {**OKPAlgorithm.to_jwk(key, as_dict=True), "kid": key_id, "use": "sig", "alg": "EdDSA"}
            for key_id, (owner, key) in self._keys.items()
            if owner == issuer
        ]

    def verify(self, token: str) -> Principal:
        """Who a token speaks for.

        Raises:
            Problem: CREDENTIALS_INVALID, whatever is wrong with it.
        """
        # A key that was taken out of the bundle is no longer believed soon after.
        if time.monotonic() >= self._look_again:
            self.reload()
        principal, good_until = self._verified.get(token, (None, 0.0))
        if principal is not None and time.time() < good_until:
            return principal
        issuer, claims = self._claims(token)
        principal = _principal(issuer, claims)
        if len(self._verified) >= _REMEMBERED_TOKENS:
            self._verified.clear()
        self._verified[token] = (principal, float(claims["exp"]))
        return principal

    def _claims(self, token: str) -> tuple[str, Mapping[str, Any]]:
        """The issuer and the claims of a token whose signature is right."""
        try:
            key_id = jwt.get_unverified_header(token).get("kid", "")
            if key_id not in self._keys:
                self.reload()
            issuer, key = self._keys[key_id]
            claims = jwt.decode(
                token,
                key,
                algorithms=["EdDSA"],
                audience=AUDIENCE,
                issuer=issuer,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except (jwt.InvalidTokenError, KeyError) as error:
            raise Problem(Reason.CREDENTIALS_INVALID, f"the token is not valid: {type(error).__name__}") from None
        return issuer, claims


def _principal(issuer: str, claims: Mapping[str, Any]) -> Principal:
    subject, tenant_id = str(claims["sub"]), str(claims.get("tenant", ""))
    if not _TENANT.fullmatch(tenant_id):
        raise Problem(Reason.CREDENTIALS_INVALID, "the token is not valid: its tenant is none")
    if subject == issuer:
        return Principal(subject, tenant_id, frozenset(), "service")
    if issuer == TOKEN_ISSUER and tenant_id:
        return Principal(subject, tenant_id, frozenset(str(claims.get("scope", "")).split()), "client")
    raise Problem(Reason.CREDENTIALS_INVALID, "the token is not valid: its issuer can't speak for its subject")


def create_identities(folder: Path, names: Iterable[str]) -> None:
    """Makes a key for each name that has none yet, and the bundle of all of them.

    Files: <name>.jwk, readable by the owner only, and bundle.jwks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    public = []
    for name in names:
        path = folder / f"{name}.jwk"
        create_private_key(path)
        document = json.loads(path.read_text())
        public.append({key: value for key, value in document.items() if key not in ("d", "key_ops")})
    bundle = folder / "bundle.jwks"
    text = json.dumps({"keys": public}, indent=2)
    if not bundle.exists() or bundle.read_text() != text:
        scratch = bundle.with_suffix(".new")
        scratch.write_text(text)
        scratch.replace(bundle)


def create_private_key(path: Path) -> None:
    """Makes a key that only its owner can read, unless the file is there. Its name is that of the file."""
    if path.exists():
        return
    document = OKPAlgorithm.to_jwk(Ed25519PrivateKey.generate(), as_dict=True)
    _write_private(path, json.dumps({**document, "kid": f"{path.stem}-{uuid.uuid4().hex[:12]}", "name": path.stem}))


def load_private_key(path: Path | None, setting: str) -> Ed25519PrivateKey:
    """Reads a key as create_private_key writes it, or as PEM (PKCS #8, not encrypted).

    Args:
        setting: environment variable that names the file.

    Raises:
        SystemExit: there is no such file, it can't be read, or it holds another kind of key.
    """
    if path is None:
        raise SystemExit(f"{setting}: it must name a file; `kente up` and `kente identities` make one")
    try:
        text = path.read_text()
        is_pem = text.lstrip().startswith("-----BEGIN")
        key = load_pem_private_key(text.encode(), None) if is_pem else OKPAlgorithm.from_jwk(json.loads(text))
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm, jwt.InvalidKeyError) as error:
        detail = f"{path} can't be read ({type(error).__name__}); `kente up` and `kente identities` make one"
        raise SystemExit(f"{setting}: {detail}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SystemExit(f"{setting}: {path} holds no private Ed25519 key; `kente up` and `kente identities` make one")
    return key


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
