"""Hypothesis strategies for any message of the contracts, and for JSON that nearly fits one."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    field_mask_pb2,
    struct_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st

from gateway.shapes import is_map

_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
# The range of google.protobuf.Timestamp: years 1 to 9999.
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799

Build = Callable[[Message], None]


_SCALARS = "double float int64 uint64 int32 fixed64 fixed32 bool string bytes uint32 sfixed32 sint64"
_WELL_KNOWN = (duration_pb2.Duration, field_mask_pb2.FieldMask, struct_pb2.Struct, struct_pb2.Value)
_MORE_WELL_KNOWN = (struct_pb2.ListValue, wrappers_pb2.Int64Value)


def all_kinds() -> Descriptor:
    """A message with a field of every kind, as later contracts may have: test.gateway.Kinds."""
    pool = descriptor_pool.Default()
    proto = descriptor_pb2.FieldDescriptorProto
    well_known = [kind.DESCRIPTOR for kind in (*_WELL_KNOWN, *_MORE_WELL_KNOWN)]
    file = descriptor_pb2.FileDescriptorProto(name="test/kinds.proto", package="test.gateway", syntax="proto3")
    file.dependency.extend(sorted({descriptor.file.name for descriptor in well_known}))
    message = file.message_type.add(name="Kinds")

    def add(name: str, kind: str, type_name: str = "") -> None:
        number = len(message.field) + 1
        field = message.field.add(name=name, number=number, label=proto.LABEL_OPTIONAL, type_name=type_name or None)
        field.type = proto.Type.Value(f"TYPE_{kind.upper()}")

    for scalar in _SCALARS.split():
        add(f"one_{scalar}", scalar)
    for descriptor in well_known:
        add(f"well_known_{descriptor.name.lower()}", "message", f".{descriptor.full_name}")
    add("itself", "message", ".test.gateway.Kinds")
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindMessageTypeByName("test.gateway.Kinds")


def texts() -> st.SearchStrategy[str]:
    """Texts that PostgreSQL can hold: any characters but U+0000."""
    return st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@cache
def messages(descriptor: Descriptor) -> st.SearchStrategy[Message]:
    """Messages with any subset of their fields set."""

    def build(setters: list[Build]) -> Message:
        message = GetMessageClass(descriptor)()
        for setter in setters:
            setter(message)
        return message

    return st.tuples(*(_setter(field) for field in descriptor.fields)).map(list).map(build)


@cache
def any_json() -> st.SearchStrategy[Any]:
    """Any JSON value."""
    scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts()
    return st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(), inner, max_size=3), max_leaves=8
    )


@cache
def near_json(descriptor: Descriptor, depth: int = 3) -> st.SearchStrategy[Any]:
    """JSON objects whose names mostly fit a message, and whose values often do not."""
    fields = {}
    for field in descriptor.fields:
        inner = _near_value(field, depth) | any_json()
        name = st.sampled_from(sorted({field.name, field.json_name}))
        fields[field.name] = st.none() | st.tuples(name, inner)
    extras = st.dictionaries(texts(), any_json(), max_size=1)
    known = st.fixed_dictionaries(fields).map(lambda made: dict(pair for pair in made.values() if pair is not None))
    return st.tuples(known, extras).map(lambda both: {**both[1], **both[0]})


def _near_value(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    message, enum = field.message_type, field.enum_type
    if message is not None and is_map(field):
        return st.dictionaries(texts(), texts() | any_json(), max_size=2)
    if message is not None and message.full_name == Timestamp.DESCRIPTOR.full_name:
        value: st.SearchStrategy[Any] = st.datetimes().map(lambda moment: moment.isoformat() + "Z") | texts()
    elif message is not None:
        value = near_json(message, depth - 1) if depth > 0 else st.just({})
    elif enum is not None:
        value = st.sampled_from(sorted(enum.values_by_name)) | st.integers(-5, 2**31)
    elif field.cpp_type in _RANGES:
        value = st.integers(-(2**65), 2**65).flatmap(lambda number: st.sampled_from([number, str(number)]))
    else:
        value = texts()
    return st.lists(value, max_size=2) if field.is_repeated else value


def _setter(field: FieldDescriptor) -> st.SearchStrategy[Build]:
    message = field.message_type
    if message is not None and is_map(field):
        entries = st.dictionaries(
            _scalars(message.fields_by_name["key"]), _scalars(message.fields_by_name["value"]), max_size=3
        )
        return entries.map(lambda values: lambda target: getattr(target, field.name).update(values))
    if field.is_repeated:
        return st.lists(_values(field), max_size=3).map(
            lambda values: lambda target: getattr(target, field.name).extend(values)
        )
    present = _values(field).map(lambda value: _set(field, value))
    return st.just(_leave) | present


def _set(field: FieldDescriptor, value: Any) -> Build:
    def setter(target: Message) -> None:
        if field.message_type is None:
            setattr(target, field.name, value)
        else:
            getattr(target, field.name).CopyFrom(value)

    return setter


def _leave(_target: Message) -> None:
    """Leaves a field unset."""


def _values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    message = field.message_type
    if message is None:
        return _scalars(field)
    if message.full_name == field_mask_pb2.FieldMask.DESCRIPTOR.full_name:
        # Other paths have no form in JSON.
        path = st.from_regex(r"[a-z]{1,5}(_[a-z]{1,5}){0,2}(\.[a-z]{1,5}){0,2}", fullmatch=True)
        return st.builds(field_mask_pb2.FieldMask, paths=st.lists(path, max_size=3))
    if message.full_name == Timestamp.DESCRIPTOR.full_name:
        return st.builds(Timestamp, seconds=st.integers(_FIRST_SECOND, _LAST_SECOND), nanos=st.integers(0, 999_999_999))
    return messages(message)


def _scalars(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    enum: EnumDescriptor | None = field.enum_type
    if enum is not None:
        # A service that is newer than the gateway may answer with a value that the gateway has no name for.
        return st.sampled_from(sorted(enum.values_by_number)) | st.integers(0, 2**31 - 1)
    if field.cpp_type in _RANGES:
        return st.integers(*_RANGES[field.cpp_type])
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        return st.floats()
    if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
        return st.floats(width=32)
    return st.binary(max_size=20) if field.type == FieldDescriptor.TYPE_BYTES else texts()
