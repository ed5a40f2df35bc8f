"""Passwords and keys of one installation: made at its first start, kept in one file that only its owner can read."""

import base64
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from mesh.embedded.errors import StartError
from mesh.embedded.files import write_private
from mesh.embedded.layout import SERVICES, StateDir

_KEY_BYTES = 32  # AES-256


@dataclass(frozen=True, slots=True)
class InstallationKeys:
    """What the processes of one installation are given.

    Attributes:
        role_passwords: Database password of each service's role.
        connections_encryption_keys: What the connections service seals credentials with, as its setting wants it.
        request_hash_key: What stored fingerprints of requests are made with.
    """

    role_passwords: Mapping[str, str]
    connections_encryption_keys: str
    request_hash_key: str


def load_or_create(state: StateDir) -> InstallationKeys:
    """The installation's keys, made now if this is its first start.

    Raises:
        StartError: the file is gone or damaged while the data that needs it is there.
    """
    if not state.secrets_file.exists():
        if state.demo_file.exists() or (state.postgres / "PG_VERSION").exists():
            raise StartError(
                f"{state.secrets_file} is missing, and credentials in the database can't be opened without it: "
                f"restore it, or move {state.path} away to begin anew"
            )
        _create(state)
    try:
        document = json.loads(state.secrets_file.read_text())
        passwords = {name: str(document["role_passwords"][name]) for name in SERVICES}
        return InstallationKeys(
            passwords, str(document["connections_encryption_keys"]), str(document["request_hash_key"])
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StartError(
            f"{state.secrets_file} can't be read ({type(error).__name__}): "
            f"restore it, or move {state.path} away to begin anew"
        ) from error


def _create(state: StateDir) -> None:
    key = base64.urlsafe_b64encode(secrets.token_bytes(_KEY_BYTES)).decode()
    document = {
        "role_passwords": {name: secrets.token_urlsafe(24) for name in SERVICES},
        "connections_encryption_keys": f"key-1:{key}",
        "request_hash_key": secrets.token_urlsafe(_KEY_BYTES),
    }
    write_private(state.secrets_file, json.dumps(document, indent=2))
