"""Finds neighbouring transactions to be without fault, several times faster than part_check. No I/O.

It checks the same, but tells no more than that all is well, or that something may not be: what, part_check finds out.
So it takes rows in a form in which little has to be looked for. What varies in length comes once for an account and
not with each entry; what an entry repeats of its transaction lies side by side in both, and is compared as one piece.
Whatever is not in this form, such as a null where none belongs, is a doubt too.

The queries in repository/copies.py put the columns into the order that is read here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from hashlib import sha256
from itertools import islice

from services.ledger.model.copied_rows import (
    ABSENT,
    EMPTY_OBJECT,
    EPOCH_MICROSECONDS,
    field_length,
    metadata_fields,
    pack_integer,
    pack_length,
    record_prefix,
    row_bounds,
    time_field,
)
from services.ledger.model.merkle import LEAF_PREFIX
from services.ledger.model.tree_check import Leaves, check_tree
from services.ledger.model.verification import Movement, Part, PartReport

# A row is the number of its columns, two bytes, and each column after its length, four bytes. Lengths of columns that
# always have the same are skipped. In a row of a transaction, first comes how many bytes of it the record takes over in
# one piece, from the book to the related id; then first_sequence, entry_count, the place that is its entries' too, and
# leaf_hash.
_TRANSACTION = struct.Struct(">2x4xi4xq4xi4xq4xq4xq4x?4x?4x32s")
_PLACE_START = struct.calcsize(">2x4xi4xq4xi")
# What an entry repeats: leaf_index, create_time, effective_time, whether that is null, and whether it is held.
_PLACE_COLUMNS = (8, 8, 8, 1, 1)
_PLACE_BYTES = sum(4 + column_bytes for column_bytes in _PLACE_COLUMNS)
# sequence, place, account_key, the amount (below zero for a credit), balance_after_minor.
_ENTRY = struct.Struct(f">2x4xq{_PLACE_BYTES}s4xq4xq4xq")
_ENTRY_COLUMNS = (8, *_PLACE_COLUMNS, 8, 8, 8)
# Where the last byte of each column's length is, and what it is. A null has the length -1.
_ENTRY_LENGTHS = [
    (2 + sum(4 + before_bytes for before_bytes in _ENTRY_COLUMNS[:number]) + 3, column_bytes)
    for number, column_bytes in enumerate(_ENTRY_COLUMNS)
]
# account_key, and whether it grows on the debit side.
_ACCOUNT = struct.Struct(">2x4xq4x?")
# Of a row, from the metadata on: none, and no expire_time.
_PLAIN_REST = pack_length(2) + EMPTY_OBJECT + b"\xff\xff\xff\xff"
# Of a record, from effective_time to the number of entries, when there is no such time and the rest is plain: no
# effective_time, no expire_time, create_time, first_sequence, no metadata, and the number; lengths go before.
_pack_plain_tail = struct.Struct(">12sq4sq16sq").pack
_BEFORE_TIME, _BEFORE_SEQUENCE = ABSENT + ABSENT + pack_length(8), pack_length(8)
_BEFORE_COUNT = pack_integer(8, 0) + pack_length(8)
# Of a record, up to the length of the amount: of entries that are posted, and of those that are held.
_CREDITS, _DEBITS = (
    tuple(pack_length(len(side)) + side + pack_length(1) + pending + pack_length(8) for pending in (b"\x00", b"\x01"))
    for side in (b"credit", b"debit")
)
_pack = struct.Struct(">q").pack
# Enough for any sum of a transaction.
_SUM_BITS = 128


class _DoubtError(Exception):
    """Something may be wrong."""


def quick_check(part: Part) -> PartReport:
    """Checks one part; doubtful is whatever may have a fault.

    Args:
        part: with its rows in the form for this check.
    """
    try:
        report = _QuickCheck(part).run()
        if not report.faults:
            return report
        doubt = report.faults[0].check
    except (_DoubtError, LookupError, ValueError, struct.error) as error:
        # Its text may have something of the rows in it, and a log would keep that.
        doubt = type(error).__name__
    return PartReport(part.span.start_leaf, part.span.end_leaf, doubt)


class _QuickCheck:
    def __init__(self, part: Part) -> None:
        self._part = part
        self._report = PartReport(part.span.start_leaf, part.span.end_leaf)
        self._leaves = Leaves()
        self._entries = _entries(part.entries)
        self._accounts = _accounts(part.accounts or b"")
        # In the order of their first entries.
        self._moved: list[_Account] = []
        # The next entry's.
        self._sequence = 0

    def run(self) -> PartReport:
        report, leaves = self._report, self._leaves
        self._check_transactions()
        if len(leaves.hashes) != report.end_leaf - report.start_leaf or next(self._entries, None) is not None:
            raise _DoubtError
        report.transaction_count = len(leaves.hashes)
        report.end_sequence = self._sequence
        report.entry_count = report.end_sequence - report.first_sequence
        report.first_time, report.last_time = leaves.times[0], leaves.times[-1]
        report.movements = [account.movement() for account in self._moved]
        check_tree(self._part, leaves, report)
        return report

    def _check_transactions(self) -> None:
        report, copy = self._report, self._part.transactions
        hashes, times, end_sequences = self._leaves.hashes, self._leaves.times, self._leaves.end_sequences
        prefix = LEAF_PREFIX + record_prefix(self._part.tenant_id)
        position, end = row_bounds(copy)
        leaf_index, last_time = report.start_leaf, 0
        while position < end:
            head_bytes, sequence, count, leaf, time, effective_time, is_null, is_hold, leaf_hash = (
                _TRANSACTION.unpack_from(copy, position)
            )
            if leaf_index == report.start_leaf:
                report.first_sequence = self._sequence = sequence
            time += EPOCH_MICROSECONDS
            if leaf != leaf_index or sequence != self._sequence or time < last_time:
                raise _DoubtError
            place_start, head_start = position + _PLACE_START, position + _TRANSACTION.size
            rest_start = head_start + head_bytes
            position = rest_start + len(_PLAIN_REST)
            if is_null and copy[rest_start:position] == _PLAIN_REST:
                tail = _pack_plain_tail(_BEFORE_TIME, time, _BEFORE_SEQUENCE, sequence, _BEFORE_COUNT, count)
            else:
                effective = ABSENT if is_null else pack_integer(8, effective_time + EPOCH_MICROSECONDS)
                tail, position = _tail(copy, rest_start, effective, (time, sequence, count))
            pieces = [prefix, copy[head_start:rest_start], tail]
            self._check_entries(pieces, count, copy[place_start : place_start + _PLACE_BYTES], is_hold=is_hold)
            if sha256(b"".join(pieces)).digest() != leaf_hash:
                raise _DoubtError
            hashes.append(leaf_hash)
            times.append(time)
            end_sequences.append(self._sequence)
            report.hold_count += is_hold
            leaf_index, last_time = leaf_index + 1, time

    def _check_entries(self, pieces: list[bytes], count: int, own_place: bytes, *, is_hold: bool) -> None:
        """Checks the next entries, and adds what the record of their transaction says of them."""
        accounts, sequence, sum_ = self._accounts, self._sequence, 0
        credit, debit = _CREDITS[is_hold], _DEBITS[is_hold]
        for number, place, key, signed_minor, after_minor in islice(self._entries, count):
            if number != sequence or place != own_place:
                raise _DoubtError
            sequence += 1
            account = accounts[key]
            sum_ += signed_minor * account.weight
            if signed_minor > 0:
                side, amount_minor = debit, signed_minor
            else:
                side, amount_minor = credit, -signed_minor
            pieces += (account.name, side, _pack(amount_minor), account.currency, _pack(after_minor))
            if is_hold:
                before_minor = after_minor
            else:
                before_minor = after_minor - signed_minor * account.sign
                if side is debit:
                    account.debits_minor += amount_minor
            if account.balance_minor is None:
                account.first_sequence, account.before_minor = number, before_minor
                self._moved.append(account)
            elif account.balance_minor != before_minor:
                raise _DoubtError
            account.balance_minor = after_minor
        if sum_ or sequence != self._sequence + count:
            raise _DoubtError
        self._sequence = sequence


def _tail(copy: bytes, start: int, effective: bytes, numbers: tuple[int, int, int]) -> tuple[bytes, int]:
    """A record from effective_time to the number of entries, and where the row ends.

    Args:
        start: where the row's metadata begins.
        effective: effective_time as a field.
        numbers: create_time, first_sequence and number of entries.
    """
    time, sequence, count = numbers
    expire_start = start + 4 + field_length(copy, start)[0]
    times = (effective, time_field(copy, expire_start), pack_integer(8, time), pack_integer(8, sequence))
    metadata = metadata_fields(copy[start + 4 : expire_start])
    end = expire_start + 4 + max(0, field_length(copy, expire_start)[0])
    return b"".join((*times, metadata, pack_integer(8, count))), end


class _Account:
    """An account within a part.

    Attributes:
        sign: of a debit in its balance: 1 or -1.
        name: as a field of a record.
        currency: likewise, and the length of the balance that follows.
        weight: of its amounts in the sum of a transaction. Each currency has bits of its own there.
        balance_minor: None before its first entry; before_minor likewise is of no meaning then.
        debits_minor: sum of what was posted.
    """

    # Without them, most of the time would go into finding attributes.
    __slots__ = (
        "balance_minor",
        "before_minor",
        "currency",
        "debits_minor",
        "first_sequence",
        "key",
        "name",
        "sign",
        "weight",
    )

    def __init__(self, key: int, sign: int, name: bytes, currency: bytes, weight: int) -> None:
        self.key = key
        self.sign = sign
        self.name = name
        self.currency = currency
        self.weight = weight
        self.balance_minor: int | None = None
        self.first_sequence = self.before_minor = self.debits_minor = 0

    def movement(self) -> Movement:
        after_minor = self.balance_minor or 0
        credits_minor = self.debits_minor - (after_minor - self.before_minor) * self.sign
        name = self.name[4:].decode()
        return self.key, name, self.first_sequence, self.before_minor, after_minor, self.debits_minor, credits_minor


def _accounts(copy: bytes) -> dict[int, _Account]:
    """The accounts of a copy that have a name, by key."""
    accounts: dict[int, _Account] = {}
    currencies: dict[bytes, tuple[bytes, int]] = {}
    position, end = row_bounds(copy)
    while position < end:
        key, has_debit_side = _ACCOUNT.unpack_from(copy, position)
        name_start = position + _ACCOUNT.size
        currency_start = name_start + 4 + field_length(copy, name_start)[0]
        position = currency_start + 4 + field_length(copy, currency_start)[0]
        name, currency = copy[name_start:currency_start], copy[currency_start:position]
        found = currencies.get(currency)
        if found is None:
            found = currencies[currency] = currency + pack_length(8), 1 << len(currencies) * _SUM_BITS
        if name != ABSENT:
            accounts[key] = _Account(key, 1 if has_debit_side else -1, name, *found)
    return accounts


def _entries(copy: bytes) -> Iterator[tuple[int, bytes, int, int, int]]:
    """The rows of a copy of entries.

    Raises:
        _DoubtError: they are not all in the same form.
    """
    start, end = row_bounds(copy)
    count = (end - start) // _ENTRY.size
    for offset, column_bytes in _ENTRY_LENGTHS:
        if copy[start + offset : end : _ENTRY.size] != bytes((column_bytes,)) * count:
            raise _DoubtError
    # Megabytes, which are not copied for this.
    return _ENTRY.iter_unpack(memoryview(copy)[start:end])
