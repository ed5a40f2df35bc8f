"""JSON to messages and back, by the proto3 JSON mapping.

Bytes in, bytes out: a message is built and printed by the `protobuf` runtime that protovalidate stands on, which is
written in Rust and does both about six times as fast as google.protobuf.json_format with the same result
(tests/gateway holds the two against each other). What a caller did wrong is told by gateway.shapes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FileDescriptor
from protobuf import Message, Registry, message_from_json_value, message_to_json_value
from protobuf.wkt import FileDescriptorSet

from gateway.shapes import Json, MessageShape, shape_of
from mesh.errors import Problem, Reason, Violation


class Transcoder:
    """Translates the messages of a set of files.

    Messages are named by their full name, such as "kente.payments.v1.CreatePaymentRequest".
    """

    def __init__(self, files: Iterable[FileDescriptor]) -> None:
        self._registry = _registry_of(files)
        self._shapes: dict[str, MessageShape] = {}
        self._types: dict[str, type[Message]] = {}

    def prepare(self, request: Descriptor, response: Descriptor) -> None:
        """Compiles what a call needs, so that the first call is not slower than the rest."""
        shape_of(request, self._shapes)
        self._type(request.full_name)
        self._type(response.full_name)

    def encode(self, descriptor: Descriptor, value: Json) -> bytes:
        """A JSON object as the bytes of a message.

        Raises:
            Problem: BODY_MALFORMED, with a violation for each field that does not fit.
        """
        found: list[Violation] = []
        try:
            shape_of(descriptor, self._shapes).check(value, "", found)
            if not found:
                return message_from_json_value(self._type(descriptor.full_name), value).to_binary()
        except (ValueError, TypeError, OverflowError, RecursionError):
            # The runtime's own text may hold the value, so it is not shown.
            found = [Violation("body", f"does not fit {descriptor.name}")]
        raise Problem(Reason.BODY_MALFORMED, _summary(found), violations=found)

    def decode(self, descriptor: Descriptor, data: bytes, only_field: str = "") -> str:
        """A message as compact JSON. Fields without presence are written also when they are empty.

        Args:
            descriptor: type of the message.
            data: the message as it came.
            only_field: name of the one field to write, as a google.api.http rule's response_body says.
        """
        message = self._type(descriptor.full_name).from_binary(data)
        if not only_field:
            return message.to_json(registry=self._registry, always_emit_implicit=True)
        name = descriptor.fields_by_name[only_field].json_name
        whole = message_to_json_value(message, registry=self._registry, always_emit_implicit=True)
        part = whole.get(name) if isinstance(whole, dict) else None
        return json.dumps(part, ensure_ascii=False, separators=(",", ":"))

    def _type(self, full_name: str) -> type[Message]:
        known = self._types.get(full_name)
        if known is None:
            found = self._registry.message(full_name)
            if found is None:
                raise LookupError(f"no contract has the message {full_name}")
            known = self._types[full_name] = found.type
        return known


def parse(text: bytes) -> Json:
    """Reads a JSON text.

    Raises:
        Problem: BODY_MALFORMED when it is not JSON (RFC 8259), not UTF-8, or gives a name twice.
    """
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise Problem(Reason.BODY_MALFORMED, "the body is not UTF-8") from None
    except _DuplicateNameError as error:
        violations = [Violation(str(error), "is given twice in one object: send one")]
        raise Problem(Reason.BODY_MALFORMED, _summary(violations), violations=violations) from None
    except json.JSONDecodeError as error:
        detail = f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise Problem(Reason.BODY_MALFORMED, detail) from None
    except (ValueError, RecursionError):
        # A number of thousands of digits, or nesting of thousands of levels.
        raise Problem(Reason.BODY_MALFORMED, "the body holds a number or a nesting beyond all limits") from None


class _DuplicateNameError(Exception):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise _DuplicateNameError(name[:60])
    return unique


def _no_constant(name: str) -> float:
    raise json.JSONDecodeError(f"{name} is no JSON value", "", 0)


def _summary(found: list[Violation]) -> str:
    return "; ".join(f"{violation.field} {violation.description}" for violation in found[:5])


def _registry_of(files: Iterable[FileDescriptor]) -> Registry:
    collected: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    for file in files:
        _collect(file, collected)
    joined = descriptor_pb2.FileDescriptorSet(file=collected.values())
    return FileDescriptorSet.from_binary(joined.SerializeToString()).to_registry()


def _collect(file: FileDescriptor, collected: dict[str, descriptor_pb2.FileDescriptorProto]) -> None:
    """Adds a file after all that it imports."""
    if file.name in collected:
        return
    for dependency in file.dependencies:
        _collect(dependency, collected)
    proto = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(proto)
    _fill_json_names(proto.message_type, file.message_types_by_name)
    collected[file.name] = proto


def _fill_json_names(protos: Iterable[descriptor_pb2.DescriptorProto], descriptors: Mapping[str, Descriptor]) -> None:
    """Writes out the JSON names that google.protobuf derives but leaves away; the other runtime derives none."""
    for proto in protos:
        descriptor = descriptors[proto.name]
        for field in proto.field:
            field.json_name = descriptor.fields_by_name[field.name].json_name
        _fill_json_names(proto.nested_type, descriptor.nested_types_by_name)
