"""JSON Schema (2020-12, as OpenAPI 3.1 uses it) of the contracts' messages, with their buf.validate rules."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final, TypeAlias

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, OneofDescriptor

from gateway.examples import example_of
from gateway.shapes import is_map

Schema: TypeAlias = dict[str, Any]

_WELL_KNOWN: Final[Mapping[str, Schema]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time", "examples": ["2026-11-21T09:30:00Z"]},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$", "examples": ["2.5s"]},
    "google.protobuf.FieldMask": {
        "type": "string",
        "description": "Field names in lowerCamelCase, by commas.",
        "examples": ["displayName"],
    },
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Value": {},
    "google.protobuf.ListValue": {"type": "array"},
}
_SCALARS: Final[Mapping[int, Schema]] = {
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    # The proto3 mapping writes 64-bit integers as texts, because JavaScript's numbers end at 53 bits; it reads both.
    FieldDescriptor.CPPTYPE_INT64: {"type": ["string", "integer"], "format": "int64", "pattern": "^-?[0-9]{1,19}$"},
    FieldDescriptor.CPPTYPE_UINT64: {"type": ["string", "integer"], "format": "uint64", "pattern": "^[0-9]{1,20}$"},
    FieldDescriptor.CPPTYPE_DOUBLE: {"type": ["number", "string"], "format": "double"},
    FieldDescriptor.CPPTYPE_FLOAT: {"type": ["number", "string"], "format": "float"},
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_STRING: {"type": "string"},
}
_KEYWORDS: Final[Mapping[str, str]] = {
    "min_len": "minLength",
    "max_len": "maxLength",
    "pattern": "pattern",
    "const": "const",
    "gt": "exclusiveMinimum",
    "gte": "minimum",
    "lt": "exclusiveMaximum",
    "lte": "maximum",
    "min_items": "minItems",
    "max_items": "maxItems",
    "unique": "uniqueItems",
    "min_pairs": "minProperties",
    "max_pairs": "maxProperties",
}
_FORMATS: Final[Mapping[str, str]] = {
    "email": "email",
    "hostname": "hostname",
    "ipv4": "ipv4",
    "ipv6": "ipv6",
    "uri": "uri",
    "uri_ref": "uri-reference",
    "uuid": "uuid",
}
_MOMENTS: Final[Mapping[str, str]] = {"gt_now": "Must be in the future.", "lt_now": "Must be in the past."}
_IGNORE_IF_ZERO: Final = 1


class Schemas:
    """Collects the schemas of messages as they are referred to."""

    def __init__(self, comments: Mapping[str, str]) -> None:
        self.components: dict[str, Schema] = {}
        self._comments = comments
        # These extensions have no stubs: their types exist at run time only.
        self._field_rules: Any = descriptor_pool.Default().FindExtensionByName("buf.validate.field")
        self._oneof_rules: Any = descriptor_pool.Default().FindExtensionByName("buf.validate.oneof")

    def comment(self, full_name: str) -> str:
        """The comment of anything in the contracts, or an empty text."""
        return self._comments.get(full_name, "")

    def reference(self, message: Descriptor) -> Schema:
        """A reference to a message's schema, which is made when it is new."""
        name = component_name(message.full_name)
        if name not in self.components:
            # Entered before it is filled, so that a message may hold itself.
            self.components[name] = {}
            self.components[name].update(self.message(message))
        return {"$ref": f"#/components/schemas/{name}"}

    def message(self, message: Descriptor, *, without: Collection[str] = ()) -> Schema:
        """The schema of a message, except for some of its fields."""
        fields = [field for field in message.fields if field.name not in without]
        schema: Schema = {"type": "object", "title": message.name}
        if text := self.comment(message.full_name):
            schema["description"] = text
        schema["properties"] = {field.json_name: self.field(field) for field in fields}
        if required := [field.json_name for field in fields if self.is_required(field)]:
            schema["required"] = required
        choices = [self._choice(oneof) for oneof in message.oneofs if self._must_choose(oneof)]
        if len(choices) == 1:
            schema["oneOf"] = choices[0]
        elif choices:
            schema["allOf"] = [{"oneOf": choice} for choice in choices]
        return schema

    def field(self, field: FieldDescriptor) -> Schema:
        """The schema of one field with its rules, its comment and an example."""
        rules = self._rules(field)
        entry = field.message_type
        if entry is not None and is_map(field):
            value = entry.fields_by_name["value"]
            schema: Schema = {"type": "object", "additionalProperties": self._single(value)}
            _apply_field_rules(schema["additionalProperties"], rules.map.values, value)
            if rules.map.HasField("keys"):
                schema["propertyNames"] = {}
                _apply_field_rules(schema["propertyNames"], rules.map.keys, entry.fields_by_name["key"])
            _apply(schema, rules.map)
        elif field.is_repeated:
            items = self._single(field)
            _apply_field_rules(items, rules.repeated.items, field)
            schema = {"type": "array", "items": items}
            _apply(schema, rules.repeated)
        else:
            schema = self._single(field)
            _apply_field_rules(schema, rules, field)
        self._describe(schema, field, [rule.message for rule in rules.cel if rule.message])
        return schema

    def is_required(self, field: FieldDescriptor) -> bool:
        """Whether a request without the field is refused. A request_id may come as a header instead."""
        rules = self._rules(field)
        if rules.required:
            return True
        if rules.ignore == _IGNORE_IF_ZERO or field.has_presence or field.name == "request_id":
            return False
        if field.is_repeated:
            return bool(rules.repeated.min_items or rules.map.min_pairs)
        text = rules.string
        return (
            text.min_len > 0
            or any(getattr(text, name) for name in _FORMATS)
            or (text.HasField("pattern") and re.search(text.pattern, "") is None)
            or (text.HasField("const") and text.const != "")
            or 0 in rules.enum.not_in
        )

    def sample(
        self, message: Descriptor, *, without: Collection[str] = (), whole: bool = False, turn: int = 0
    ) -> dict[str, Any]:
        """A small JSON value that a request accepts, for a curl line.

        Args:
            message: what to fill.
            without: fields that stay away.
            whole: whether fields without any rule belong to it too, as the amount of a Money does.
            turn: place in a list; enums take their values in turn, so that two legs are a debit and a credit.
        """
        value: dict[str, Any] = {}
        chosen = {oneof.fields[0].name for oneof in message.oneofs if self._must_choose(oneof)}
        for field in message.fields:
            unruled = whole and field.message_type is None and not field.GetOptions().HasExtension(self._field_rules)
            if field.name not in without and (self.is_required(field) or field.name in chosen or unruled):
                value[field.json_name] = self._sample_field(field, turn)
        return value

    def _sample_field(self, field: FieldDescriptor, turn: int) -> Any:  # noqa: ANN401 - a JSON value
        if field.message_type is not None and is_map(field):
            return {}
        if field.is_repeated:
            count = max(1, self.field(field).get("minItems", 1))
            return [self._sample_value(field, index) for index in range(count)]
        return self._sample_value(field, turn)

    def _sample_value(self, field: FieldDescriptor, turn: int) -> Any:  # noqa: ANN401 - a JSON value
        message, schema = field.message_type, self.field(field)
        if message is not None and message.full_name not in _WELL_KNOWN:
            return self.sample(message, whole=True, turn=turn)
        if field.enum_type is not None:
            excluded = schema.get("not", {}).get("enum", [])
            names = [value.name for value in field.enum_type.values if value.name not in excluded]
            return names[turn % len(names)]
        return schema.get("items", schema).get("examples", ["text"])[0]

    def _rules(self, field: FieldDescriptor) -> Any:  # noqa: ANN401 - buf.validate.FieldRules exists at run time only
        return field.GetOptions().Extensions[self._field_rules]

    def _must_choose(self, oneof: OneofDescriptor) -> bool:
        return bool(oneof.GetOptions().Extensions[self._oneof_rules].required)

    @staticmethod
    def _choice(oneof: OneofDescriptor) -> list[Schema]:
        return [{"required": [field.json_name]} for field in oneof.fields]

    def _single(self, field: FieldDescriptor) -> Schema:
        message, enum = field.message_type, field.enum_type
        if enum is not None:
            return self._enum_reference(enum)
        if message is None:
            if field.type == FieldDescriptor.TYPE_BYTES:
                return {"type": "string", "contentEncoding": "base64"}
            return dict(_SCALARS[field.cpp_type])
        if message.full_name in _WELL_KNOWN:
            return dict(_WELL_KNOWN[message.full_name])
        if message.file.name == "google/protobuf/wrappers.proto":
            return self._single(message.fields_by_name["value"])
        return self.reference(message)

    def _enum_reference(self, enum: EnumDescriptor) -> Schema:
        name = component_name(enum.full_name)
        # Comments of enum values are filed beside their enum, as their full names are scoped in protobuf.
        scope = enum.full_name.rpartition(".")[0]
        values = {value.name: self.comment(f"{scope}.{value.name}") for value in enum.values}
        lines = [self.comment(enum.full_name), *(f"- `{key}`: {text}" for key, text in values.items() if text)]
        self.components[name] = {"type": "string", "title": enum.name, "enum": list(values)}
        if text := "\n".join(line for line in lines if line):
            self.components[name]["description"] = text
        return {"$ref": f"#/components/schemas/{name}"}

    def _describe(self, schema: Schema, field: FieldDescriptor, messages: list[str]) -> None:
        parts = [self.comment(field.full_name), schema.pop("description", ""), *(f"Rule: {text}." for text in messages)]
        if text := " ".join(part for part in parts if part):
            schema["description"] = text
        target = schema.get("items", schema)
        if "$ref" not in target and "examples" not in target and target.get("type") not in ("array", "object"):
            target["examples"] = [example_of({"description": schema.get("description", ""), **target})]


