"""Between the contract of CreateTransfers and what is asked to be booked. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Literal

from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.errors import Problem, Reason, Violation
from services.ledger.convert.common import book_name_from_proto, metadata_from_proto, time_from_proto
from services.ledger.convert.postings import TRANSFERS_LETTER
from services.ledger.model.accounts import CREDIT, DEBIT
from services.ledger.model.evaluation import Booked
from services.ledger.model.postings import Kind, Leg, Posting

_TRANSFERS_TAG = b"\x12"  # field 2, with a length
_RESULTS_TAG = b"\x0a"  # field 1, with a length
# Found once, as DEBIT is.
_HOLD = Kind.HOLD
_MOVEMENTS = {Kind.POSTING, Kind.HOLD}
_ACTIONS = {
    ledger_pb2.Transfer.ACTION_UNSPECIFIED: Kind.POSTING,
    ledger_pb2.Transfer.ACTION_POST: Kind.POSTING,
    ledger_pb2.Transfer.ACTION_HOLD: Kind.HOLD,
    ledger_pb2.Transfer.ACTION_POST_HOLD: Kind.HOLD_POSTING,
    ledger_pb2.Transfer.ACTION_VOID_HOLD: Kind.HOLD_VOID,
}

TimeField = Literal["effective_time", "expire_time"]


def transfers_from_proto(request: pb2.CreateTransfersRequest) -> list[Posting]:
    """The transfers that a request asks for.

    Raises:
        Problem: FIELD_INVALID, naming each field at fault.
    """
    book_name = book_name_from_proto(request.book_name)
    # Each is looked at twice, and made an object of Python once.
    transfers = list(request.transfers)
    violations = [
        Violation(f"transfers[{index}].{field}", words)
        for index, transfer in enumerate(transfers)
        for field, words in _transfer_faults(transfer)
    ]
    if transfers[-1].linked:
        words = "ends the batch within a linked group: add the rest of the group, or clear linked"
        violations.append(Violation(f"transfers[{len(transfers) - 1}].linked", words))
    if violations:
        raise Problem(Reason.FIELD_INVALID, violations=violations)
    # Ends what is kept of each: the request as it would look with this one transfer.
    book = pb2.CreateTransfersRequest(book_name=request.book_name).SerializeToString()
    return [_transfer_from_proto(transfer, book_name, book, index) for index, transfer in enumerate(transfers)]


def _transfer_from_proto(transfer: ledger_pb2.Transfer, book_name: str, book: bytes, index: int) -> Posting:
    kind, amount = _ACTIONS[transfer.action], transfer.amount
    amount_minor, currency = amount.amount_minor, amount.currency
    legs: tuple[Leg, ...] = ()
    if kind in _MOVEMENTS:
        legs = (
            Leg(transfer.debit_account_name, DEBIT, amount_minor, currency),
            Leg(transfer.credit_account_name, CREDIT, amount_minor, currency),
        )
    elif kind is Kind.HOLD_POSTING and amount_minor:
        # The amount only: the hold knows the accounts.
        legs = (Leg("", DEBIT, amount_minor, currency),)
    metadata = transfer.metadata
    return Posting(
        transfer.transaction_id,
        kind,
        _transfer_bytes(transfer, book),
        legs,
        book_name,
        transfer.description,
        transfer.source_id,
        metadata_from_proto(metadata, f"transfers[{index}].metadata") if metadata else {},
        _time_from_proto(transfer, "effective_time", index),
        _time_from_proto(transfer, "expire_time", index),
        transfer.hold_transaction_id,
        linked=transfer.linked,
        up_to_available=transfer.up_to_available,
        include_balances=False,
    )


def _time_from_proto(transfer: ledger_pb2.Transfer, field: TimeField, index: int) -> datetime | None:
    if not transfer.HasField(field):
        return None
    return time_from_proto(getattr(transfer, field), f"transfers[{index}].{field}")


def _transfer_faults(transfer: ledger_pb2.Transfer) -> list[tuple[str, str]]:
    """Fields of a transfer that do not go together, each with what is wrong and what to do."""
    kind = _ACTIONS[transfer.action]
    faults = _movement_faults(transfer) if kind in _MOVEMENTS else _hold_end_faults(transfer, kind)
    if kind is not _HOLD and transfer.HasField("expire_time"):
        faults.append(("expire_time", "is for ACTION_HOLD: leave it out"))
    return faults


def _movement_faults(transfer: ledger_pb2.Transfer) -> list[tuple[str, str]]:
    faults = []
    if not transfer.debit_account_name:
        faults.append(("debit_account_name", "is empty: name the account to debit"))
    if not transfer.credit_account_name:
        faults.append(("credit_account_name", "is empty: name the account to credit"))
    if transfer.amount.amount_minor <= 0:
        faults.append(("amount.amount_minor", "must be more than zero minor units"))
    if transfer.hold_transaction_id:
        faults.append(("hold_transaction_id", "is for ACTION_POST_HOLD and ACTION_VOID_HOLD: leave it out"))
    return faults


def _hold_end_faults(transfer: ledger_pb2.Transfer, kind: Kind) -> list[tuple[str, str]]:
    faults = []
    if not transfer.hold_transaction_id:
        faults.append(("hold_transaction_id", "is empty: name the hold"))
    known = [field for field in ("debit_account_name", "credit_account_name", "source_id") if getattr(transfer, field)]
    faults += [(field, "is known from the hold: leave it out") for field in known]
    if transfer.up_to_available:
        faults.append(("up_to_available", "is for ACTION_POST and ACTION_HOLD: leave it out"))
    if not transfer.HasField("amount"):
        return faults
    if kind is Kind.HOLD_VOID:
        faults.append(("amount", "is known from the hold: leave it out"))
    elif transfer.amount.amount_minor <= 0:
        words = "must be more than zero minor units; leave amount out to post all that is held"
        faults.append(("amount.amount_minor", words))
    return faults


def transfer_result_to_proto(booked: Booked) -> ledger_pb2.TransferResult:
    """The answer to whoever asked for one transfer of several."""
    transaction = booked.transaction
    # Field by field: arguments by name take longer.
    result = ledger_pb2.TransferResult()
    result.transaction_id, result.leaf_index = transaction.transaction_id, transaction.leaf_index
    if not transaction.entries:
        return result
    first, amount = transaction.entries[0], result.amount
    amount.amount_minor, amount.currency = first.amount_minor, first.currency
    result.first_sequence = transaction.first_sequence
    for entry in transaction.entries:
        if entry.side is DEBIT:
            result.debit_balance_after_minor = entry.balance_after_minor
        else:
            result.credit_balance_after_minor = entry.balance_after_minor
    return result


def refusal_to_proto(transaction_id: str, problem: Problem) -> ledger_pb2.TransferResult:
    """The answer to whoever asked for a transfer that was refused."""
    return ledger_pb2.TransferResult(
        transaction_id=transaction_id, reason=problem.reason_name, detail=problem.detail, metadata=problem.metadata
    )


def transfers_answer(transaction_ids: Sequence[str], results: Sequence[bytes | Problem]) -> bytes:
    """CreateTransfersResponse, of the very bytes that each transfer was answered with first."""
    parts: list[bytes] = []
    for transaction_id, result in zip(transaction_ids, results, strict=True):
        if isinstance(result, Problem):
            body = refusal_to_proto(transaction_id, result).SerializeToString(deterministic=True)
        else:
            body = result
        parts += (_RESULTS_TAG, _varint(len(body)), body)
    return b"".join(parts)


def _transfer_bytes(transfer: ledger_pb2.Transfer, book: bytes) -> bytes:
    body = transfer.SerializeToString(deterministic=True)
    return b"".join((TRANSFERS_LETTER, _TRANSFERS_TAG, _varint(len(body)), body, book))


@lru_cache(maxsize=1024)
def _varint(number: int) -> bytes:
    """A length as it stands before a field (protobuf encoding)."""
    parts = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)
