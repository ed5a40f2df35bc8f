"""Connections and the sealing of their credentials. No I/O.

Credentials are sealed by envelope encryption: a random data key for each connection encrypts them, and a key-encryption
key, known by its id, encrypts the data key; both with AES-256-GCM (NIST SP 800-38D). Both layers are bound to the
tenant, the connection and the key id, so a row that was moved to another tenant or connection does not open.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import SplitResult, urlsplit

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mesh.errors import Problem, Reason, Violation
from mesh.provider.connection import Environment

_MAX_CREDENTIAL_LENGTH = 16_384
_MAX_SETTING_NAME_LENGTH = 60
_MAX_SETTING_LENGTH = 1_000
_CREDENTIAL_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_SCHEMES = ("http", "https", "smtp", "smtps")

_SEAL_VERSION = 1
_KEY_BYTES = 32
_NONCE_BYTES = 12
_TAG_BYTES = 16
_WRAPPED_KEY_BYTES = _KEY_BYTES + _TAG_BYTES
_KEY_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_HOW_TO_MAKE_A_KEY = (
    "make one with: python3 -c 'import base64, secrets;"
    ' print("k1:" + base64.b64encode(secrets.token_bytes(32)).decode())\''
)


@dataclass(frozen=True, slots=True)
class CredentialField:
    """One credential that connections to a provider have."""

    name: str
    description: str
    optional: bool


@dataclass(frozen=True, slots=True)
class Provider:
    """What a connection needs to know about a provider.

    Attributes:
        slug: its name everywhere, such as "mtn_momo".
        domain: service that owns its adapter.
    """

    slug: str
    domain: str
    credential_fields: tuple[CredentialField, ...]


@dataclass(frozen=True, slots=True)
class ConnectionDraft:
    """What a caller asks a new connection to be."""

    provider: str
    display_name: str
    environment: Environment
    base_url: str
    settings: Mapping[str, str]
    credentials: Mapping[str, str]

    def __repr__(self) -> str:
        # Credentials must not reach a log through a debug print.
        return f"ConnectionDraft({self.provider}, {self.environment})"


@dataclass(frozen=True, slots=True)
class Connection:
    """A tenant's link to one provider, without its credentials.

    Attributes:
        domain: service that uses it.
        base_url: address to use instead of the environment's own, or empty.
        settings: what is not secret.
        credential_names: sorted.
        encryption_key_id: key that the credentials are sealed with.
    """

    connection_id: str
    tenant_id: str
    provider: str
    domain: str
    display_name: str
    environment: Environment
    base_url: str
    settings: Mapping[str, str]
    credential_names: tuple[str, ...]
    encryption_key_id: str
    create_time: datetime
    update_time: datetime

    @property
    def webhook_path(self) -> str:
        """Path of the gateway that the provider must call."""
        return f"/webhooks/{self.provider}/{self.connection_id}"

    def was_made_from(self, draft: ConnectionDraft) -> bool:
        """Whether the same request made this connection, as far as can be told without its credentials."""
        return (
            self.provider == draft.provider
            and self.display_name == draft.display_name
            and self.environment == draft.environment
            and self.base_url == draft.base_url
            and dict(self.settings) == dict(draft.settings)
            and self.credential_names == tuple(sorted(draft.credentials))
        )


@dataclass(frozen=True, slots=True)
class StoredConnection:
    """A connection with its sealed credentials; None once it is deleted."""

    connection: Connection
    sealed_credentials: bytes | None


def check_draft(draft: ConnectionDraft, provider: Provider) -> None:
    """Checks a new connection against its provider.

    Raises:
        Problem: FIELD_INVALID, with everything that is wrong. No value of a credential is ever in it.
    """
    violations = [
        *_credential_violations(draft.credentials, provider),
        *_setting_violations(draft.settings, provider),
        *_base_url_violations(draft.base_url, draft.environment),
    ]
    if violations:
        raise Problem(Reason.FIELD_INVALID, violations=violations)


def _credential_violations(credentials: Mapping[str, str], provider: Provider) -> Iterator[Violation]:
    fields = {field.name: field for field in provider.credential_fields}
    for name, field in fields.items():
        if name not in credentials and not field.optional:
            yield Violation(f"credentials.{name}", f"is missing: {field.description or 'the provider needs it'}")
    takes = f"{provider.slug} takes {', '.join(fields) or 'none'}"
    for name, value in sorted(credentials.items()):
        if name not in fields:
            # A secret that was sent in the place of a name must not come back in an error.
            is_name = _CREDENTIAL_NAME.fullmatch(name) and value and value not in fields
            yield Violation(f"credentials.{name}" if is_name else "credentials", f"is not known: {takes}")
        elif not value:
            yield Violation(f"credentials.{name}", "is empty: give its value, or leave it out if it is optional")
        elif len(value) > _MAX_CREDENTIAL_LENGTH:
            yield Violation(f"credentials.{name}", f"is too long: at most {_MAX_CREDENTIAL_LENGTH} characters")


def _setting_violations(settings: Mapping[str, str], provider: Provider) -> Iterator[Violation]:
    secret_names = {field.name for field in provider.credential_fields}
    for name, value in sorted(settings.items()):
        if name in secret_names:
            yield Violation(f"settings.{name}", "is a credential: send it in credentials, where it is sealed")
        elif not 0 < len(name) <= _MAX_SETTING_NAME_LENGTH:
            yield Violation("settings", f"has a name that is empty or longer than {_MAX_SETTING_NAME_LENGTH}")
        elif len(value) > _MAX_SETTING_LENGTH:
            yield Violation(f"settings.{name}", f"is too long: at most {_MAX_SETTING_LENGTH} characters")


def _base_url_violations(base_url: str, environment: Environment) -> Iterator[Violation]:
    """What is wrong with an address that credentials will be sent to."""
    if not base_url:
        return
    url = _split_url(base_url)
    if url is None:
        form = ", ".join(f"{scheme}://" for scheme in _SCHEMES)
        yield Violation("base_url", f"is not an address: begin with one of {form}, and name a host")
    elif "@" in url.netloc:
        yield Violation("base_url", "holds a user or a password: send them in credentials, where they are sealed")
    elif url.query or url.fragment:
        yield Violation("base_url", "holds a query or a fragment: leave them out")
    elif url.scheme == "http" and not _is_loopback(url.hostname or ""):
        detail = "would send credentials in the clear: use https://, or http:// only to this machine"
        yield Violation("base_url", detail)
    elif environment is Environment.PRODUCTION and _is_inside(url.hostname or ""):
        # No provider is there; whoever asks for it wants to reach what the mesh's own network hides.
        yield Violation("base_url", "is inside of a private network: leave it out, or use the environment SANDBOX")


def _split_url(text: str) -> SplitResult | None:
    # urlsplit drops line breaks and tabs silently, so what it read would not be what is stored.
    if not text.isascii() or not text.isprintable() or " " in text:
        return None
    try:
        url = urlsplit(text)
        is_address = url.scheme in _SCHEMES and bool(url.hostname) and url.port != 0
    except ValueError:
        return None
    return url if is_address else None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_inside(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return False


def connection_not_found(connection_id: str) -> Problem:
    """The answer for a connection that does not exist, and the same for one of another tenant."""
    return Problem(Reason.RESOURCE_NOT_FOUND, f"connection {connection_id} does not exist", connection_id=connection_id)


class SealError(Exception):
    """Sealed credentials can't be opened."""


