"""How parts of payments lie in columns."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import asyncpg

from services.payments.model import Call, CallState, Failure, Fault, NextAction, Route, RouteCandidate

CALL_COLUMNS = "provider, connection_id, reference, fault, failure, send_time, delay_reported"


def to_json(part: Any) -> str | None:  # noqa: ANN401 - any dataclass
    """A dataclass as JSON; None stays None."""
    return None if part is None else json.dumps(dataclasses.asdict(part))


def failure_of(text: str | None) -> Failure | None:
    """Reads a failure."""
    return Failure(**json.loads(text)) if text else None


def next_action_of(text: str | None) -> NextAction | None:
    """Reads a next action."""
    return NextAction(**json.loads(text)) if text else None


def route_of(text: str) -> Route:
    """Reads a route."""
    document = json.loads(text)
    candidates = tuple(RouteCandidate(**candidate) for candidate in document.pop("candidates"))
    return Route(**document, candidates=candidates)


def call_of(row: asyncpg.Record, state: str) -> Call:
    """Reads a call from the CALL_COLUMNS of a row and its state."""
    return Call(
        state=CallState(state),
        provider=row["provider"],
        connection_id=row["connection_id"],
        reference=row["reference"],
        fault=Fault(row["fault"]),
        failure=failure_of(row["failure"]),
        send_time=row["send_time"],
        delay_reported=row["delay_reported"],
    )


def call_values(call: Call) -> tuple[object, ...]:
    """The values of CALL_COLUMNS, in their order."""
    return (
        call.provider,
        call.connection_id,
        call.reference,
        call.fault,
        to_json(call.failure),
        call.send_time,
        call.delay_reported,
    )
