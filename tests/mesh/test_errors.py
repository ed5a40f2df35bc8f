"""The registry of reasons, and problems on their way over the wire."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st
from kente.common.v1 import errors_pb2

from mesh.errors import DOMAIN, Problem, Reason, Violation

REASONS = [reason for reason in Reason if reason]
texts = st.text(max_size=30)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Any problem that we can raise."""
    violations = draw(st.lists(st.builds(Violation, texts, texts), max_size=3))
    retry = draw(st.none() | st.integers(0, 10_000_000).map(lambda milliseconds: milliseconds / 1000))
    names = st.from_regex(r"[a-z][a-z_]{0,20}", fullmatch=True).filter(
        lambda name: name not in ("violations", "retry_after_seconds", "self")
    )
    metadata = draw(st.dictionaries(names, texts, max_size=3))
    reason = draw(st.sampled_from(REASONS))
    return Problem(reason, draw(texts), violations=violations, retry_after_seconds=retry, **metadata)


def test_the_registry_and_the_contract_have_the_same_reasons() -> None:
    values = errors_pb2.ErrorReason.DESCRIPTOR.values_by_name

    assert {f"ERROR_REASON_{reason.name}": int(reason) for reason in Reason} == {
        name: value.number for name, value in values.items()
    }


@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: reason.name)
def test_every_reason_has_a_code_and_a_remedy(reason: Reason) -> None:
    problem = Problem(reason)

    assert problem.code is not grpc.StatusCode.OK
    assert problem.remedy.endswith(".")
    assert problem.detail == problem.remedy
    assert problem.reason_name in str(problem)


@given(problems())
def test_a_problem_survives_the_wire(problem: Problem) -> None:
    status = status_pb2.Status.FromString(problem.to_status().SerializeToString())
    read = Problem.from_status(status)

    assert read.reason == problem.reason
    assert read.detail == problem.detail
    assert read.metadata == problem.metadata
    assert read.violations == problem.violations
    assert read.retry_after_seconds == problem.retry_after_seconds
    assert read.to_status() == status
    assert status.code == problem.code.value[0]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, Reason.SERVICE_UNAVAILABLE),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Reason.DEADLINE_PASSED),
        (grpc.StatusCode.CANCELLED, Reason.CALL_CANCELED),
        (grpc.StatusCode.UNIMPLEMENTED, Reason.METHOD_UNKNOWN),
        # Another's refusal of our credentials is no fault of our caller.
        (grpc.StatusCode.UNAUTHENTICATED, Reason.INTERNAL),
        (grpc.StatusCode.PERMISSION_DENIED, Reason.INTERNAL),
        (grpc.StatusCode.UNKNOWN, Reason.INTERNAL),
    ],
)
def test_a_status_that_is_not_ours_keeps_its_meaning_but_not_its_words(code: grpc.StatusCode, reason: Reason) -> None:
    text = "failed to connect to all addresses; last error: ipv4:10.0.0.7:7403: Connection refused"

    problem = Problem.from_status(status_pb2.Status(code=code.value[0], message=text))

    assert problem.reason == reason
    assert problem.detail == problem.remedy


@pytest.mark.parametrize(
    ("domain", "reason"), [("googleapis.com", "RATE_LIMITED"), (DOMAIN, "NO_SUCH_REASON"), (DOMAIN, "UNSPECIFIED")]
)
def test_a_reason_that_is_not_in_the_registry_is_not_believed(domain: str, reason: str) -> None:
    status = status_pb2.Status(code=grpc.StatusCode.ABORTED.value[0], message="theirs")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata={"a": "b"}))

    problem = Problem.from_status(status)

    assert (problem.reason, problem.metadata) == (Reason.INTERNAL, {})
    assert problem.detail != "theirs"


def test_a_problem_never_outgrows_what_clients_take() -> None:
    violations = [Violation(f"legs[{number}].account_name", "x" * 1000) for number in range(1000)]
    problem = Problem(Reason.FIELD_INVALID, violations=violations, more="y" * 10_000)

    status = problem.to_status()
    read = Problem.from_status(status)

    assert status.ByteSize() <= 4096
    assert read.violations
    assert read.violations[0].field == "legs[0].account_name"
    assert read.metadata["more"].startswith("yyy")


def test_metadata_may_have_any_name() -> None:
    status = Problem(Reason.STATE_CONFLICT, "no").to_status()
    info = error_details_pb2.ErrorInfo(
        reason="STATE_CONFLICT", domain=DOMAIN, metadata={"violations": "a", "retry_after_seconds": "b", "x-y": "c"}
    )
    status.details[0].Pack(info)

    assert Problem.from_status(status).metadata == dict(info.metadata)
