"""Between the contract of CreateTransfers and what is asked to be booked. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.errors import Problem, Reason, Violation
from services.ledger.convert.common import book_name_from_proto, metadata_from_proto, time_from_proto
from services.ledger.convert.postings import TRANSFERS_LETTER, effective_time_from_proto
from services.ledger.model.accounts import Side
from services.ledger.model.evaluation import Booked
from services.ledger.model.postings import Kind, Leg, Posting

_TRANSFERS_TAG = b"\x12"  # field 2, with a length
_RESULTS_TAG = b"\x0a"  # field 1, with a length
_ACTIONS = {
    ledger_pb2.Transfer.ACTION_UNSPECIFIED: Kind.POSTING,
    ledger_pb2.Transfer.ACTION_POST: Kind.POSTING,
    ledger_pb2.Transfer.ACTION_HOLD: Kind.HOLD,
    ledger_pb2.Transfer.ACTION_POST_HOLD: Kind.HOLD_POSTING,
    ledger_pb2.Transfer.ACTION_VOID_HOLD: Kind.HOLD_VOID,
}


def transfers_from_proto(request: pb2.CreateTransfersRequest) -> list[Posting]:
    """The transfers that a request asks for.

    Raises:
        Problem: FIELD_INVALID, naming each field at fault.
    """
    book_name = book_name_from_proto(request.book_name)
    violations: list[Violation] = []
    for index, transfer in enumerate(request.transfers):
        violations += [Violation(f"transfers[{index}].{field}", words) for field, words in _transfer_faults(transfer)]
    if request.transfers[-1].linked:
        words = "ends the batch within a linked group: add the rest of the group, or clear linked"
        violations.append(Violation(f"transfers[{len(request.transfers) - 1}].linked", words))
    if violations:
        raise Problem(Reason.FIELD_INVALID, violations=violations)
    # Ends what is kept of each: the request as it would look with this one transfer.
    book = pb2.CreateTransfersRequest(book_name=request.book_name).SerializeToString()
    return [
        _transfer_from_proto(transfer, book_name, book, f"transfers[{index}].")
        for index, transfer in enumerate(request.transfers)
    ]


def _transfer_from_proto(transfer: ledger_pb2.Transfer, book_name: str, book: bytes, field: str) -> Posting:
    kind = _ACTIONS[transfer.action]
    amount_minor, currency = transfer.amount.amount_minor, transfer.amount.currency
    legs: tuple[Leg, ...] = ()
    if kind is Kind.HOLD_POSTING:
        # The amount only: the hold knows the accounts.
        legs = (Leg("", Side.DEBIT, amount_minor, currency),) if amount_minor else ()
    elif kind is not Kind.HOLD_VOID:
        legs = (
            Leg(transfer.debit_account_name, Side.DEBIT, amount_minor, currency),
            Leg(transfer.credit_account_name, Side.CREDIT, amount_minor, currency),
        )
    return Posting(
        transfer.transaction_id,
        kind,
        _transfer_bytes(transfer, book),
        legs,
        book_name,
        transfer.description,
        transfer.source_id,
        metadata_from_proto(transfer.metadata, f"{field}metadata") if transfer.metadata else {},
        effective_time_from_proto(transfer, field),
        time_from_proto(transfer.expire_time, f"{field}expire_time") if transfer.HasField("expire_time") else None,
        transfer.hold_transaction_id,
        linked=transfer.linked,
        up_to_available=transfer.up_to_available,
        include_balances=False,
    )


def _transfer_faults(transfer: ledger_pb2.Transfer) -> Iterable[tuple[str, str]]:
    """Fields of a transfer that do not go together, each with what is wrong and what to do."""
    kind = _ACTIONS[transfer.action]
    if kind in {Kind.POSTING, Kind.HOLD}:
        yield from _movement_faults(transfer)
    else:
        yield from _hold_end_faults(transfer, kind)
    if kind is not Kind.HOLD and transfer.HasField("expire_time"):
        yield "expire_time", "is for ACTION_HOLD: leave it out"


def _movement_faults(transfer: ledger_pb2.Transfer) -> Iterable[tuple[str, str]]:
    if not transfer.debit_account_name:
        yield "debit_account_name", "is empty: name the account to debit"
    if not transfer.credit_account_name:
        yield "credit_account_name", "is empty: name the account to credit"
    if transfer.amount.amount_minor <= 0:
        yield "amount.amount_minor", "must be more than zero minor units"
    if transfer.hold_transaction_id:
        yield "hold_transaction_id", "is for ACTION_POST_HOLD and ACTION_VOID_HOLD: leave it out"


def _hold_end_faults(transfer: ledger_pb2.Transfer, kind: Kind) -> Iterable[tuple[str, str]]:
    if not transfer.hold_transaction_id:
        yield "hold_transaction_id", "is empty: name the hold"
    for field in ("debit_account_name", "credit_account_name", "source_id"):
        if getattr(transfer, field):
            yield field, "is known from the hold: leave it out"
    if transfer.up_to_available:
        yield "up_to_available", "is for ACTION_POST and ACTION_HOLD: leave it out"
    if not transfer.HasField("amount"):
        return
    if kind is Kind.HOLD_VOID:
        yield "amount", "is known from the hold: leave it out"
    elif transfer.amount.amount_minor <= 0:
        yield "amount.amount_minor", "must be more than zero minor units; leave amount out to post all that is held"


def transfer_result_to_proto(booked: Booked) -> ledger_pb2.TransferResult:
    """The answer to whoever asked for one transfer of several."""
    transaction = booked.transaction
    result = ledger_pb2.TransferResult(transaction_id=transaction.transaction_id, leaf_index=transaction.leaf_index)
    if not transaction.entries:
        return result
    first = transaction.entries[0]
    result.amount.amount_minor, result.amount.currency = first.amount_minor, first.currency
    result.first_sequence = transaction.first_sequence
    for entry in transaction.entries:
        if entry.side is Side.DEBIT:
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


def _varint(number: int) -> bytes:
    """A length as it stands before a field (protobuf encoding)."""
    parts = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)
