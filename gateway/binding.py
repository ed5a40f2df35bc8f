"""Puts a request's parts together: the path, the query, the body and the headers become one JSON object.

Names may be those of the contract (page_size) or of JSON (pageSize); the object built here uses the contract's.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl, unquote_plus

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.contracts import Rpc
from gateway.problems import refuse
from gateway.routes import Match
from gateway.shapes import Json, is_map
from gateway.transcode import parse
from mesh.errors import Problem, Reason, Violation

JSON_TYPE = "application/json"
FORM_TYPE = "application/x-www-form-urlencoded"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,59}(\[[a-z0-9_.-]{0,64}\])?")
# An entry of a map, as OpenAPI's style "deepObject" writes it: metadata[order]=o-1.
_ENTRY = re.compile(r"([^\[\]]+)\[(.*)\]", re.DOTALL)
IDEMPOTENCY_HEADER = "idempotency-key"

_PAIRS_MAX = 200
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_AN_OBJECT = "an object: give its fields, such as name.field=value"
_WRAPPERS = "google/protobuf/wrappers.proto"


def bind(match: Match, query: bytes, headers: Mapping[str, str], body: bytes) -> Json:
    """The whole request as one JSON object.

    Args:
        match: the route, with the values from the path.
        query: the query string as it came.
        headers: with names in lower case.
        body: the body as it came.

    Raises:
        Problem: BODY_MALFORMED or FIELD_INVALID, naming the field.
        Refusal: 415 for a body of another content type.
    """
    route = match.route
    request = route.rpc.request
    value = _from_body(request, route.body, headers, body)
    if not isinstance(value, dict):
        # Told with the field's name by the check that every request goes through.
        return value
    found: list[Violation] = []
    if query:
        pairs = _pairs(query, "query")
        if route.body == "*" and pairs:
            found.extend(Violation(name[:60], "belongs in the body, not in the query") for name, _ in pairs)
        else:
            # What the body fills is not taken from the query, so nothing can be said twice.
            taken = {route.body, _json_name(request, route.body)} if route.body else set()
            doubled = {name for name, _ in pairs if _first_name(name) in taken}
            found.extend(Violation(name[:60], "belongs in the body, not in the query") for name in sorted(doubled))
            _add_pairs(request, value, [pair for pair in pairs if _first_name(pair[0]) not in taken], found)
    for field, text in match.values.items():
        _set_once(request, value, field, text, source="the address", found=found)
    _add_client_credentials(request, value, headers, found)
    if found:
        raise Problem(Reason.BODY_MALFORMED, _summary(found), violations=found)
    if route.rpc.is_write:
        _add_request_id(value, headers)
    return value


def require_request_id(rpc: Rpc, value: Json) -> None:
    """Refuses a write without a request_id: it could not be repeated safely.

    Raises:
        Problem: FIELD_INVALID.
    """
    if rpc.is_write and not (value.get("request_id") or value.get("requestId")):
        detail = (
            "is missing: send an Idempotency-Key header with a new UUID, so that the request can be repeated safely"
        )
        raise Problem(Reason.FIELD_INVALID, violations=[Violation("request_id", detail)])


def _from_body(request: Descriptor, target: str, headers: Mapping[str, str], body: bytes) -> Json:
    content_type = headers.get("content-type", "")
    if not target:
        if body.strip():
            detail = "this operation takes no body: its fields belong in the address, the query or the headers"
            raise Problem(Reason.BODY_MALFORMED, detail)
        return {}
    if not body:
        return {}
    kind, _, parameters = content_type.partition(";")
    kind = kind.strip().lower()
    charset = re.search(r'charset\s*=\s*"?([\w-]+)', parameters.lower())
    if kind not in (JSON_TYPE, FORM_TYPE) or (charset and charset[1] not in ("utf-8", "utf8", "us-ascii")):
        detail = f"the body must be {JSON_TYPE} in UTF-8"
        raise refuse(415, Reason.BODY_MALFORMED, detail, {"accept": f"{JSON_TYPE}, {FORM_TYPE}"})
    if kind == FORM_TYPE:
        if body.lstrip()[:1] in (b"{", b"["):
            # What curl -d sends when it is not told otherwise.
            detail = f"the body looks like JSON and is said to be a form: send the header Content-Type: {JSON_TYPE}"
            raise refuse(415, Reason.BODY_MALFORMED, detail, {"accept": f"{JSON_TYPE}, {FORM_TYPE}"})
        value: dict[str, Json] = {}
        found: list[Violation] = []
        _add_pairs(request, value, _pairs(body, "body"), found)
        if found:
            raise Problem(Reason.BODY_MALFORMED, _summary(found), violations=found)
        return value
    parsed = parse(body)
    return parsed if target == "*" else {target: parsed}


def _pairs(text: bytes, where: str) -> list[tuple[str, str]]:
    """Names and values of a query or a form."""
    try:
        if re.search(rb"%(?![0-9A-Fa-f]{2})", text):
            raise Problem(Reason.BODY_MALFORMED, f"the {where} is not percent-encoded as RFC 3986 says")
        return parse_qsl(
            text.decode("ascii"),
            keep_blank_values=True,
            encoding="utf-8",
            errors="strict",
            max_num_fields=_PAIRS_MAX,
        )
    except UnicodeError:
        raise Problem(Reason.BODY_MALFORMED, f"the {where} is not percent-encoded UTF-8") from None
    except ValueError:
        raise Problem(Reason.BODY_MALFORMED, f"the {where} holds more than {_PAIRS_MAX} values") from None


def _first_name(name: str) -> str:
    return re.split(r"[.\[]", name, maxsplit=1)[0]


def _add_pairs(
    request: Descriptor, value: dict[str, Json], pairs: Iterable[tuple[str, str]], found: list[Violation]
) -> None:
    for name, text in pairs:
        entry = _ENTRY.fullmatch(name)
        fields = _resolve(request, entry[1] if entry else name)
        if not fields or (entry and not is_map(fields[-1])):
            # What is no name may be a value in the wrong place, and values are not repeated.
            shown = name if _NAME.fullmatch(name) else "(not a name)"
            found.append(Violation(shown, "is not a field of this operation"))
            continue
        *parents, field = fields
        path = ".".join(parent.name for parent in fields)
        if not (entry or is_single_value(field) or is_json_list(field)):
            how = f"a map: give its entries, such as {path}[name]=value" if is_map(field) else _AN_OBJECT
            found.append(Violation(path, f"is {how}"))
            continue
        holder = value
        for parent in parents:
            holder = holder.setdefault(parent.name, {})
        if entry:
            _add_entry(holder.setdefault(field.name, {}), field, (path, entry[2]), text, found)
        elif is_json_list(field):
            _add_json_list(holder, field, path, text, found)
        elif field.is_repeated:
            holder.setdefault(field.name, []).append(_json_value(field, text))
        elif field.name in holder:
            found.append(Violation(path, "is given twice: send one"))
        else:
            holder[field.name] = _json_value(field, text)


def _add_entry(
    entries: dict[str, Json], field: FieldDescriptor, place: tuple[str, str], text: str, found: list[Violation]
) -> None:
    """Adds an entry of a map; `place` is the path of the map and the name in it."""
    path, name = place
    if name in entries:
        shown = f"{path}[{name}]"
        found.append(Violation(shown if _NAME.fullmatch(shown) else path, "is given twice: send one"))
    else:
        entries[name] = _json_value(_value_field(field), text)


def _value_field(field: FieldDescriptor) -> FieldDescriptor:
    """The field that the values of a map are in."""
    entry = field.message_type
    if entry is None:
        raise TypeError(f"{field.full_name} is no map")
    return entry.fields_by_name["value"]


def _add_json_list(
    holder: dict[str, Json], field: FieldDescriptor, path: str, text: str, found: list[Violation]
) -> None:
    """Adds a list of objects, which a query holds as JSON."""
    if field.name in holder:
        found.append(Violation(path, "is given twice: send one list with all of it"))
        return
    try:
        holder[field.name] = parse(text.encode())
    except Problem:
        found.append(Violation(path, "must be a list of objects in JSON"))


def _resolve(request: Descriptor, name: str) -> list[FieldDescriptor]:
    """The fields along a path such as "amount.currency"; empty when there is no such path."""
    fields: list[FieldDescriptor] = []
    message: Descriptor | None = request
    for part in name.split("."):
        field = _field(message, part) if message is not None else None
        if field is None or (fields and (fields[-1].is_repeated or is_single_value(fields[-1]))):
            return []
        fields.append(field)
        message = field.message_type
    return fields


def _field(message: Descriptor, name: str) -> FieldDescriptor | None:
    found = message.fields_by_name.get(name)
    return found or next((field for field in message.fields if field.json_name == name), None)


def _json_name(message: Descriptor, name: str) -> str:
    return str(message.fields_by_name[name].json_name)


def is_single_value(field: FieldDescriptor) -> bool:
    """Whether one text can hold the field: a scalar, or a well-known type that is a text in JSON."""
    message = field.message_type
    if message is None:
        return True
    texts = ("google.protobuf.Timestamp", "google.protobuf.Duration", "google.protobuf.FieldMask")
    return not is_map(field) and (message.full_name in texts or message.file.name == _WRAPPERS)


def is_json_list(field: FieldDescriptor) -> bool:
    """Whether a query holds the field as one JSON text: a list of objects, which has no other form there."""
    return field.is_repeated and not is_map(field) and not is_single_value(field)


def _json_value(field: FieldDescriptor, text: str) -> Json:
    """A text as JSON would hold it. Only booleans differ; numbers may be texts in the proto3 mapping."""
    if field.message_type is not None and field.message_type.file.name == _WRAPPERS:
        field = field.message_type.fields_by_name["value"]
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return {"true": True, "false": False}.get(text, text)
    return text


def _set_once(
    request: Descriptor, value: dict[str, Json], path: str, text: str, *, source: str, found: list[Violation]
) -> None:
    """Sets a field that the body must not contradict."""
    *parents, field = _resolve(request, path)
    holder = value
    for parent in parents:
        given = holder.get(parent.name, holder.get(parent.json_name))
        if not isinstance(given, dict):
            given = holder[parent.name] = {}
        holder = given
    wanted = _json_value(field, text)
    for name in {field.name, field.json_name}:
        if holder.get(name) not in (None, "", wanted):
            found.append(Violation(path, f"differs from the one in {source}"))
        holder.pop(name, None)
    holder[field.name] = wanted


def _add_client_credentials(
    request: Descriptor, value: dict[str, Json], headers: Mapping[str, str], found: list[Violation]
) -> None:
    """Fills client_id and client_secret from HTTP Basic (RFC 6749, section 2.3.1), for a request that has both."""
    scheme, _, encoded = headers.get("authorization", "").partition(" ")
    names = ("client_id", "client_secret")
    if scheme.lower() != "basic" or not all(name in request.fields_by_name for name in names):
        return
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise Problem(Reason.CREDENTIALS_INVALID, "the Authorization header holds no valid Basic credentials") from None
    for name, text in zip(names, decoded.split(":", 1), strict=False):
        _set_once(request, value, name, unquote_plus(text), source="the Authorization header", found=found)


def _add_request_id(value: dict[str, Json], headers: Mapping[str, str]) -> None:
    """Makes the Idempotency-Key the request_id of a write."""
    # The IETF draft writes the key as a quoted text; most clients send it bare.
    key = headers.get(IDEMPOTENCY_HEADER, "").strip()
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    given = value.get("request_id", value.get("requestId"))
    if key and not _UUID.fullmatch(key):
        detail = "must be a UUID, such as one that uuidgen prints"
        raise Problem(Reason.FIELD_INVALID, violations=[Violation("Idempotency-Key", detail)])
    if key and given not in (None, "", key):
        detail = "differs from the Idempotency-Key header: send one of the two, or the same UUID in both"
        raise Problem(Reason.FIELD_INVALID, violations=[Violation("request_id", detail)])
    if key:
        value.pop("requestId", None)
        value["request_id"] = key


def _summary(found: list[Violation]) -> str:
    return "; ".join(f"{violation.field} {violation.description}" for violation in found[:5])
