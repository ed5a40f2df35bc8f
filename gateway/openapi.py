"""The OpenAPI 3.1 document of all routes, from the descriptors alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import reduce
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from kente.common.v1 import errors_pb2
from kente.options.v1 import options_pb2

from gateway.binding import FORM_TYPE, JSON_TYPE, is_json_list, is_single_value
from gateway.contracts import Rpc
from gateway.problems import CONTENT_TYPE as PROBLEM_TYPE
from gateway.routes import Route
from gateway.schemas import Schema, Schemas, component_name
from gateway.shapes import is_map
from gateway.streams import CONTENT_TYPE as EVENT_TYPE

_DESCRIPTION = """\
Every operation of the mesh that partners can call. The same contracts serve gRPC, with the same names and reasons.

- **Credentials**: `Authorization: Bearer <API key or access token>`, or `X-Api-Key: <API key>`.
- **Writes**: send an `Idempotency-Key` header with a new UUID. The same key with the same body gives the same answer.
- **Deadline**: `Kente-Timeout-Seconds` says how long you wait.
- **Refusals** are `application/problem+json` (RFC 9457); `reason` is for machines, `remedy` says what to do.
- **Queries** hold a map by its entries, `metadata[order]=o-1`, and a list of objects as JSON.
- **Money** is counted in minor units, as a text: 64-bit integers are texts in JSON.
- **Streams** are server-sent events: one event per message, then `end`, or `error` with a problem.
- **Traces**: every answer carries `trace-id`; a W3C `traceparent` is continued.
"""
_IDEMPOTENCY: Final[Schema] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A new UUID for a new request; the same one to repeat it. It becomes the request_id.",
    "schema": {"type": "string", "format": "uuid"},
}
_TIMEOUT: Final[Schema] = {
    "name": "Kente-Timeout-Seconds",
    "in": "header",
    "description": "How long the caller waits, in seconds. 504 after that.",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}
_VARIABLE: Final = re.compile(r"\{([^{}=]+)(=[^{}]+)?\}")
_NESTING_MAX: Final = 3


def openapi_document(routes: Iterable[Route], comments: Mapping[str, str], server_url: str) -> Schema:
    """The document of all routes.

    Args:
        routes: what to describe.
        comments: comments of the contracts by full name.
        server_url: address of the gateway as partners reach it.
    """
    ordered = list(routes)
    schemas = Schemas(comments)
    paths: dict[str, Schema] = {}
    for route in ordered:
        item = paths.setdefault(openapi_path(route.template), {})
        item[route.verb.lower()] = _operation(route, schemas, ordered)
    services = {_tag(route.rpc): route.rpc.service for route in ordered}
    problem = _problem_schema(schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Kente",
            "version": "1",
            "summary": "Payments, identity, ledger, notifications and connections behind one set of contracts",
            "description": _DESCRIPTION,
        },
        "servers": [{"url": server_url}],
        "tags": [{"name": tag, "description": schemas.comment(name)} for tag, name in sorted(services.items())],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": {**dict(sorted(schemas.components.items())), "Problem": problem},
            "parameters": {"IdempotencyKey": _IDEMPOTENCY, "Timeout": _TIMEOUT},
            "responses": {
                "Problem": {
                    "description": "Why the request was refused or failed.",
                    "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
            },
            "securitySchemes": _security_schemes(ordered),
        },
    }


def openapi_path(template: str) -> str:
    """A path template of google.api.http as OpenAPI writes it."""
    return _VARIABLE.sub(r"{\1}", template)


def _operation(route: Route, schemas: Schemas, routes: list[Route]) -> Schema:
    rpc = route.rpc
    comment = schemas.comment(rpc.full_name)
    parameters = [_path_parameter(rpc.request, variable.field, schemas) for variable in route.variables]
    if route.body != "*":
        bound = {variable.field for variable in route.variables} | {route.body}
        if rpc.is_write:
            bound.add("request_id")
        parameters.extend(_query_parameters(rpc.request, bound, schemas))
    if rpc.is_write:
        parameters.append({"$ref": "#/components/parameters/IdempotencyKey"})
    parameters.append({"$ref": "#/components/parameters/Timeout"})
    operation: Schema = {
        "operationId": _operation_id(route, routes),
        "tags": [_tag(rpc)],
        "summary": comment.split(". ")[0].split("\n")[0].rstrip(".") or rpc.name,
        "description": comment,
        "parameters": parameters,
        "responses": {"200": _answer(route, schemas), "default": {"$ref": "#/components/responses/Problem"}},
        "security": [] if rpc.anonymous else [{"Bearer": []}, {"ApiKey": []}, {"OAuth2": [rpc.policy.permission]}],
        "x-rpc": rpc.full_name,
        "x-idempotency": options_pb2.Idempotency.Name(rpc.policy.idempotency).removeprefix("IDEMPOTENCY_").lower(),
    }
    if rpc.policy.permission:
        operation["x-permission"] = rpc.policy.permission
    if rpc.server_streaming:
        operation["x-streaming"] = "server-sent events"
    if route.body:
        operation["requestBody"] = _request_body(route, schemas)
    return operation


def _request_body(route: Route, schemas: Schemas) -> Schema:
    request = route.rpc.request
    if route.body == "*":
        bound = {variable.field for variable in route.variables}
        schema = schemas.message(request, without=bound)
        # Requests alone are closed: an unknown field is refused, so that a misspelt one is not passed over.
        schema["additionalProperties"] = False
        schemas.components[component_name(request.full_name)] = schema
        content: Schema = {"schema": {"$ref": f"#/components/schemas/{component_name(request.full_name)}"}}
        content["example"] = schemas.sample(request, without=bound)
        required = bool(schema.get("required"))
    else:
        field = request.fields_by_name[route.body]
        content = {"schema": schemas.field(field)}
        required = schemas.is_required(field)
    body = {"required": required, "content": {JSON_TYPE: content}}
    if route.rpc.anonymous:
        body["content"] = {FORM_TYPE: content, JSON_TYPE: content}
    return body


def _answer(route: Route, schemas: Schemas) -> Schema:
    response = route.rpc.response
    if route.response_body:
        schema = schemas.field(response.fields_by_name[route.response_body])
    else:
        schema = schemas.reference(response)
    description = schemas.comment(response.full_name) or "The answer."
    if route.rpc.server_streaming:
        description = f"A stream of events; the data of each is this message. {description}"
        return {"description": description, "content": {EVENT_TYPE: {"schema": schema}}}
    return {"description": description, "content": {JSON_TYPE: {"schema": schema}}}


def _path_parameter(request: Descriptor, path: str, schemas: Schemas) -> Schema:
    *parents, name = path.split(".")
    owner = reduce(_message_of, parents, request)
    schema = schemas.field(owner.fields_by_name[name])
    parameter: Schema = {"name": path, "in": "path", "required": True}
    if "description" in schema:
        parameter["description"] = schema.pop("description")
    return {**parameter, "schema": schema}


def _message_of(message: Descriptor, name: str) -> Descriptor:
    found = message.fields_by_name[name].message_type
    if found is None:
        raise ValueError(f"{message.full_name}.{name} holds no message, so a path can't lead through it")
    return found


def _query_parameters(
    message: Descriptor, bound: set[str], schemas: Schemas, *, above: tuple[FieldDescriptor, ...] = ()
) -> Iterable[Schema]:
    for field in message.fields:
        trail = (*above, field)
        if ".".join(part.name for part in trail) in bound:
            continue
        name = ".".join(part.json_name for part in trail)
        if is_single_value(field):
            yield _query_parameter(field, name, schemas, top=not above)
        elif is_map(field):
            # An entry is a pair of its own, such as metadata[order]=o-1.
            yield {**_query_parameter(field, name, schemas, top=not above), "style": "deepObject", "explode": True}
        elif is_json_list(field):
            parameter = _query_parameter(field, name, schemas, top=not above)
            parameter["content"] = {JSON_TYPE: {"schema": parameter.pop("schema")}}
            yield parameter
        elif field.message_type is not None and len(trail) < _NESTING_MAX:
            yield from _query_parameters(field.message_type, bound, schemas, above=trail)


def _query_parameter(field: FieldDescriptor, name: str, schemas: Schemas, *, top: bool) -> Schema:
    schema = schemas.field(field)
    parameter: Schema = {"name": name, "in": "query", "required": top and schemas.is_required(field)}
    if "description" in schema:
        parameter["description"] = schema.pop("description")
    parameter["schema"] = schema
    return parameter


def _tag(rpc: Rpc) -> str:
    return component_name(rpc.service)


def _operation_id(route: Route, routes: list[Route]) -> str:
    """A name that code generators can use, also for the further routes of one RPC."""
    same = [other for other in routes if other.rpc.full_name == route.rpc.full_name]
    number = same.index(route)
    name = component_name(route.rpc.full_name).replace(".", "_")
    return f"{name}_{number + 1}" if number else name


def _problem_schema(schemas: Schemas) -> Schema:
    prefix = "ERROR_REASON_"
    values = [value for value in errors_pb2.ErrorReason.DESCRIPTOR.values if value.number]
    reasons = {value.name.removeprefix(prefix): value for value in values}
    scope = errors_pb2.ErrorReason.DESCRIPTOR.full_name.rpartition(".")[0]
    lines = []
    for reason, value in reasons.items():
        text = schemas.comment(f"{scope}.{value.name}").replace("\n", " ")
        lines.append(f"- `{reason}`: {text} {value.GetOptions().Extensions[options_pb2.error].remedy}")
    violation = {
        "type": "object",
        "properties": {"field": {"type": "string"}, "description": {"type": "string"}},
        "required": ["field", "description"],
    }
    texts = {
        "type": "Address of the reason.",
        "title": "The reason in words.",
        "detail": "What is wrong with this request.",
        "domain": 'Always "kente".',
        "remedy": "What the caller can do.",
        "trace_id": "Finds the request in logs and traces.",
    }
    properties: Schema = {name: {"type": "string", "description": text} for name, text in texts.items()}
    properties["status"] = {"type": "integer", "minimum": 400, "maximum": 599}
    properties["reason"] = {"type": "string", "enum": list(reasons), "description": "\n".join(lines)}
    properties["metadata"] = {"type": "object", "additionalProperties": {"type": "string"}}
    properties["field_violations"] = {"type": "array", "items": violation}
    properties["retry_after_seconds"] = {"type": "number"}
    required = ["type", "title", "status", "detail", "reason", "domain", "remedy", "metadata", "trace_id"]
    return {"type": "object", "title": "Problem", "properties": properties, "required": required}


def _security_schemes(routes: list[Route]) -> Schema:
    scopes = {route.rpc.policy.permission for route in routes if route.rpc.policy.permission}
    schemes: Schema = {
        "Bearer": {"type": "http", "scheme": "bearer", "description": "An API key or an OAuth2 access token."},
        "ApiKey": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
    }
    token_url = next((route.template for route in routes if "grant_type" in route.rpc.request.fields_by_name), "")
    flow: Mapping[str, Any] = {"tokenUrl": token_url, "scopes": dict.fromkeys(sorted(scopes), "")}
    schemes["OAuth2"] = {"type": "oauth2", "flows": {"clientCredentials": flow}}
    return schemes