class SealBrokenError(SealError):
    """They were changed, cut, or sealed for another tenant, connection or key."""


class KeyUnknownError(SealError):
    """They are sealed with a key that this process was not given."""


class KeyRing:
    """The key-encryption keys. The first is current: it seals; every one opens what it sealed."""

    def __init__(self, keys: Sequence[tuple[str, bytes]]) -> None:
        self.current_key_id = keys[0][0]
        self._keys = {key_id: AESGCM(key) for key_id, key in keys}

    def __repr__(self) -> str:
        # Keys must not reach a log through a debug print.
        return f"KeyRing({', '.join(self._keys)})"

    @classmethod
    def parse(cls, text: str) -> KeyRing:
        """Reads keys from a setting: "id:base64,id:base64", or the same as a JSON list or as a JSON object.

        Raises:
            ValueError: in one line, what is wrong and what to do; never with a key in it.
        """
        keys: dict[str, bytes] = {}
        for number, (key_id, encoded) in enumerate(_key_entries(text.strip()), start=1):
            if not _KEY_ID.fullmatch(key_id):
                raise ValueError(f"entry {number} is not id:base64; {_HOW_TO_MAKE_A_KEY}")
            if key_id in keys:
                raise ValueError(f"the key id {key_id} comes twice; give every key an id of its own")
            keys[key_id] = _decode_key(key_id, encoded)
        if not keys:
            raise ValueError(f"no key is given; {_HOW_TO_MAKE_A_KEY}")
        return cls(list(keys.items()))

    def seal(self, credentials: Mapping[str, str], *, tenant_id: str, connection_id: str) -> bytes:
        """Seals credentials with the current key.

        Layout: version (1 byte), length of the key id (1), key id, nonce (12) and wrapped data key (48), nonce (12)
        and encrypted credentials.
        """
        key_id = self.current_key_id
        data_key = secrets.token_bytes(_KEY_BYTES)
        wrap_nonce, data_nonce = secrets.token_bytes(_NONCE_BYTES), secrets.token_bytes(_NONCE_BYTES)
        bound = (tenant_id, connection_id, key_id)
        text = json.dumps(dict(credentials), sort_keys=True).encode()
        return b"".join(
            (
                bytes((_SEAL_VERSION, len(key_id))),
                key_id.encode(),
                wrap_nonce,
                self._keys[key_id].encrypt(wrap_nonce, data_key, _associated_data("data key", *bound)),
                data_nonce,
                AESGCM(data_key).encrypt(data_nonce, text, _associated_data("credentials", *bound)),
            )
        )

    def open(self, sealed: bytes, *, tenant_id: str, connection_id: str) -> dict[str, str]:
        """The credentials in the clear.

        Raises:
            SealBrokenError: the bytes are not what was sealed for this tenant and connection.
            KeyUnknownError: the key is not in this ring.
        """
        key_id, rest = _split_key_id(sealed)
        if key_id not in self._keys:
            raise KeyUnknownError(f"{connection_id} is sealed with the key {key_id!r}, which is not configured")
        data_start = _NONCE_BYTES + _WRAPPED_KEY_BYTES
        wrap_nonce, wrapped = rest[:_NONCE_BYTES], rest[_NONCE_BYTES:data_start]
        data_nonce, encrypted = rest[data_start : data_start + _NONCE_BYTES], rest[data_start + _NONCE_BYTES :]
        bound = (tenant_id, connection_id, key_id)
        try:
            data_key = self._keys[key_id].decrypt(wrap_nonce, wrapped, _associated_data("data key", *bound))
            text = AESGCM(data_key).decrypt(data_nonce, encrypted, _associated_data("credentials", *bound))
        except (InvalidTag, ValueError):
            raise SealBrokenError(f"the credentials of {connection_id} do not open") from None
        credentials: dict[str, str] = json.loads(text)
        return credentials


