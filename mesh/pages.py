"""Pagination by key (AIP-158): a page token remembers where the page ended and which list it belongs to."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping

from mesh.errors import Problem, Reason

DEFAULT_SIZE = 50
MAX_SIZE = 200


def page_size(requested: int) -> int:
    """How many items to return: 0 means the default, too many means the most."""
    return min(requested or DEFAULT_SIZE, MAX_SIZE)


def encode_page_token(position: Mapping[str, str | int], arguments: Mapping[str, str | int]) -> str:
    """A token for the page after `position`.

    Args:
        position: key of the last item given.
        arguments: the other arguments of the list; the next call must have the same.
    """
    text = json.dumps({"after": dict(position), "of": _fingerprint(arguments)}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_page_token(token: str, arguments: Mapping[str, str | int]) -> dict[str, str | int] | None:
    """The position that a token stands for; None for the first page.

    Raises:
        Problem: PAGE_TOKEN_INVALID.
    """
    if not token:
        return None
    try:
        document = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        position, fingerprint = document["after"], document["of"]
    except (ValueError, KeyError, TypeError):
        raise Problem(Reason.PAGE_TOKEN_INVALID, "page_token was not made by this list") from None
    if fingerprint != _fingerprint(arguments):
        raise Problem(Reason.PAGE_TOKEN_INVALID, "page_token belongs to a list with other arguments")
    if not isinstance(position, dict) or not all(_is_key(value) for value in position.values()):
        raise Problem(Reason.PAGE_TOKEN_INVALID, "page_token was not made by this list")
    return position


def _is_key(value: object) -> bool:
    """Whether PostgreSQL can compare with it: a caller may have made the token up."""
    if isinstance(value, str):
        return value.isprintable()
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _fingerprint(arguments: Mapping[str, str | int]) -> str:
    return hashlib.sha256(json.dumps(dict(arguments), sort_keys=True).encode()).hexdigest()[:12]
