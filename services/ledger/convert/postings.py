"""Between the contracts and what is asked to be booked, and what was booked. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from google.protobuf.message import Message
from kente.ledger.v1 import ledger_pb2, proof_pb2
from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.errors import Problem, Reason, Violation
from services.ledger.convert.common import (
    HOLD_STATES_TO_PROTO,
    KINDS_TO_PROTO,
    SIDES_FROM_PROTO,
    SIDES_TO_PROTO,
    book_name_from_proto,
    metadata_from_proto,
    time_fields,
    time_from_proto,
    time_to_json,
    time_to_proto,
)
from services.ledger.model.accounts import Side
from services.ledger.model.evaluation import Booked
from services.ledger.model.postings import Assertion, Entry, Kind, Leg, Posting, Transaction
from services.ledger.model.proofs import Checkpoint, InclusionProof
from services.ledger.model.running import BalanceAfter

SingleRequest = pb2.CreateTransactionRequest | pb2.PostHoldRequest | pb2.VoidHoldRequest | pb2.ReverseTransactionRequest
# Fields of a request that are about the call and not about what is to be booked.
_CALL_FIELDS = ("request_id", "include_proof")
TRANSFERS_LETTER = b"T"
# What was asked for is kept as a letter for the RPC and the request without those fields.
_REQUEST_TYPES: dict[bytes, type[Message]] = {
    b"C": pb2.CreateTransactionRequest,
    b"P": pb2.PostHoldRequest,
    b"V": pb2.VoidHoldRequest,
    b"R": pb2.ReverseTransactionRequest,
    TRANSFERS_LETTER: pb2.CreateTransfersRequest,
}
_KIND_NAMES = {kind: f"KIND_{kind.name}" for kind in Kind}
_SIDE_NAMES = {side: f"SIDE_{side.name}" for side in Side}
_LETTERS = {type_: letter for letter, type_ in _REQUEST_TYPES.items()}


def posting_from_proto(request: pb2.CreateTransactionRequest) -> Posting:
    """The transaction that a request asks to post or hold.

    Raises:
        Problem: FIELD_INVALID, a time is no time, or belongs to a hold only.
    """
    expire_time = time_from_proto(request.expire_time, "expire_time") if request.HasField("expire_time") else None
    if expire_time is not None and not request.pending:
        raise invalid("expire_time", "is for what is held: set pending as well, or leave it out")
    return Posting(
        transaction_id=request.transaction_id,
        kind=Kind.HOLD if request.pending else Kind.POSTING,
        request=_request_bytes(request),
        legs=tuple(map(_leg_from_proto, request.legs)),
        book_name=book_name_from_proto(request.book_name),
        description=request.description,
        source_id=request.source_id,
        metadata=metadata_from_proto(request.metadata, "metadata"),
        effective_time=effective_time_from_proto(request),
        expire_time=expire_time,
        assertions=tuple(
            Assertion(assertion.account_name, assertion.balance.amount_minor, assertion.balance.currency)
            for assertion in request.assertions
        ),
        include_proof=request.include_proof,
    )


def hold_posting_from_proto(request: pb2.PostHoldRequest) -> Posting:
    """What a request asks to post of a hold.

    Raises:
        Problem: FIELD_INVALID.
    """
    if len(request.legs) == 1:
        raise invalid("legs", "has one leg: give two or more that balance, or none to post all that is held")
    return Posting(
        transaction_id=request.transaction_id,
        kind=Kind.HOLD_POSTING,
        request=_request_bytes(request),
        legs=tuple(map(_leg_from_proto, request.legs)),
        description=request.description,
        metadata=metadata_from_proto(request.metadata, "metadata"),
        effective_time=effective_time_from_proto(request),
        related_id=request.hold_transaction_id,
        include_proof=request.include_proof,
    )


def hold_void_from_proto(request: pb2.VoidHoldRequest) -> Posting:
    """The hold that a request asks to release."""
    return Posting(
        transaction_id=request.transaction_id,
        kind=Kind.HOLD_VOID,
        request=_request_bytes(request),
        description=request.description,
        metadata=metadata_from_proto(request.metadata, "metadata"),
        related_id=request.hold_transaction_id,
        include_proof=request.include_proof,
    )


def reversal_from_proto(request: pb2.ReverseTransactionRequest) -> Posting:
    """The reversal that a request asks for.

    Raises:
        Problem: FIELD_INVALID.
    """
    return Posting(
        transaction_id=request.transaction_id,
        kind=Kind.REVERSAL,
        request=_request_bytes(request),
        description=request.description,
        metadata=metadata_from_proto(request.metadata, "metadata"),
        effective_time=effective_time_from_proto(request),
        related_id=request.reversed_transaction_id,
        entry_indexes=tuple(request.entry_indexes),
        include_proof=request.include_proof,
    )


def differing_fields(stored: bytes, asked: bytes) -> list[str]:
    """Names of the fields in which two requests with the same transaction_id differ, such as legs[0].amount."""
    if stored[:1] != asked[:1]:
        return ["rpc"]
    before, now = _stored_request(stored), _stored_request(asked)
    return list(_differences(before, now)) or ["book_name"]


def _stored_request(stored: bytes) -> Message:
    message = _REQUEST_TYPES[stored[:1]].FromString(stored[1:])
    # Of a transfer, what its caller knows by name are the fields of the transfer itself.
    return message.transfers[0] if isinstance(message, pb2.CreateTransfersRequest) else message


def _differences(before: Message, now: Message) -> Iterator[str]:
    """Paths of the fields that differ: of lists of as many messages, within the messages."""
    for field in before.DESCRIPTOR.fields:
        one, other = _value(before, field), _value(now, field)
        if one == other:
            continue
        if _is_list_of_messages(field) and len(one) == len(other):
            for number, pair in enumerate(zip(one, other, strict=True)):
                yield from (f"{field.name}[{number}].{name}" for name in _differences(*pair))
        else:
            yield field.name


def _is_list_of_messages(field: Any) -> bool:  # noqa: ANN401 - descriptors have no types here
    type_ = field.message_type
    return field.is_repeated and type_ is not None and not type_.GetOptions().map_entry


def _value(message: Message, field: Any) -> Any:  # noqa: ANN401 - descriptors have no types here, and values have any
    if field.has_presence and not message.HasField(field.name):
        return None
    return getattr(message, field.name)


def _request_bytes(request: SingleRequest) -> bytes:
    body: Message = type(request)()
    body.MergeFrom(request)
    for field in _CALL_FIELDS:
        body.ClearField(field)
    return _LETTERS[type(request)] + body.SerializeToString(deterministic=True)


def _leg_from_proto(leg: ledger_pb2.Leg) -> Leg:
    amount = leg.amount
    return Leg(leg.account_name, SIDES_FROM_PROTO[leg.side], amount.amount_minor, amount.currency)


def effective_time_from_proto(message: Any, prefix: str = "") -> datetime | None:  # noqa: ANN401 - any request that has the field
    if not message.HasField("effective_time"):
        return None
    return time_from_proto(message.effective_time, f"{prefix}effective_time")


def invalid(field: str, description: str) -> Problem:
    return Problem(Reason.FIELD_INVALID, violations=[Violation(field, description)])


def transaction_to_proto(transaction: Transaction) -> ledger_pb2.Transaction:
    """A transaction as callers see it, with its entries."""
    return ledger_pb2.Transaction(**_transaction_fields(transaction))


# Messages are made of the fields of the messages within them: what is a message already would be written and read again
# to get there.


def _transaction_fields(transaction: Transaction) -> dict[str, Any]:
    expire_time, hold_state = transaction.expire_time, transaction.hold_state
    times = {
        "create_time": time_fields(transaction.create_time),
        "effective_time": time_fields(transaction.effective_time or transaction.create_time),
    }
    return {
        "transaction_id": transaction.transaction_id,
        "description": transaction.description,
        "source_id": transaction.source_id,
        "entries": [_entry_fields(entry, transaction, times) for entry in transaction.entries],
        **times,
        "book_name": transaction.book_name,
        "kind": KINDS_TO_PROTO[transaction.kind],
        "metadata": transaction.metadata,
        "leaf_index": transaction.leaf_index,
        "expire_time": None if expire_time is None else time_fields(expire_time),
        "hold_state": None if hold_state is None else HOLD_STATES_TO_PROTO[hold_state],
        "related_transaction_id": transaction.related_id,
        "later_transaction_ids": transaction.later_ids,
    }


def _entry_fields(entry: Entry, transaction: Transaction, times: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "sequence": entry.sequence,
        "transaction_id": transaction.transaction_id,
        "account_name": entry.account_name,
        "side": SIDES_TO_PROTO[entry.side],
        "amount": {"amount_minor": entry.amount_minor, "currency": entry.currency},
        "balance_after": {"amount_minor": entry.balance_after_minor, "currency": entry.currency},
        "pending": entry.pending,
        **times,
    }


def booked_to_proto(booked: Booked, proof: InclusionProof | None) -> pb2.CreateTransactionResponse:
    """The answer to whoever asked for one transaction; all four RPCs that book one answer alike."""
    fields: dict[str, Any] = {
        "transaction": _transaction_fields(booked.transaction),
        "balances": [_balance_fields(balance) for balance in booked.balances],
        "proof": inclusion_proof_to_proto(proof) if proof else None,
    }
    return pb2.CreateTransactionResponse(**fields)


def inclusion_proof_to_proto(proof: InclusionProof) -> proof_pb2.InclusionProof:
    """The proof that a transaction is in the tree, as callers see it."""
    return proof_pb2.InclusionProof(
        leaf_index=proof.leaf_index,
        record=proof.record,
        path=proof.path,
        checkpoint=checkpoint_to_proto(proof.checkpoint),
    )


def checkpoint_to_proto(checkpoint: Checkpoint) -> proof_pb2.Checkpoint:
    """A checkpoint as callers see it."""
    return proof_pb2.Checkpoint(
        tree_size=checkpoint.tree_size,
        root_hash=checkpoint.root_hash,
        note=checkpoint.note,
        create_time=time_to_proto(checkpoint.create_time),
    )


def _balance_fields(balance: BalanceAfter) -> dict[str, Any]:
    return {
        "account_name": balance.account_name,
        "balance": {"amount_minor": balance.balance_minor, "currency": balance.currency},
        "pending_debits_minor": balance.pending_debits_minor,
        "pending_credits_minor": balance.pending_credits_minor,
        "available_minor": balance.available_minor,
    }


def transaction_to_json(transaction: Transaction) -> dict[str, Any]:
    """A transaction as its event carries it: the proto3 JSON of transaction_to_proto, made without the detour."""
    times = {
        "createTime": time_to_json(transaction.create_time),
        "effectiveTime": time_to_json(transaction.effective_time or transaction.create_time),
    }
    document: dict[str, Any] = {
        "transactionId": transaction.transaction_id,
        "description": transaction.description,
        "sourceId": transaction.source_id,
        "entries": [_entry_to_json(entry, transaction, times) for entry in transaction.entries],
        **times,
        "bookName": transaction.book_name,
        "kind": _KIND_NAMES[transaction.kind],
        "metadata": dict(transaction.metadata),
        "leafIndex": str(transaction.leaf_index) if transaction.leaf_index else "",
        "expireTime": time_to_json(transaction.expire_time) if transaction.expire_time else "",
        "holdState": f"HOLD_STATE_{transaction.hold_state.name}" if transaction.hold_state else "",
        "relatedTransactionId": transaction.related_id,
        "laterTransactionIds": list(transaction.later_ids),
    }
    return {name: value for name, value in document.items() if value}


def _entry_to_json(entry: Entry, transaction: Transaction, times: Mapping[str, str]) -> dict[str, Any]:
    document = {
        "sequence": str(entry.sequence),
        "transactionId": transaction.transaction_id,
        "accountName": entry.account_name,
        "side": _SIDE_NAMES[entry.side],
        "amount": _money_to_json(entry.amount_minor, entry.currency),
        "balanceAfter": _money_to_json(entry.balance_after_minor, entry.currency),
        **times,
    }
    return document | {"pending": True} if entry.pending else document


def _money_to_json(amount_minor: int, currency: str) -> dict[str, str]:
    return {"amountMinor": str(amount_minor), "currency": currency} if amount_minor else {"currency": currency}
