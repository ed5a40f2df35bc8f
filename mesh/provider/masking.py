"""What a log may show of a body: its shape, and words that can't be personal."""

from __future__ import annotations

import json
import re
from typing import Any

# Fields whose values are words of the provider's own vocabulary.
_WORDS = frozenset({"status", "state", "code", "decline_code", "type", "object", "currency", "reason", "error"})
_WORD = re.compile(r"[A-Za-z_]{1,40}")
_FIELDS_MAX = 40
_DEPTH_MAX = 4


def shape_of(body: bytes) -> Any:  # noqa: ANN401 - any JSON shape
    """The shape of a JSON body, such as {"status": "PENDING", "amount": "str"}; the length of any other."""
    try:
        return _shape(json.loads(body), 0)
    except (ValueError, RecursionError):
        return f"{len(body)} bytes, not JSON"


def _shape(value: Any, depth: int, name: str = "") -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):
        if depth == _DEPTH_MAX:
            return "dict"
        # Keys of our own metadata objects are ours; a provider's keys are its schema.
        return {str(key)[:60]: _shape(inner, depth + 1, str(key)) for key, inner in list(value.items())[:_FIELDS_MAX]}
    if isinstance(value, list):
        return [_shape(value[0], depth + 1, name)] if value and depth < _DEPTH_MAX else "list"
    if isinstance(value, str) and name in _WORDS and _WORD.fullmatch(value):
        return value
    return type(value).__name__
