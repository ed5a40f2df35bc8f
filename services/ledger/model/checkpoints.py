"""Checkpoints: the state of a tree as a signed text that anyone can verify. No I/O.

Signed notes (c2sp.org/signed-note) with Ed25519 keys, and their use for the heads of logs (c2sp.org/tlog-checkpoint),
both as of 2026-11-21. One key signs for the trees of all tenants, so its name is what their origins begin with,
where the second document would rather have name and origin the same.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nacl.exceptions import CryptoError
from nacl.signing import VerifyKey

from services.ledger.model.merkle import HASH_BYTES

# Of Ed25519, among the types of the first document.
_SIGNATURE_TYPE = b"\x01"
_KEY_ID_BYTES = 4
_PUBLIC_KEY_BYTES = 32
# Bounds on what is read: the first document wants room for 16 signatures at least.
_NOTE_MAX_CHARACTERS = 16_384
_SIGNATURES_MAX = 64
_NAME = re.compile(r"[^\s+]+")
_SIGNATURE_LINE = re.compile(r"\u2014 ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_CHECKPOINT_LINES = 3


class NoteError(ValueError):
    """A note that must not be believed, or a key that is none."""


class Head(NamedTuple):
    """What a checkpoint says."""

    origin: str
    tree_size: int
    root_hash: bytes


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with its name.

    Attributes:
        key_id: four bytes that tell it from other keys of the same name.
    """

    name: str
    key_id: bytes
    public_key: bytes

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Reads a key as it is published: name, key id and key, joined by plus signs.

        Raises:
            NoteError: it is none.
        """
        name, _, rest = text.partition("+")
        key_id, _, encoded = rest.partition("+")
        try:
            data = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            data = b""
        if not _NAME.fullmatch(name) or data[:1] != _SIGNATURE_TYPE or len(data) != 1 + _PUBLIC_KEY_BYTES:
            raise NoteError("this is no Ed25519 verifier key: name+key id+base64")
        key = cls.of(name, data[1:])
        if key_id != key.key_id.hex():
            raise NoteError("the verifier key's id does not belong to it: a character may be wrong")
        return key

    @classmethod
    def of(cls, name: str, public_key: bytes) -> VerifierKey:
        """The key with this name and these 32 bytes."""
        return cls(name, key_id_of(name, public_key), public_key)

    def __str__(self) -> str:
        """The key as it is published."""
        return f"{self.name}+{self.key_id.hex()}+{_base64(_SIGNATURE_TYPE + self.public_key)}"

    def verifies(self, text: str, signature: bytes) -> bool:
        """Whether the signature is this key's over the text."""
        try:
            VerifyKey(self.public_key).verify(text.encode(), signature)
        except (CryptoError, ValueError):
            return False
        return True


class CheckpointSigner:
    """The private key that checkpoints are signed with.

    Args:
        name: of the log; becomes the key's name.

    Raises:
        NoteError: a key can't have this name.
    """

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        if not _NAME.fullmatch(name) or _CONTROL.search(name):
            raise NoteError("a log's name has no spaces and no plus signs")
        self.name = name
        self._key = key
        self._verifier_key = VerifierKey.of(name, key.public_key().public_bytes_raw())
        self._prefix = f"\u2014 {name} "

    @property
    def verifier_key(self) -> str:
        """The public key, as it is published."""
        return str(self._verifier_key)

    def origin_of(self, tenant_id: str) -> str:
        """What the checkpoints of a tenant's tree begin with."""
        return f"{self.name}/{tenant_id}"

    def sign(self, origin: str, tree_size: int, root: bytes) -> str:
        """The checkpoint of a tree as a signed note."""
        text = f"{origin}\n{tree_size}\n{_base64(root)}\n"
        signature = self._verifier_key.key_id + self._key.sign(text.encode())
        return f"{text}\n{self._prefix}{_base64(signature)}\n"


def key_id_of(name: str, public_key: bytes) -> bytes:
    """The first four bytes of the hash of name, line feed, signature type and key."""
    return sha256(name.encode() + b"\n" + _SIGNATURE_TYPE + public_key).digest()[:_KEY_ID_BYTES]


def verify_note(note: str, verifier_keys: Iterable[VerifierKey | str]) -> Head:
    """What a checkpoint says, once a known key's signature on it is found right. Unknown keys' signatures are ignored.

    Raises:
        NoteError: it is no checkpoint, a known key's signature is wrong, or no known key has signed it.
    """
    text, signatures = _split_note(note)
    keys = [key if isinstance(key, VerifierKey) else VerifierKey.parse(key) for key in verifier_keys]
    known = {(key.name, key.key_id): key for key in keys}
    signers: list[VerifierKey] = []
    for name, data in signatures:
        key = known.get((name, data[:_KEY_ID_BYTES]))
        if key is None:
            continue
        if not key.verifies(text, data[_KEY_ID_BYTES:]):
            raise NoteError(f"the signature of {name} is wrong")
        signers.append(key)
    if not signers:
        raise NoteError("no known key has signed the note")
    head = _parse_text(text)
    if not any(head.origin == key.name or head.origin.startswith(f"{key.name}/") for key in signers):
        raise NoteError("the note's origin is not one that its key signs for")
    return head


def read_head(note: str) -> Head:
    """What a checkpoint says, whoever signed it.

    Raises:
        NoteError: it is no checkpoint.
    """
    return _parse_text(_split_note(note)[0])


def _split_note(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """The text that is signed, and the signatures: name, and key id with signature."""
    text, blank, lines = note.rpartition("\n\n")
    if len(note) > _NOTE_MAX_CHARACTERS or not blank or not lines.endswith("\n") or _CONTROL.search(note):
        raise NoteError("this is no signed note")
    signatures = []
    for line in lines[:-1].split("\n"):
        match = _SIGNATURE_LINE.fullmatch(line)
        if match is None:
            raise NoteError("a line of the note's signatures is none")
        try:
            data = base64.b64decode(match[2], validate=True)
        except binascii.Error:
            raise NoteError("a signature of the note is not base64") from None
        signatures.append((match[1], data))
    if len(signatures) > _SIGNATURES_MAX:
        raise NoteError("the note has too many signatures")
    return text + "\n", signatures


def _parse_text(text: str) -> Head:
    lines = text[:-1].split("\n")
    if len(lines) < _CHECKPOINT_LINES or not all(lines) or not _SIZE.fullmatch(lines[1]):
        raise NoteError("the note is no checkpoint: it needs an origin, a size and a root")
    try:
        root_hash = base64.b64decode(lines[2], validate=True)
    except binascii.Error:
        root_hash = b""
    if len(root_hash) != HASH_BYTES:
        raise NoteError("the note is no checkpoint: its root is no hash")
    return Head(lines[0], int(lines[1]), root_hash)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
