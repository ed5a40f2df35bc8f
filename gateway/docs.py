"""/openapi.json, and /docs: one page that shows every public RPC and needs no other server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response

from gateway.binding import JSON_TYPE
from gateway.schemas import Schema
from gateway.streams import CONTENT_TYPE as EVENT_TYPE

_CACHE = {"cache-control": "public, max-age=60"}
# The page runs its own script and style only, and may load nothing.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


class DocumentHandlers:
    """Serves the OpenAPI document and the page made from it, both built once."""

    def __init__(self, document: Schema) -> None:
        self._json = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        self._page = render_page(document).encode()

    async def openapi(self, _request: Request) -> Response:
        """The OpenAPI 3.1 document."""
        return Response(self._json, 200, _CACHE, JSON_TYPE)

    async def page(self, _request: Request) -> Response:
        """The page."""
        headers = {**_CACHE, "content-security-policy": _POLICY}
        return Response(self._page, 200, headers, "text/html; charset=utf-8")


def render_page(document: Schema) -> str:
    """The page of a document as HTML."""
    environment = Environment(
        loader=PackageLoader("gateway", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    operations: dict[str, list[dict[str, Any]]] = {}
    for path, item in document["paths"].items():
        for verb, operation in item.items():
            view = _operation_view(document, path, verb.upper(), operation)
            operations.setdefault(operation["tags"][0], []).append(view)
    schemas = {
        name: {
            "description": schema.get("description", ""),
            "rows": list(_rows(schema)),
            "values": schema.get("enum", []),
        }
        for name, schema in document["components"]["schemas"].items()
    }
    return environment.get_template("docs.html.j2").render(
        info=document["info"],
        server=document["servers"][0]["url"],
        tags=document["tags"],
        operations=operations,
        schemas=schemas,
    )


def _operation_view(document: Schema, path: str, verb: str, operation: Schema) -> dict[str, Any]:
    parameters = [_resolved(document, parameter) for parameter in operation["parameters"]]
    body = operation.get("requestBody", {}).get("content", {}).get(JSON_TYPE, {})
    content = operation["responses"]["200"]["content"]
    answer = content.get(JSON_TYPE) or content[EVENT_TYPE]
    return {
        "id": operation["operationId"],
        "rpc": operation["x-rpc"],
        "verb": verb,
        "path": path,
        "summary": operation["summary"],
        "description": operation["description"],
        "permission": operation.get("x-permission", ""),
        "streams": EVENT_TYPE in content,
        "parameters": [
            {
                "name": parameter["name"],
                "where": parameter["in"],
                "required": parameter.get("required", False),
                "description": parameter.get("description", ""),
                **_type_of(_schema_of(parameter)),
            }
            for parameter in parameters
        ],
        "body": _type_of(body["schema"]) if body else None,
        "answer": _type_of(answer["schema"]),
        "curl": curl_line(document["servers"][0]["url"], path, verb, operation, parameters),
    }


def curl_line(server: str, path: str, verb: str, operation: Schema, parameters: list[Schema]) -> str:
    """A curl command for an operation, with example values for what is required."""
    query = []
    for parameter in parameters:
        example = quote(str(_schema_of(parameter).get("examples", ["value"])[0]), safe=":")
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", example)
        elif parameter["in"] == "query" and parameter.get("required"):
            query.append(f"{parameter['name']}={example}")
    address = server + path + ("?" + "&".join(query) if query else "")
    parts = ["curl -N" if "x-streaming" in operation else "curl"]
    if verb != "GET":
        parts[0] += f" -X {verb}"
    parts[0] += f" '{address}'"
    if operation["security"]:
        parts.append('-H "Authorization: Bearer $KENTE_API_KEY"')
    if any(parameter["name"] == "Idempotency-Key" for parameter in parameters):
        parts.append('-H "Idempotency-Key: $(uuidgen)"')
    body = operation.get("requestBody", {}).get("content", {}).get(JSON_TYPE)
    if body is not None:
        parts.append(f"-H 'Content-Type: {JSON_TYPE}'")
        text = json.dumps(body.get("example", {}), ensure_ascii=False)
        parts.append("-d '" + text.replace("'", "'\\''") + "'")
    return " \\\n  ".join(parts)


def _rows(schema: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    required = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        yield {
            "name": name,
            "required": name in required,
            "description": field.get("description", ""),
            **_type_of(field),
        }


def _type_of(schema: Mapping[str, Any]) -> dict[str, str]:
    """The type for people, the schema it refers to, and its rules."""
    inner, form = schema, "{}"
    if schema.get("type") == "array":
        inner, form = schema["items"], "list of {}"
    elif schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        inner, form = schema["additionalProperties"], "map of {}"
    target = inner.get("$ref", "").removeprefix("#/components/schemas/")
    kind = inner.get("type", "")
    name = target or inner.get("format", "") or (kind if isinstance(kind, str) else kind[0]) or "any"
    words = {
        "pattern": "matches {}",
        "minLength": "at least {} characters",
        "maxLength": "at most {} characters",
        "minimum": "at least {}",
        "exclusiveMinimum": "more than {}",
        "maximum": "at most {}",
        "minItems": "at least {} items",
        "maxItems": "at most {} items",
        "maxProperties": "at most {} entries",
        "const": "always {}",
    }
    rules = [text.format(schema[word]) for word, text in words.items() if word in schema]
    return {"type": form.format(name), "target": target, "rules": "; ".join(rules)}


def _schema_of(parameter: Schema) -> Schema:
    """A parameter's schema; that of JSON in a query lies below its content type."""
    schema: Schema = parameter["schema"] if "schema" in parameter else parameter["content"][JSON_TYPE]["schema"]
    return schema


def _resolved(document: Schema, parameter: Schema) -> Schema:
    reference: str = parameter.get("$ref", "")
    if not reference:
        return parameter
    found: Schema = document["components"]["parameters"][reference.rpartition("/")[2]]
    return found