def key_id_of(sealed: bytes) -> str:
    """Id of the key that bytes are sealed with.

    Raises:
        SealBrokenError: the bytes name none.
    """
    return _split_key_id(sealed)[0]


def _split_key_id(sealed: bytes) -> tuple[str, bytes]:
    if len(sealed) < 2 or sealed[0] != _SEAL_VERSION:  # noqa: PLR2004 - version and length, a byte each
        raise SealBrokenError("these are not sealed credentials")
    end = 2 + sealed[1]
    try:
        return sealed[2:end].decode("ascii"), sealed[end:]
    except UnicodeDecodeError:
        raise SealBrokenError("these are not sealed credentials") from None


def _associated_data(layer: str, tenant_id: str, connection_id: str, key_id: str) -> bytes:
    # Each part goes in with its length, so that no two lists of parts give the same bytes.
    parts = ("kente.connections.v1", layer, tenant_id, connection_id, key_id)
    return b"".join(len(data).to_bytes(4, "big") + data for data in (part.encode() for part in parts))


def _key_entries(text: str) -> list[tuple[str, str]]:
    """Pairs of id and encoded key, in the order given."""
    if not text.startswith(("{", "[")):
        return [_split_entry(entry) for entry in text.split(",") if entry.strip()]
    try:
        # Pairs, so that an id that comes twice is seen.
        document = json.loads(text, object_pairs_hook=lambda pairs: [f"{key_id}:{key}" for key_id, key in pairs])
    except json.JSONDecodeError:
        raise ValueError("it begins like JSON and is none; write id:base64,id:base64") from None
    return [_split_entry(str(entry)) for entry in document]


def _split_entry(entry: str) -> tuple[str, str]:
    key_id, colon, encoded = entry.partition(":")
    # Without a colon it may be a bare key, which must not be shown as an id.
    return (key_id.strip(), encoded.strip()) if colon else ("", "")


def _decode_key(key_id: str, encoded: str) -> bytes:
    try:
        key = base64.b64decode(encoded.replace("-", "+").replace("_", "/"), validate=True)
    except binascii.Error:
        raise ValueError(f"the key {key_id} is not base64; {_HOW_TO_MAKE_A_KEY}") from None
    if len(key) != _KEY_BYTES:
        raise ValueError(f"the key {key_id} has {len(key)} bytes and needs {_KEY_BYTES}; {_HOW_TO_MAKE_A_KEY}")
    return key
