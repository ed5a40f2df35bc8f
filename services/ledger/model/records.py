"""The record of a transaction: the bytes that its leaf in the tree is the hash of. No I/O.

docs/ledger-proofs.md tells the form. Every field is its length, four bytes with the most significant first, and its
bytes, so no two different transactions have the same record.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from services.ledger.model.accounts import Side
from services.ledger.model.postings import Entry, Kind, Transaction

RECORD_FORM = "kente-ledger-record-v1"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INTEGER_BYTES = 8
_ABSENT = b"\x00\x00\x00\x00"
_pack_length = struct.Struct(">I").pack
# The length of an integer field, and the integer.
_pack_integer = struct.Struct(">Iq").pack


class RecordError(ValueError):
    """Bytes that are no record."""


def _text(text: str) -> bytes:
    data = text.encode()
    return _pack_length(len(data)) + data


# For what there are few of. Of accounts there are many: to find one of so many texts takes longer than to make it anew.
_common_text = lru_cache(maxsize=1024)(_text)

_FORM = _text(RECORD_FORM)
_NO_METADATA = _pack_integer(_INTEGER_BYTES, 0)
_KINDS = {kind: _text(kind.value) for kind in Kind}
_POSTED_SIDES = {side: _text(side.value) + b"\x00\x00\x00\x01\x00" for side in Side}
_PENDING_SIDES = {side: _text(side.value) + b"\x00\x00\x00\x01\x01" for side in Side}


def encode_record(tenant_id: str, transaction: Transaction) -> bytes:
    """The record of a transaction of a tenant."""
    effective_time, expire_time = transaction.effective_time, transaction.expire_time
    parts = [
        _FORM,
        _common_text(tenant_id),
        _common_text(transaction.book_name),
        _pack_integer(_INTEGER_BYTES, transaction.leaf_index),
        _text(transaction.transaction_id),
        _KINDS[transaction.kind],
        _text(transaction.description) if transaction.description else _ABSENT,
        _text(transaction.source_id) if transaction.source_id else _ABSENT,
        _text(transaction.related_id) if transaction.related_id else _ABSENT,
        _ABSENT if effective_time is None else _time(effective_time),
        _ABSENT if expire_time is None else _time(expire_time),
        _common_time(transaction.create_time),
        _pack_integer(_INTEGER_BYTES, transaction.first_sequence),
        _metadata(transaction) if transaction.metadata else _NO_METADATA,
        _pack_integer(_INTEGER_BYTES, len(transaction.entries)),
    ]
    for entry in transaction.entries:
        parts += (
            _text(entry.account_name),
            (_PENDING_SIDES if entry.pending else _POSTED_SIDES)[entry.side],
            _pack_integer(_INTEGER_BYTES, entry.amount_minor),
            _common_text(entry.currency),
            _pack_integer(_INTEGER_BYTES, entry.balance_after_minor),
        )
    return b"".join(parts)


def _metadata(transaction: Transaction) -> bytes:
    """Sorted by code point, which is also the order of the names' bytes."""
    metadata = transaction.metadata
    parts = [_pack_integer(_INTEGER_BYTES, len(metadata))]
    for name in sorted(metadata):
        parts += (_common_text(name), _text(metadata[name]))
    return b"".join(parts)


def _time(time: datetime) -> bytes:
    since = time - _EPOCH
    # Faster than a division of one timedelta by another.
    microseconds = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    return _pack_integer(_INTEGER_BYTES, microseconds)


# All that is booked together has the same.
_common_time = lru_cache(maxsize=16)(_time)


def decode_record(record: bytes) -> tuple[str, Transaction]:
    """The tenant and the transaction that a record is of.

    Raises:
        RecordError: it is not in the form, down to the last byte.
    """
    fields = _fields(record)
    try:
        if next(fields) != RECORD_FORM.encode():
            raise RecordError("the record has another form")
        tenant_id, transaction = next(fields).decode(), _decode_transaction(fields)
    except (ValueError, OverflowError) as error:
        raise RecordError(f"the record can't be read: {error}") from None
    # There is one right way to write a transaction: anything else would let two records stand for the same.
    if encode_record(tenant_id, transaction) != record:
        raise RecordError("the record is not written in the one right way")
    return tenant_id, transaction


def _decode_transaction(fields: Iterator[bytes]) -> Transaction:
    book_name, leaf_index = next(fields).decode(), _integer(next(fields))
    transaction_id, kind = next(fields).decode(), Kind(next(fields).decode())
    description, source_id, related_id = (next(fields).decode() for _ in range(3))
    effective_time, expire_time = (_decode_time(next(fields)) for _ in range(2))
    create_time, first_sequence = _EPOCH + _integer(next(fields)) * _MICROSECOND, _integer(next(fields))
    metadata = {next(fields).decode(): next(fields).decode() for _ in range(_integer(next(fields)))}
    entries = tuple(_decode_entry(first_sequence + offset, fields) for offset in range(_integer(next(fields))))
    return Transaction(
        transaction_id=transaction_id,
        kind=kind,
        book_name=book_name,
        leaf_index=leaf_index,
        first_sequence=first_sequence,
        entries=entries,
        description=description,
        source_id=source_id,
        metadata=metadata,
        effective_time=effective_time,
        expire_time=expire_time,
        related_id=related_id,
        create_time=create_time,
    )


def _decode_entry(sequence: int, fields: Iterator[bytes]) -> Entry:
    return Entry(
        sequence=sequence,
        account_name=next(fields).decode(),
        side=Side(next(fields).decode()),
        pending=next(fields) != b"\x00",
        amount_minor=_integer(next(fields)),
        currency=next(fields).decode(),
        balance_after_minor=_integer(next(fields)),
    )


def _fields(record: bytes) -> Iterator[bytes]:
    offset = 0
    while offset < len(record):
        start = offset + 4
        offset = start + int.from_bytes(record[offset:start], "big")
        if offset > len(record):
            raise RecordError("the record ends in the middle of a field")
        yield record[start:offset]
    # Asked for on and on, so that whoever reads too far hears of it.
    raise RecordError("the record ends too early")


def _integer(field: bytes) -> int:
    if len(field) != _INTEGER_BYTES:
        raise RecordError("a number does not have eight bytes")
    return int.from_bytes(field, "big", signed=True)


def _decode_time(field: bytes) -> datetime | None:
    return _EPOCH + _integer(field) * _MICROSECOND if field else None
