"""What JSON a message accepts, told field by field.

The parser of the protobuf runtime stops at the first fault and puts the offending value in its message, which may be
a secret; it also takes "1_0" and 10.0 for an integer. So every request is checked here first, by checkers compiled
once from the descriptors. What passes is then built by the runtime. Where this is stricter than the proto3 mapping:
an integer is written without fraction or exponent (10.0 minor units is most likely a mistake for 10 major ones), no
name comes twice, and no text holds U+0000, which PostgreSQL can't store.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from mesh.errors import Violation

Json: TypeAlias = Any
Check: TypeAlias = Callable[[Json, str, list[Violation]], None]

DEPTH_MAX: Final = 64

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,59}")
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,19})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]{1,4})?")
_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_DURATION = re.compile(r"-?(\d{1,12})(\.\d{1,9})?s", re.ASCII)
_DURATION_MAX_SECONDS = 315_576_000_000
_FIELD_MASK = re.compile(r"([a-z][a-zA-Z0-9]*(\.[a-z][a-zA-Z0-9]*)*(,[a-z][a-zA-Z0-9]*(\.[a-z][a-zA-Z0-9]*)*)*)?")
_FLOAT_MAX = 3.4028234663852886e38
_RANGES: Final[Mapping[int, tuple[int, int]]] = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


class MessageShape:
    """The JSON object that one message accepts."""

    def __init__(self, descriptor: Descriptor, known: dict[str, MessageShape]) -> None:
        known[descriptor.full_name] = self
        self._fields: dict[str, tuple[str, str, Check]] = {}
        for field in descriptor.fields:
            check = _check_of(field, known)
            oneof = field.containing_oneof.name if field.containing_oneof else ""
            for name in (field.name, field.json_name):
                self._fields[name] = (field.name, oneof, check)
        self._names = [field.json_name for field in descriptor.fields]

    def check(self, value: Json, path: str, found: list[Violation]) -> None:
        """Appends a violation to `found` for everything in `value` that does not fit."""
        if not isinstance(value, dict):
            found.append(Violation(path or "body", f"must be an object, not {_kind(value)}"))
            return
        seen: set[str] = set()
        prefix = f"{path}." if path else ""
        for key, item in value.items():
            entry = self._fields.get(key)
            if entry is None:
                found.append(Violation(prefix + _shown(key), self._unknown(key)))
                continue
            name, oneof, check = entry
            if name in seen:
                found.append(Violation(prefix + name, "is given twice, by both of its names: send one"))
            seen.add(name)
            if item is None:
                continue
            if oneof and oneof in seen:
                found.append(Violation(prefix + name, f"comes with another field of {oneof}: send one"))
            if oneof:
                seen.add(oneof)
            check(item, prefix + name, found)

    def _unknown(self, key: str) -> str:
        near = difflib.get_close_matches(key[:100], self._names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the fields are {', '.join(self._names) or 'none'}"
        return f"is not a field here: {hint}"


def shape_of(descriptor: Descriptor, known: dict[str, MessageShape]) -> MessageShape:
    """The shape of a message, made once and kept in `known`."""
    return known.get(descriptor.full_name) or MessageShape(descriptor, known)


def is_map(field: FieldDescriptor) -> bool:
    """Whether a field is a map."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _check_of(field: FieldDescriptor, known: dict[str, MessageShape]) -> Check:
    entry = field.message_type
    if entry is not None and is_map(field):
        key = entry.fields_by_name["key"]
        # Names in JSON are texts: an integer's check takes one, a boolean's does not.
        check_key = _check_bool_name if key.cpp_type == FieldDescriptor.CPPTYPE_BOOL else _scalar_check(key)
        return _map_check(check_key, _single_check(entry.fields_by_name["value"], known))
    single = _single_check(field, known)
    return _list_check(single) if field.is_repeated else single


def _single_check(field: FieldDescriptor, known: dict[str, MessageShape]) -> Check:
    message = field.message_type
    if message is None:
        return _scalar_check(field)
    if message.full_name in _WELL_KNOWN:
        return _WELL_KNOWN[message.full_name]
    if message.file.name == "google/protobuf/wrappers.proto":
        return _scalar_check(message.fields_by_name["value"])
    if message.full_name == "google.protobuf.Any":
        raise ValueError(f"{field.full_name} is an Any, which a request over REST can't hold")
    return shape_of(message, known).check


def _scalar_check(field: FieldDescriptor) -> Check:
    kind = field.cpp_type
    if kind in _RANGES:
        return _integer_check(*_RANGES[kind])
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return _number_check(_FLOAT_MAX if kind == FieldDescriptor.CPPTYPE_FLOAT else math.inf)
    if field.enum_type is not None:
        return _enum_check(field.enum_type)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return _check_bool
    return _check_bytes if field.type == FieldDescriptor.TYPE_BYTES else _check_text


