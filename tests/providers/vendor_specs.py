"""Checks what goes over the wire against the vendors' OpenAPI, when KENTE_VENDOR_SPECS names a folder with it."""

from __future__ import annotations

import gzip
import json
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # the library has no types
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mesh.sandbox.faults import Fault

# Under these the answer is none of the provider's, or none at all.
_WITHOUT_ANSWER = {
    Fault.HTML_502,
    Fault.TRUNCATED_JSON,
    Fault.UNKNOWN_STATUS,
    Fault.TIMEOUT_BEFORE,
    Fault.TIMEOUT_AFTER_COMMIT,
    Fault.RESET_AFTER_COMMIT,
}
_ROOT = "urn:spec"
_PART = re.compile(r"([^\[\]]+)|\[([^\[\]]*)\]")


@cache
def vendor_spec(slug: str) -> dict[str, Any] | None:
    """The OpenAPI document of a vendor, or None."""
    folder = os.environ.get("KENTE_VENDOR_SPECS", "")
    found = sorted(Path(folder, slug).glob("spec3-*.yaml.gz")) if folder else []
    if not found:
        return None
    with gzip.open(found[-1]) as file:
        document: dict[str, Any] = _as_json_schema(yaml.load(file, Loader=yaml.CSafeLoader))
    return document


def _as_json_schema(node: Any) -> Any:
    """OpenAPI 3.0's "nullable" in the words of JSON Schema."""
    if isinstance(node, list):
        return [_as_json_schema(item) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {key: _as_json_schema(value) for key, value in node.items() if key != "nullable"}
    return {"anyOf": [plain, {"type": "null"}]} if node.get("nullable") is True else plain


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request to a simulator and its answer."""

    slug: str
    method: str
    path: str
    query: str
    body: bytes
    status: int
    answer: bytes


class Recorder:
    """Listens between the sandbox's socket and its application."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """The application with an ear on it."""

        async def listening(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            heard, said, status = bytearray(), bytearray(), 0

            async def hear() -> Message:
                message = await receive()
                heard.extend(message.get("body", b""))
                return message

            async def say(message: Message) -> None:
                nonlocal status
                status = message.get("status", status)
                said.extend(message.get("body", b""))
                await send(message)

            path = scope["path"]
            await app(scope, hear, say)
            if scope["state"].get("fault") not in _WITHOUT_ANSWER and status:
                _, slug, rest = path.split("/", 2) if path.count("/") > 1 else ("", "", "")
                query = scope["query_string"].decode()
                self.exchanges.append(
                    Exchange(slug, scope["method"], f"/{rest}", query, bytes(heard), status, bytes(said))
                )

        return listening

    def check(self) -> None:
        """Holds every exchange since the last check against its vendor's document."""
        exchanges, self.exchanges = self.exchanges, []
        for exchange in exchanges:
            spec = vendor_spec(exchange.slug)
            if spec is not None:
                faults = _faults_of(spec, exchange)
                assert faults == [], f"{exchange.method} {exchange.path} {exchange.status}: {faults}"


def _faults_of(spec: dict[str, Any], exchange: Exchange) -> list[str]:
    operation = _operation(spec, exchange)
    if operation is None:
        # A page of the bank, say: not part of the API.
        return [] if not exchange.path.startswith("/v1/") else [f"{exchange.path} is not in the document"]
    faults = [f"query: {fault}" for fault in _query_faults(operation, exchange)]
    content = operation.get("requestBody", {}).get("content", {}).get("application/x-www-form-urlencoded")
    # A request that the simulator refused may be wrong on purpose.
    if content is not None and exchange.status < 400:
        schema = content["schema"]
        faults += [f"request: {fault}" for fault in _check(spec, schema, _form(exchange.body, schema))]
    responses = operation["responses"]
    response = responses.get(str(exchange.status), responses["default"])
    schema = response["content"]["application/json"]["schema"]
    return faults + [f"answer: {fault}" for fault in _check(spec, schema, json.loads(exchange.answer))]


def _operation(spec: dict[str, Any], exchange: Exchange) -> dict[str, Any] | None:
    for path, methods in spec["paths"].items():
        pattern = re.sub(r"\{[^}]+\}", "[^/]+", path)
        if re.fullmatch(pattern, exchange.path) and exchange.method.lower() in methods:
            found: dict[str, Any] = methods[exchange.method.lower()]
            return found
    return None


def _query_faults(operation: dict[str, Any], exchange: Exchange) -> list[str]:
    known = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"}
    return [name for name, _ in parse_qsl(exchange.query) if name.partition("[")[0] not in known]


def _check(spec: dict[str, Any], schema: dict[str, Any], value: object) -> list[str]:
    registry: Registry[Any] = Registry().with_resource(_ROOT, _resource(id(spec), spec))
    validator = Draft202012Validator(_absolute(schema), registry=registry)
    return [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message[:300]}" for error in validator.iter_errors(value)
    ]


_RESOURCES: dict[int, Any] = {}


def _resource(identity: int, spec: dict[str, Any]) -> Any:
    if identity not in _RESOURCES:
        _RESOURCES[identity] = Resource.from_contents(spec, default_specification=DRAFT202012)
    return _RESOURCES[identity]


def _absolute(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema whose references say which document they mean."""
    return json.loads(json.dumps(schema).replace('"#/', f'"{_ROOT}#/'))  # type: ignore[no-any-return]  # a dict again


def _form(body: bytes, schema: dict[str, Any]) -> dict[str, Any]:
    """A form as the object that its schema describes."""
    form: dict[str, Any] = {}
    for name, value in parse_qsl(body.decode(), keep_blank_values=True):
        parts = [found[0] or found[1] for found in _PART.findall(name)]
        place = form
        for part in parts[:-1]:
            place = place.setdefault(part, {})
        place[parts[-1]] = value
    properties = schema.get("properties", {})
    return {name: _typed(value, properties.get(name, {})) for name, value in form.items()}


def _typed(value: Any, schema: dict[str, Any]) -> Any:
    kinds = {schema.get("type"), *(each.get("type") for each in schema.get("anyOf", ()))}
    if isinstance(value, dict):
        return list(value.values()) if "array" in kinds else value
    if "integer" in kinds and value.isdigit():
        return int(value)
    if "boolean" in kinds and value in {"true", "false"}:
        return value == "true"
    return value
