"""Routes built from the google.api.http rules of the contracts. None is written by hand.

Templates follow google/api/http.proto: literals, `*`, `**`, `{field}`, `{field=segments}` and a custom verb at the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from google.api import http_pb2

from gateway.contracts import Rpc
from gateway.problems import refuse
from mesh.errors import Reason

VERBS = ("GET", "PUT", "POST", "DELETE", "PATCH")

_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_TOKEN = re.compile(r"\{([^{}=]+)(?:=([^{}]+))?\}|(\*\*|\*)|([^{}*]+)")


@dataclass(frozen=True, slots=True)
class Variable:
    """A field that the path holds.

    Attributes:
        field: path of the field in the request, such as "payment_id".
        spans_segments: whether its value may hold slashes.
    """

    field: str
    spans_segments: bool


@dataclass(frozen=True, slots=True)
class Route:
    """One verb and path of one RPC.

    Attributes:
        template: path as the contract writes it.
        body: field that the request body fills, "*" for the whole request, empty for none.
        response_body: field that is answered alone, empty for the whole response.
    """

    rpc: Rpc
    verb: str
    template: str
    body: str
    response_body: str
    variables: tuple[Variable, ...]
    expression: str
    rank: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """A route, with the values that the path gives."""

    route: Route
    values: Mapping[str, str]


@dataclass(slots=True)
class _Shape:
    """Routes that differ only in their verb and in the names of their variables."""

    pattern: re.Pattern[str]
    rank: tuple[int, ...]
    routes: dict[str, Route]


class RouteTable:
    """Finds the route of a request."""

    def __init__(self, rpcs: Iterable[Rpc]) -> None:
        shapes: dict[str, _Shape] = {}
        self.routes = [route for rpc in rpcs for route in _routes_of(rpc)]
        for route in self.routes:
            shape = shapes.setdefault(route.expression, _Shape(re.compile(route.expression), route.rank, {}))
            if route.verb in shape.routes:
                other = shape.routes[route.verb].rpc.full_name
                raise ValueError(f"{route.rpc.full_name} and {other} both have {route.verb} {route.template}")
            shape.routes[route.verb] = route
        self._shapes = sorted(shapes.values(), key=lambda shape: shape.rank)

    def find(self, verb: str, raw_path: str) -> Match:
        """The route of a verb and a path that is still percent-encoded.

        Raises:
            Refusal: 400 for broken escapes, 404 for an unknown path, 405 for a known path with another verb.
        """
        if _BROKEN_ESCAPE.search(raw_path) or not raw_path.isascii():
            raise refuse(400, Reason.BODY_MALFORMED, "the address is not percent-encoded as RFC 3986 says")
        # Some clients escape the colon before a custom verb.
        path = raw_path.replace("%3A", ":").replace("%3a", ":")
        allowed: list[str] = []
        for shape in self._shapes:
            found = shape.pattern.fullmatch(path)
            if found is None:
                continue
            route = shape.routes.get(verb)
            if route is not None:
                return Match(route, dict(_values(route, found)))
            allowed.extend(shape.routes)
        if allowed:
            allow = ", ".join(sorted(set(allowed)))
            raise refuse(405, Reason.METHOD_UNKNOWN, f"this address takes {allow}", {"allow": allow})
        raise refuse(404, Reason.METHOD_UNKNOWN, "no operation has this address")


def _values(route: Route, found: re.Match[str]) -> Iterator[tuple[str, str]]:
    for variable, raw in zip(route.variables, found.groups(), strict=True):
        # A value of several segments keeps its escaped slashes apart from the real ones (google/api/http.proto).
        kept = raw.replace("%2F", "%252F").replace("%2f", "%252f") if variable.spans_segments else raw
        try:
            yield variable.field, unquote(kept, errors="strict")
        except UnicodeDecodeError:
            raise refuse(400, Reason.BODY_MALFORMED, f"{variable.field} in the address is not UTF-8") from None


def _routes_of(rpc: Rpc) -> Iterator[Route]:
    for rule in rpc.bindings:
        verb, template = _verb_and_template(rule)
        expression, variables, rank = _compile(template)
        if rpc.server_streaming and verb != "GET":
            raise ValueError(f"{rpc.full_name} streams, so its route must be a GET: browsers can open no other")
        yield Route(
            rpc=rpc,
            verb=verb,
            template=template,
            body=rule.body,
            response_body=rule.response_body,
            variables=variables,
            expression=expression,
            rank=rank,
        )


def _verb_and_template(rule: http_pb2.HttpRule) -> tuple[str, str]:
    kind = rule.WhichOneof("pattern")
    if kind is None:
        raise ValueError("a google.api.http rule names no path")
    if kind == "custom":
        return rule.custom.kind.upper(), rule.custom.path
    return kind.upper(), getattr(rule, kind)


def _compile(template: str) -> tuple[str, tuple[Variable, ...], tuple[int, ...]]:
    """The template as a regular expression, its variables in order, and its rank: the more literal comes first."""
    expression, variables, rank = "", [], []
    position = 0
    for token in _TOKEN.finditer(template):
        if token.start() != position:
            break
        position = token.end()
        field, segments, wildcard, literal = token.groups()
        if literal is not None:
            expression += re.escape(literal)
            rank.append(-len(literal))
        elif wildcard is not None:
            expression += _wildcards(wildcard)
            rank.append(len(wildcard))
        else:
            segments = segments or "*"
            expression += f"({_wildcards(segments)})"
            rank.append(2 if "**" in segments else 1)
            variables.append(Variable(field, "/" in segments or "**" in segments))
    if position != len(template) or not template.startswith("/"):
        raise ValueError(f"{template!r} is not a path template of google.api.http")
    # The closing 0 puts a template that goes on with a literal, such as a custom verb, before one that ends here.
    return expression, tuple(variables), (*rank, 0)


def _wildcards(segments: str) -> str:
    parts = re.split(r"(\*\*|\*)", segments)
    meaning = {"**": ".*", "*": "[^/]+"}
    return "".join(meaning.get(part) or re.escape(part) for part in parts)
