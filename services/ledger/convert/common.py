"""What all conversions of the ledger share. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache

from google.protobuf.timestamp_pb2 import Timestamp
from kente.common.v1.money_pb2 import Money
from kente.ledger.v1 import ledger_pb2

from mesh.errors import Problem, Reason, Violation
from services.ledger.model.accounts import MAIN_BOOK, AccountState, AccountType, Side
from services.ledger.model.postings import HoldState, Kind

# Of all names and values together.
METADATA_BYTES_MAX = 8 * 1024

TYPES_TO_PROTO = {type_: ledger_pb2.Account.Type.Value(f"TYPE_{type_.name}") for type_ in AccountType}
STATES_TO_PROTO = {state: ledger_pb2.Account.State.Value(f"STATE_{state.name}") for state in AccountState}
SIDES_TO_PROTO = {side: ledger_pb2.Side.Value(f"SIDE_{side.name}") for side in Side}
KINDS_TO_PROTO = {kind: ledger_pb2.Transaction.Kind.Value(f"KIND_{kind.name}") for kind in Kind}
HOLD_STATES_TO_PROTO = {
    state: ledger_pb2.Transaction.HoldState.Value(f"HOLD_STATE_{state.name}") for state in HoldState
}
TYPES_FROM_PROTO = {number: type_ for type_, number in TYPES_TO_PROTO.items()}
SIDES_FROM_PROTO = {number: side for side, number in SIDES_TO_PROTO.items()}
KINDS_FROM_PROTO = {number: kind for kind, number in KINDS_TO_PROTO.items()}


def book_name_from_proto(book_name: str) -> str:
    """The book that a request is about."""
    return book_name or MAIN_BOOK


def time_to_proto(time: datetime | None) -> Timestamp | None:
    """A time as callers see it; None stays absent."""
    if time is None:
        return None
    return _timestamp(time)


# All of a batch have the same time. Who puts it into a message gets a copy.
@lru_cache(maxsize=256)
def _timestamp(time: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp


@lru_cache(maxsize=256)
def time_fields(time: datetime) -> Mapping[str, int]:
    """A time as the fields of its message."""
    timestamp = _timestamp(time)
    return {"seconds": timestamp.seconds, "nanos": timestamp.nanos}


@lru_cache(maxsize=256)
def time_to_json(time: datetime) -> str:
    """A time as proto3 JSON has it."""
    return _timestamp(time).ToJsonString()


def time_from_proto(timestamp: Timestamp, field: str) -> datetime:
    """A time in whole microseconds: finer is not kept.

    Raises:
        Problem: FIELD_INVALID, it is no time.
    """
    try:
        return timestamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        description = "is no time: use seconds of the years 1 to 9999 and nanos of 0 to 999999999"
        raise Problem(Reason.FIELD_INVALID, violations=[Violation(field, description)]) from None


def money_to_proto(amount_minor: int, currency: str) -> Money:
    """An amount as callers see it."""
    return Money(amount_minor=amount_minor, currency=currency)


def metadata_from_proto(metadata: Mapping[str, str], field: str) -> dict[str, str]:
    """What the caller wants to find something by.

    Raises:
        Problem: FIELD_INVALID, it is too large.
    """
    kept = dict(metadata)
    if not kept:
        return kept
    size = sum(len(text.encode()) for pair in kept.items() for text in pair)
    if size > METADATA_BYTES_MAX:
        description = f"holds {size} bytes of names and values: keep to {METADATA_BYTES_MAX}"
        raise Problem(Reason.FIELD_INVALID, violations=[Violation(field, description)])
    return kept