def _integer_check(lowest: int, highest: int) -> Check:
    def check(value: Json, path: str, found: list[Violation]) -> None:
        if isinstance(value, str) and _INTEGER.fullmatch(value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            named = isinstance(value, float | str)
            what = "written with digits only: no fraction, no exponent" if named else f"not {_kind(value)}"
            found.append(Violation(path, f"must be a whole number, {what}"))
        elif not lowest <= value <= highest:
            found.append(Violation(path, f"is out of range: from {lowest} to {highest}"))

    return check


def _number_check(largest: float) -> Check:
    def check(value: Json, path: str, found: list[Violation]) -> None:
        if value in ("NaN", "Infinity", "-Infinity"):
            return
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            found.append(Violation(path, f"must be a number, not {_kind(value)}"))
        elif abs(value) > largest or (isinstance(value, float) and math.isinf(value)) or abs(value) > _DOUBLE_MAX:
            found.append(Violation(path, "is out of range"))

    return check


_DOUBLE_MAX = 2**1024 - 2**970


def _enum_check(enum: EnumDescriptor) -> Check:
    names = frozenset(enum.values_by_name)
    listed = ", ".join(enum.values_by_name)

    def check(value: Json, path: str, found: list[Violation]) -> None:
        if isinstance(value, str):
            if value not in names:
                found.append(Violation(path, f"must be one of {listed}"))
        elif isinstance(value, bool) or not isinstance(value, int):
            found.append(Violation(path, f"must be the name of a value, not {_kind(value)}: one of {listed}"))
        elif not -(2**31) <= value < 2**31:
            found.append(Violation(path, f"is out of range: one of {listed}"))

    return check


def _check_bool(value: Json, path: str, found: list[Violation]) -> None:
    if not isinstance(value, bool):
        found.append(Violation(path, f"must be true or false, not {_kind(value)}"))


def _check_bool_name(value: Json, path: str, found: list[Violation]) -> None:
    if value not in ("true", "false"):
        found.append(Violation(path, "must be true or false"))


def _check_text(value: Json, path: str, found: list[Violation]) -> None:
    if not isinstance(value, str):
        found.append(Violation(path, f"must be a text, not {_kind(value)}"))
    else:
        fault = _fault_of_text(value)
        if fault:
            found.append(Violation(path, fault))


def _fault_of_text(value: str) -> str:
    if "\0" in value:
        return "holds the character U+0000, which can't be stored"
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        return "holds half of a surrogate pair, which is not a character"
    return ""


def _check_bytes(value: Json, path: str, found: list[Violation]) -> None:
    if isinstance(value, str):
        try:
            standard = value.replace("-", "+").replace("_", "/").rstrip("=")
            base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
        except (binascii.Error, ValueError):
            found.append(Violation(path, "must be base64"))
    else:
        found.append(Violation(path, f"must be base64 text, not {_kind(value)}"))


def _list_check(single: Check) -> Check:
    def check(value: Json, path: str, found: list[Violation]) -> None:
        if not isinstance(value, list):
            found.append(Violation(path, f"must be a list, not {_kind(value)}"))
            return
        for index, item in enumerate(value):
            single(item, f"{path}[{index}]", found)

    return check


def _map_check(check_key: Check, check_value: Check) -> Check:
    def check(value: Json, path: str, found: list[Violation]) -> None:
        if not isinstance(value, dict):
            found.append(Violation(path, f"must be an object, not {_kind(value)}"))
            return
        for key, item in value.items():
            check_key(key, path, found)
            check_value(item, f"{path}[{_shown(key)}]", found)

    return check


def _check_timestamp(value: Json, path: str, found: list[Violation]) -> None:
    if not isinstance(value, str):
        found.append(Violation(path, f"must be a time as text, not {_kind(value)}"))
        return
    parts = _TIMESTAMP.fullmatch(value)
    if parts is None or not _exists(parts[1] + parts[3].replace("Z", "+00:00")):
        found.append(Violation(path, 'must be an RFC 3339 time with its zone, such as "2026-11-21T09:30:00Z"'))


def _exists(moment: str) -> bool:
    try:
        datetime.fromisoformat(moment).astimezone(UTC)
    except (ValueError, OverflowError):
        return False
    return True


def _check_duration(value: Json, path: str, found: list[Violation]) -> None:
    parts = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if parts is None or int(parts[1]) > _DURATION_MAX_SECONDS:
        found.append(Violation(path, 'must be seconds with an "s", such as "2.5s"'))


def _check_field_mask(value: Json, path: str, found: list[Violation]) -> None:
    if not isinstance(value, str) or not _FIELD_MASK.fullmatch(value):
        found.append(Violation(path, 'must be field names in lowerCamelCase divided by commas, such as "displayName"'))


def _check_any_json(value: Json, path: str, found: list[Violation]) -> None:
    waiting = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if depth > DEPTH_MAX:
            found.append(Violation(path, f"is nested more than {DEPTH_MAX} deep"))
            return
        texts = [item] if isinstance(item, str) else list(item) if isinstance(item, dict) else []
        for text in texts:
            fault = _fault_of_text(text)
            if fault:
                found.append(Violation(path, fault))
                return
        if isinstance(item, float | int) and not isinstance(item, bool) and abs(item) > _DOUBLE_MAX:
            found.append(Violation(path, "holds a number that is out of range"))
            return
        children = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        waiting.extend((child, depth + 1) for child in children)


def _check_struct(value: Json, path: str, found: list[Violation]) -> None:
    if isinstance(value, dict):
        _check_any_json(value, path, found)
    else:
        found.append(Violation(path, f"must be an object, not {_kind(value)}"))


_WELL_KNOWN: Final[Mapping[str, Check]] = {
    "google.protobuf.Timestamp": _check_timestamp,
    "google.protobuf.Duration": _check_duration,
    "google.protobuf.FieldMask": _check_field_mask,
    "google.protobuf.Struct": _check_struct,
    "google.protobuf.Value": _check_any_json,
    "google.protobuf.ListValue": _list_check(_check_any_json),
}


def _kind(value: Json) -> str:
    """The kind of a JSON value, for people. Never the value: it may be a secret."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    names: Mapping[type, str] = {str: "a text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names[type(value)]


def _shown(key: str) -> str:
    """A name as the caller wrote it; what is no name may be a value in the wrong place, and is not repeated."""
    return key if _NAME.fullmatch(key) else "(not a name)"
