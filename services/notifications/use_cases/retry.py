"""Which refusals of a peer pass by themselves."""

from __future__ import annotations

import grpc

from mesh.errors import Problem

_PASSING_CODES = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
    }
)


def is_passing(problem: Problem) -> bool:
    """Whether the same call can succeed later: the service is away, slow, or busy."""
    return problem.code in _PASSING_CODES
