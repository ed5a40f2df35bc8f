"""Rows of transactions and entries as PostgreSQL copies them out in binary, and records out of them. No I/O.

COPY writes a field as its length, four bytes with the most significant first, and its bytes: just as a record does. So
most of a record is cut out of the copy in one piece, many times faster than by reading each field and writing it anew.
The queries in repository/copies.py put the columns into the order that is read here. Format: PostgreSQL documentation,
COPY, "Binary Format".
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import NamedTuple

_HEADER_BYTES = 19
_SIGNATURE = b"PGCOPY\n\xff\r\n\x00"
# In place of another row's number of columns.
_TRAILER = b"\xff\xff"
_NULL = -1
_TIME_BYTES = 8
# PostgreSQL counts from 2000-01-01, records from 1970-01-01.
EPOCH_MICROSECONDS = 946_684_800_000_000
# A field of a record that is empty.
ABSENT = b"\x00\x00\x00\x00"
_NO_METADATA = struct.pack(">Iq", 8, 0)
EMPTY_OBJECT = b"{}"
_LAST_TIME = (1 << 63) - 1
pack_length = struct.Struct(">I").pack
pack_integer = struct.Struct(">Iq").pack
_FORM = pack_length(22) + b"kente-ledger-record-v1"
field_length = struct.Struct(">i").unpack_from
# Number of columns, then length and value of each column that always has the same length.
_TRANSACTION = struct.Struct(">hiqiqiqii")
_ENTRY = struct.Struct(">hiqiqiqi?iq")
# pending, amount_minor, and the length of currency.
_ENTRY_AMOUNT = struct.Struct(">i?iqi")
# balance_after_minor, and the length of effective_time.
_ENTRY_BALANCE = struct.Struct(">iqi")
_DEBIT_BYTES = len(b"debit")
# What the class itself does, at half the price: there are millions of rows.
_new = tuple.__new__


class CopiedTransaction(NamedTuple):
    """A row of a transaction.

    Attributes:
        create_time: microseconds since 1970.
        effective_time: length and bytes as copied; the same bytes in its entries mean the same time.
        record_head: of its record, all before the entries, without the number of them.
    """

    leaf_index: int
    first_sequence: int
    create_time: int
    entry_count: int
    transaction_id: bytes
    kind: bytes
    effective_time: bytes
    leaf_hash: bytes
    record_head: bytes


class CopiedEntry(NamedTuple):
    """A row of an entry.

    Attributes:
        has_debit_side: its account grows on the debit side.
        signed_minor: the amount, below zero for a credit.
        record_part: what the record says of it.
    """

    sequence: int
    leaf_index: int
    account_key: int
    has_debit_side: bool
    create_time: int
    account_name: bytes
    pending: bool
    signed_minor: int
    currency: bytes
    balance_after_minor: int
    effective_time: bytes
    record_part: bytes


def copied_transactions(tenant_id: str, copy: bytes) -> Iterator[CopiedTransaction]:
    """The rows of a copy of transactions of a tenant, as repository/copies.py asks for them."""
    prefix = record_prefix(tenant_id)
    position, end = row_bounds(copy)
    while position < end:
        _, _, leaf_index, _, first_sequence, _, create_time, _, entry_count = _TRANSACTION.unpack_from(copy, position)
        create_time += EPOCH_MICROSECONDS
        book_start = position + _TRANSACTION.size
        id_start = book_start + 4 + field_length(copy, book_start)[0]
        kind_start = id_start + 4 + field_length(copy, id_start)[0]
        description_start = kind_start + 4 + field_length(copy, kind_start)[0]
        source_start = description_start + 4 + field_length(copy, description_start)[0]
        related_start = source_start + 4 + field_length(copy, source_start)[0]
        effective_start = related_start + 4 + field_length(copy, related_start)[0]
        expire_start = effective_start + 4 + max(0, field_length(copy, effective_start)[0])
        metadata_start = expire_start + 4 + max(0, field_length(copy, expire_start)[0])
        hash_start = metadata_start + 4 + field_length(copy, metadata_start)[0]
        position = hash_start + 4 + field_length(copy, hash_start)[0]
        record_head = b"".join(
            (
                prefix,
                copy[book_start:id_start],
                pack_integer(8, leaf_index),
                copy[id_start:effective_start],
                time_field(copy, effective_start),
                time_field(copy, expire_start),
                _pack_time(create_time),
                pack_integer(8, first_sequence),
                metadata_fields(copy[metadata_start + 4 : hash_start]),
            )
        )
        yield _new(
            CopiedTransaction,
            (
                leaf_index,
                first_sequence,
                create_time,
                entry_count,
                copy[id_start + 4 : kind_start],
                copy[kind_start + 4 : description_start],
                copy[effective_start:expire_start],
                copy[hash_start + 4 : position],
                record_head,
            ),
        )


def copied_entries(copy: bytes) -> Iterator[CopiedEntry]:
    """The rows of a copy of entries, as repository/copies.py asks for them."""
    position, end = row_bounds(copy)
    while position < end:
        (_, _, sequence, _, leaf_index, _, account_key, _, has_debit_side, _, create_time) = _ENTRY.unpack_from(
            copy, position
        )
        part_start = position + _ENTRY.size
        side_start = part_start + 4 + field_length(copy, part_start)[0]
        side_bytes = field_length(copy, side_start)[0]
        amount_start = side_start + 4 + side_bytes
        _, pending, _, amount_minor, currency_bytes = _ENTRY_AMOUNT.unpack_from(copy, amount_start)
        currency_start = amount_start + _ENTRY_AMOUNT.size
        balance_start = currency_start + currency_bytes
        _, balance_after_minor, effective_bytes = _ENTRY_BALANCE.unpack_from(copy, balance_start)
        part_end = balance_start + _ENTRY_BALANCE.size - 4
        position = part_end + 4 + max(0, effective_bytes)
        yield _new(
            CopiedEntry,
            (
                sequence,
                leaf_index,
                account_key,
                has_debit_side,
                create_time + EPOCH_MICROSECONDS,
                copy[part_start + 4 : side_start],
                pending,
                amount_minor if side_bytes == _DEBIT_BYTES else -amount_minor,
                copy[currency_start:balance_start],
                balance_after_minor,
                copy[part_end:position],
                copy[part_start:part_end],
            ),
        )


def record_of(transaction: CopiedTransaction, entries: list[CopiedEntry]) -> bytes:
    """The record of a transaction with these entries."""
    return b"".join((transaction.record_head, pack_integer(8, len(entries)), *(entry.record_part for entry in entries)))


def record_prefix(tenant_id: str) -> bytes:
    """What every record of a tenant begins with."""
    tenant = tenant_id.encode()
    return _FORM + pack_length(len(tenant)) + tenant


def row_bounds(copy: bytes) -> tuple[int, int]:
    """Where the first row of a copy starts, and where the last one ends.

    Raises:
        ValueError: it is no copy.
    """
    if not copy.startswith(_SIGNATURE) or not copy.endswith(_TRAILER):
        raise ValueError("this is no binary copy")
    return _HEADER_BYTES, len(copy) - len(_TRAILER)


def time_field(copy: bytes, start: int) -> bytes:
    """The time of a copied field, as a record has it."""
    if field_length(copy, start)[0] == _NULL:
        return ABSENT
    microseconds = int.from_bytes(copy[start + 4 : start + 4 + _TIME_BYTES], "big", signed=True)
    return _pack_time(microseconds + EPOCH_MICROSECONDS)


def _pack_time(microseconds: int) -> bytes:
    """A time since 1970, as a record has it."""
    if microseconds > _LAST_TIME:
        # Put there by other hands, such as infinity: longer than the time of any record, it can't match one.
        return pack_length(_TIME_BYTES + 1) + microseconds.to_bytes(_TIME_BYTES + 1, "big")
    return pack_integer(_TIME_BYTES, microseconds)


def metadata_fields(text: bytes) -> bytes:
    """Metadata as copied, as a record has it."""
    if text == EMPTY_OBJECT:
        return _NO_METADATA
    try:
        metadata = json.loads(text)
        if isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values()):
            return _pack_metadata(metadata)
    except (ValueError, RecursionError):
        # A number of thousands of digits, or nested a thousand times.
        pass
    # Put there by other hands: no record has so many.
    return pack_integer(8, -1)


def _pack_metadata(metadata: dict[str, str]) -> bytes:
    parts = [pack_integer(8, len(metadata))]
    for name in sorted(metadata):
        for text in (name, metadata[name]):
            data = text.encode()
            parts.append(pack_length(len(data)) + data)
    return b"".join(parts)
