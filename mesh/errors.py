"""The one error of the mesh, and the registry of its reasons.

A Problem is what a caller is told: a registered reason, a message for people, and metadata for machines. The registry
is the enum kente.common.v1.ErrorReason, whose options give each reason its gRPC code and its remedy, so that clients
in every language have it too. Only interceptors make a gRPC status of a Problem; only the gateway makes HTTP of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from kente.common.v1 import errors_pb2
from kente.common.v1.reason import Reason
from kente.options.v1 import options_pb2

__all__ = ["DOMAIN", "Problem", "Reason", "Violation"]

DOMAIN = "kente"
# A status travels in the trailers, which clients limit to 8 KiB; more of them, and the caller gets no reason at all.
_STATUS_BYTES = 4096
_TEXT_CHARACTERS = 400

_POLICIES: dict[int, options_pb2.ErrorPolicy] = {
    value.number: value.GetOptions().Extensions[options_pb2.error] for value in errors_pb2.ErrorReason.DESCRIPTOR.values
}
_GRPC_CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class Violation:
    """What is wrong with one field of a request.

    Attributes:
        field: path in the request, such as "amount.currency".
        description: the problem and the remedy.
    """

    field: str
    description: str


class Problem(Exception):  # noqa: N818 - the word of RFC 9457, and an answer rather than a fault
    """An answer that is not what the caller asked for.

    Attributes:
        reason: entry of the registry.
        detail: for people; holds no personal data.
        metadata: for machines; everything dynamic in the detail is here too.
        violations: the fields at fault, for FIELD_INVALID.
        retry_after_seconds: when to try again, if that can help.
    """

    def __init__(
        self,
        reason: Reason,
        detail: str = "",
        /,
        *,
        violations: Sequence[Violation] = (),
        retry_after_seconds: float | None = None,
        **metadata: str,
    ) -> None:
        self.reason = reason
        self.detail = detail or "; ".join(f"{v.field} {v.description}" for v in violations) or self.remedy
        self.metadata = metadata
        self.violations = tuple(violations)
        self.retry_after_seconds = retry_after_seconds
        super().__init__(f"{self.reason_name}: {self.detail}")

    @property
    def reason_name(self) -> str:
        """The reason as it travels, such as "RESOURCE_NOT_FOUND"."""
        return self.reason.name

    @property
    def remedy(self) -> str:
        """What the caller can do, from the registry."""
        return _POLICIES[self.reason].remedy

    @property
    def code(self) -> grpc.StatusCode:
        """The gRPC status code, from the registry."""
        return _GRPC_CODES[_POLICIES[self.reason].code]

    def to_status(self) -> status_pb2.Status:
        """The problem as google.rpc.Status with its details, of which it tells as much as fits."""
        violations = self.violations
        status = self._status(violations)
        while violations and status.ByteSize() > _STATUS_BYTES:
            violations = violations[: len(violations) // 2]
            status = self._status(violations)
        return status

    def _status(self, violations: Sequence[Violation]) -> status_pb2.Status:
        status = status_pb2.Status(code=self.code.value[0], message=_shortened(self.detail))
        metadata = {key: _shortened(value) for key, value in self.metadata.items()}
        info = error_details_pb2.ErrorInfo(reason=self.reason_name, domain=DOMAIN, metadata=metadata)
        # A stored answer is repeated byte for byte, and so is the order of its metadata.
        status.details.add().Pack(info, deterministic=True)
        if violations:
            request = error_details_pb2.BadRequest()
            for violation in violations:
                request.field_violations.add(field=violation.field, description=_shortened(violation.description))
            status.details.add().Pack(request)
        if self.retry_after_seconds is not None:
            delay = Duration()
            delay.FromMilliseconds(round(self.retry_after_seconds * 1000))
            status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        return status

    @classmethod
    def from_status(cls, status: status_pb2.Status) -> Problem:
        """Reads a problem from a status.

        One that is not ours, such as the gRPC library's own, keeps its reason only: its text names addresses and
        libraries, which are not for callers.
        """
        reason, is_ours = _reason_of_foreign_code(status.code), False
        metadata: dict[str, str] = {}
        violations: list[Violation] = []
        retry_after_seconds: float | None = None
        info, request, retry = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.BadRequest(),
            error_details_pb2.RetryInfo(),
        )
        for detail in status.details:
            if detail.Unpack(info) and info.domain == DOMAIN and Reason.__members__.get(info.reason):
                reason, is_ours = Reason[info.reason], True
                metadata = dict(info.metadata)
            elif detail.Unpack(request):
                violations = [Violation(v.field, v.description) for v in request.field_violations]
            elif detail.Unpack(retry):
                retry_after_seconds = retry.retry_delay.ToMilliseconds() / 1000
        detail = status.message if is_ours else ""
        problem = cls(reason, detail, violations=violations, retry_after_seconds=retry_after_seconds)
        problem.metadata = metadata
        return problem

    @classmethod
    def from_rpc_error(cls, error: grpc.aio.AioRpcError) -> Problem:
        """Reads a problem from a failed call."""
        status = rpc_status.from_call(error)  # type: ignore[arg-type]  # an AioRpcError has what it reads
        if status is None:
            status = status_pb2.Status(code=error.code().value[0], message=error.details() or "")
        problem = cls.from_status(status)
        if problem.code is grpc.StatusCode.UNAVAILABLE and problem.retry_after_seconds is None:
            problem.retry_after_seconds = 1.0
        return problem


def _shortened(text: str) -> str:
    return text if len(text) <= _TEXT_CHARACTERS else f"{text[:_TEXT_CHARACTERS]}..."


def _reason_of_foreign_code(code: int) -> Reason:
    """The reason for a status that carries none of ours, such as one made by the gRPC library itself."""
    reasons: dict[int, Reason] = {
        code_pb2.UNAVAILABLE: Reason.SERVICE_UNAVAILABLE,
        code_pb2.DEADLINE_EXCEEDED: Reason.DEADLINE_PASSED,
        code_pb2.CANCELLED: Reason.CALL_CANCELED,
        code_pb2.UNIMPLEMENTED: Reason.METHOD_UNKNOWN,
        code_pb2.RESOURCE_EXHAUSTED: Reason.RATE_LIMITED,
    }
    return reasons.get(code, Reason.INTERNAL)
