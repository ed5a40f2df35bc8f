"""Example values for the documents, from what the contracts say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_UUID = "0b9f6c1e-8a53-4f5e-9d37-2f1f6a3c7d10"
_FORMATS: Mapping[str, str] = {
    "uuid": _UUID,
    "email": "ama@example.com",
    "uri": "https://example.com/return",
    "int64": "1000",
    "uint64": "1000",
    "date-time": "2026-11-21T09:30:00Z",
}
_KINDS: Mapping[str, Any] = {"boolean": True, "integer": 1}
_QUOTED = re.compile(r'"([^"\s]{1,60})"')
_PIECE = re.compile(r"\\(.)|\[((?!\^)(?:\\.|[^\]\\])+)\]|\(([^()|]*)\)|([^\\\[\](){}*+?|^$.])")
_QUANTIFIER = re.compile(r"\{(\d+)(?:,\d*)?\}|[*+?]")


def example_of(schema: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a JSON value
    """An example that fits a scalar schema: from its comment when that names one, otherwise made to its rules."""
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    if str(schema.get("type")) in _KINDS:
        return _KINDS[str(schema["type"])]
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    return _text_for(schema)


def _text_for(schema: Mapping[str, Any]) -> str:
    pattern: str | None = schema.get("pattern")
    for quoted in _QUOTED.findall(schema.get("description", "")):
        if "..." not in quoted and (pattern is None or re.search(pattern, quoted)):
            return str(quoted)
    return "text" if pattern is None else _match_for(pattern)


def _match_for(pattern: str) -> str:
    """A text that matches a simple pattern; the pattern itself when it is beyond this."""
    made = _shortest(pattern.removeprefix("^$|").removeprefix("^").removesuffix("$"))
    return made if re.search(pattern, made) else pattern


def _shortest(plain: str) -> str:
    """The shortest text for literals, classes, counts and groups; what it does not know ends it."""
    made, position = "", 0
    while position < len(plain):
        piece = _PIECE.match(plain, position)
        if piece is None:
            break
        position = piece.end()
        escaped, members, group, literal = piece.groups()
        unit = escaped or literal or (members or "").replace("\\", "")[:1] or _shortest(group or "")
        quantifier = _QUANTIFIER.match(plain, position)
        if quantifier is None:
            made += unit
            continue
        position = quantifier.end()
        made += unit * (int(quantifier[1]) if quantifier[1] else 0 if quantifier[0] in "*?" else 1)
    return made