def component_name(full_name: str) -> str:
    """Name of a message or an enum in the document: "payments.v1.Payment"."""
    return full_name.removeprefix("kente.")


def _apply_field_rules(schema: Schema, rules: Any, field: FieldDescriptor) -> None:  # noqa: ANN401 - see Schemas._rules
    """Adds the rules of one value."""
    kind: str | None = rules.WhichOneof("type")
    if kind is None or kind in ("map", "repeated"):
        return
    _apply(schema, getattr(rules, kind))
    if field.enum_type is not None:
        # $ref may stand beside other keywords in JSON Schema 2020-12.
        excluded = [value.name for value in field.enum_type.values if value.number in rules.enum.not_in]
        if excluded:
            schema["not"] = {"enum": excluded}
    if rules.ignore == _IGNORE_IF_ZERO:
        schema.pop("minLength", None)
        if "pattern" in schema:
            schema["pattern"] = f"^$|{schema['pattern']}"


def _apply(schema: Schema, rules: Any) -> None:  # noqa: ANN401 - see Schemas._rules
    """Adds the rules of one type that JSON Schema has a word for."""
    for descriptor, value in rules.ListFields():
        name = descriptor.name
        if name in _KEYWORDS:
            schema[_KEYWORDS[name]] = value
        elif name in _FORMATS and value is True:
            schema["format"] = _FORMATS[name]
        elif name == "in" and "$ref" not in schema:
            schema["enum"] = list(value)
        elif name in _MOMENTS and value is True:
            schema["description"] = _MOMENTS[name]
