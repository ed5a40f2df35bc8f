"""Problems as HTTP: google.rpc.Status to RFC 9457, with the same reasons as over gRPC."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import grpc
from starlette.responses import Response

from mesh.errors import DOMAIN, Problem, Reason
from mesh.telemetry import current_trace_id

CONTENT_TYPE = "application/problem+json"

# The mapping that google.rpc.Code gives for each code; 499 is nginx's word for a caller that went away.
HTTP_STATUS: Mapping[grpc.StatusCode, int] = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}

# RFC 6749, section 5.2: what an OAuth2 client library looks for in a refused token request.
_OAUTH_ERRORS: Mapping[Reason, str] = {
    Reason.CREDENTIALS_MISSING: "invalid_client",
    Reason.CREDENTIALS_INVALID: "invalid_client",
    Reason.SCOPE_MISSING: "invalid_scope",
    Reason.FIELD_INVALID: "invalid_request",
    Reason.BODY_MALFORMED: "invalid_request",
    Reason.SERVICE_UNAVAILABLE: "temporarily_unavailable",
}


class Refusal(Exception):  # noqa: N818 - an answer rather than a fault, as Problem is
    """A problem that HTTP has a closer status for than its gRPC code gives, or a header to go with it."""

    def __init__(self, status: int, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(str(problem))
        self.status = status
        self.problem = problem
        self.headers = dict(headers or {})


def refuse(status: int, reason: Reason, detail: str, headers: Mapping[str, str] | None = None) -> Refusal:
    """A refusal with its own HTTP status."""
    return Refusal(status, Problem(reason, detail), headers)


def as_refusal(error: Problem | Refusal) -> Refusal:
    """The error with its HTTP status and headers."""
    if isinstance(error, Refusal):
        return error
    status = HTTP_STATUS.get(error.code, 500)
    headers: dict[str, str] = {}
    if status == HTTP_STATUS[grpc.StatusCode.UNAUTHENTICATED]:
        headers["www-authenticate"] = 'Bearer realm="kente"'
    if error.retry_after_seconds is not None:
        # The header counts whole seconds; the member keeps the exact time.
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_seconds)))
    return Refusal(status, error, headers)


def document(error: Problem | Refusal) -> dict[str, Any]:
    """The members of the problem+json document. They hold what google.rpc.Status holds, and no more."""
    refusal = as_refusal(error)
    problem = refusal.problem
    members: dict[str, Any] = {
        "type": f"urn:{DOMAIN}:problem:{problem.reason_name.lower().replace('_', '-')}",
        "title": problem.reason_name.replace("_", " ").capitalize(),
        "status": refusal.status,
        "detail": problem.detail,
        "reason": problem.reason_name,
        "domain": DOMAIN,
        "remedy": problem.remedy,
        "metadata": dict(problem.metadata),
        "trace_id": current_trace_id(),
    }
    if problem.violations:
        members["field_violations"] = [
            {"field": violation.field, "description": violation.description} for violation in problem.violations
        ]
    if problem.retry_after_seconds is not None:
        members["retry_after_seconds"] = problem.retry_after_seconds
    return members


def oauth_members(problem: Problem) -> dict[str, str]:
    """The members that RFC 6749 wants in the answer to a refused token request."""
    unsupported = any(violation.field == "grant_type" for violation in problem.violations)
    error = "unsupported_grant_type" if unsupported else _OAUTH_ERRORS.get(problem.reason, "server_error")
    return {"error": error, "error_description": problem.detail}


def encode(members: Mapping[str, Any]) -> bytes:
    """The document as it is sent."""
    return json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode()


def problem_response(error: Problem | Refusal, members: Mapping[str, object] | None = None) -> Response:
    """The answer to a problem: RFC 9457, with further members where a protocol wants them."""
    refusal = as_refusal(error)
    body = encode({**document(error), **(members or {})})
    headers = {"cache-control": "no-store", **refusal.headers}
    return Response(body, refusal.status, headers, CONTENT_TYPE)
