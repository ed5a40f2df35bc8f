"""The quick check finds what was booked to be without fault, and doubts everything else."""

from __future__ import annotations

import dataclasses
import json
import struct
import tracemalloc
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mesh.database import Database
from services.ledger.model.accounts import Side
from services.ledger.model.merkle import leaf_hash, root_of
from services.ledger.model.part_check import check_part
from services.ledger.model.postings import Entry, Kind, Transaction
from services.ledger.model.quick_check import quick_check
from services.ledger.model.records import encode_record
from services.ledger.model.verification import Part, Span
from services.ledger.repository.copies import copy_entries, copy_quick, copy_transactions
from services.ledger.repository.journals import find_journal
from services.ledger.repository.verification import list_checkpoint_rows, snapshot
from services.ledger.use_cases.verify_processes import VerifyProcesses
from tests.harness import Infrastructure
from tests.ledger.auditor import Auditor, fill
from tests.ledger.book import Book

TENANT = "ten_00000000000000000000000000"
START = datetime(2026, 11, 21, 9, 30, 0, 250_000, tzinfo=UTC)
# PostgreSQL counts from here.
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
ENTRIES_BYTES = 8_000_000
FIRST_LEAF, FIRST_SEQUENCE = 512, 1_025
# Name, currency, and whether a debit adds to the balance; by key.
ACCOUNTS = {
    3: ("assets:cash", "GHS", True),
    4: ("liabilities:ama", "GHS", False),
    5: ("assets:bank:eur", "EUR", True),
    6: ("equity:eur", "EUR", False),
}
PAIRS = [(3, 4), (4, 3), (5, 6), (6, 5)]

TEXTS = st.text("ab\u00e9{}\x01", max_size=3)
TIMES = st.none() | st.datetimes(timezones=st.just(UTC))
TRANSACTIONS = st.builds(
    Transaction,
    transaction_id=TEXTS,
    kind=st.sampled_from([Kind.POSTING, Kind.HOLD, Kind.HOLD_POSTING, Kind.REVERSAL]),
    book_name=TEXTS,
    leaf_index=st.just(0),
    first_sequence=st.just(0),
    entries=st.just(()),
    description=TEXTS,
    source_id=TEXTS,
    metadata=st.dictionaries(TEXTS, TEXTS, max_size=2),
    effective_time=TIMES,
    expire_time=TIMES,
    related_id=TEXTS,
    create_time=st.just(START),
)
MOVES = st.lists(st.tuples(st.sampled_from(PAIRS), st.integers(1, 2**40)), min_size=1, max_size=3)
BOOKED = st.lists(st.tuples(TRANSACTIONS, MOVES), min_size=1, max_size=4)
Row = list[Any]


def copied(rows: Sequence[Row]) -> bytes:
    """Rows as PostgreSQL copies them out in binary."""
    parts = [b"PGCOPY\n\xff\r\n\x00" + bytes(8)]
    for row in rows:
        parts.append(struct.pack(">h", len(row)))
        for value in row:
            data = _WRITERS[type(value)](value)
            parts.append(struct.pack(">i", -1 if value is None else len(data)) + data)
    return b"".join([*parts, b"\xff\xff"])


class Int4(int):
    """A number of four bytes."""


_WRITERS: dict[type, Callable[[Any], bytes]] = {
    int: struct.Struct(">q").pack,
    Int4: struct.Struct(">i").pack,
    bool: struct.Struct(">?").pack,
    str: str.encode,
    bytes: bytes,
    datetime: lambda time: struct.pack(">q", (time - EPOCH) // MICROSECOND),
    type(None): lambda _: b"",
}


@dataclasses.dataclass
class Copies:
    """Rows in the form for the quick check, before they are put into bytes."""

    transactions: list[Row]
    entries: list[Row]
    accounts: list[Row]
    hashes: list[bytes]

    def part(self) -> Part:
        """The part that they make up."""
        end_leaf, end_sequence = FIRST_LEAF + len(self.hashes), FIRST_SEQUENCE + len(self.entries)
        return Part(
            tenant_id=TENANT,
            span=Span(FIRST_LEAF, end_leaf, FIRST_SEQUENCE, end_sequence),
            checkpoints=[],
            asked_sizes=[end_leaf],
            verifier_keys=[],
            transactions=copied(self.transactions),
            entries=copied(self.entries),
            accounts=copied(self.accounts),
        )


def copies_of(booked: Sequence[tuple[Transaction, list[tuple[tuple[int, int], int]]]]) -> Copies:
    """What the database would have of these transactions and what each moves, with hashes of their records."""
    copies, balances = Copies([], [], [], []), dict.fromkeys(ACCOUNTS, -5)
    for offset, (drawn, moves) in enumerate(booked):
        is_hold, first_sequence = drawn.kind is Kind.HOLD, FIRST_SEQUENCE + len(copies.entries)
        leaf_index, effective = FIRST_LEAF + offset, drawn.effective_time
        place = [leaf_index, START, effective or START, effective is None, is_hold]
        entries = []
        for keys, amount_minor in moves:
            for key, side in zip(keys, (Side.DEBIT, Side.CREDIT), strict=True):
                name, currency, has_debit_side = ACCOUNTS[key]
                signed_minor = amount_minor if side is Side.DEBIT else -amount_minor
                if not is_hold:
                    balances[key] += signed_minor if has_debit_side else -signed_minor
                sequence = FIRST_SEQUENCE + len(copies.entries)
                entries.append(Entry(sequence, name, side, is_hold, amount_minor, currency, balances[key]))
                copies.entries.append([sequence, *place, key, signed_minor, balances[key]])
        transaction = dataclasses.replace(
            drawn, leaf_index=leaf_index, first_sequence=first_sequence, entries=tuple(entries)
        )
        copies.hashes.append(leaf_hash(encode_record(TENANT, transaction)))
        texts = [transaction.transaction_id, transaction.kind.value, transaction.description, transaction.source_id]
        texts.append(transaction.related_id)
        head_bytes = 36 + sum(len(text.encode()) for text in (transaction.book_name, *texts))
        head = [Int4(head_bytes), first_sequence, Int4(len(entries)), *place, copies.hashes[-1]]
        record = [transaction.book_name, leaf_index, *texts, json.dumps(dict(transaction.metadata))]
        copies.transactions.append([*head, *record, transaction.expire_time])
    used = {row[6] for row in copies.entries}
    copies.accounts = [[key, side, name, code] for key, (name, code, side) in ACCOUNTS.items() if key in used]
    return copies


@given(BOOKED)
def test_what_was_booked_is_without_fault(booked: list[Any]) -> None:
    copies = copies_of(booked)
    report = quick_check(copies.part())

    assert not report.is_doubtful
    assert report.entry_count == len(copies.entries)
    assert [tuple(root) for root in report.inner_roots] == [(FIRST_LEAF + len(booked), root_of(copies.hashes))]
    ends = {row[6]: row[-1] for row in copies.entries}
    assert {key: (before, after) for key, _, _, before, after, _, _ in report.movements} == {
        key: (-5, after) for key, after in ends.items()
    }


@given(BOOKED, st.data())
def test_any_other_value_is_doubted(booked: list[Any], data: st.DataObject) -> None:
    copies = copies_of(booked)
    table = data.draw(st.sampled_from([copies.transactions, copies.entries, copies.accounts]))
    row = data.draw(st.sampled_from(table))
    # On which side an account grows shows in its balance before, which other parts know.
    column = data.draw(st.integers(0, len(row) - 1).filter(lambda number: table is not copies.accounts or number != 1))
    row[column] = data.draw(st.sampled_from(_others(row[column])))

    assert quick_check(copies.part()).is_doubtful


def _others(value: Any) -> list[Any]:
    """Values that a column might have instead, none among them."""
    match value:
        case bool():
            return [not value, None]
        case int():
            return [type(value)(value + 1), type(value)(value - 1), None]
        case str():
            return [value + "x", value[:-1] or "y", None]
        case bytes():
            return [bytes(32), value[:-1], value + b"\x00", None]
        case datetime():
            return [value + (MICROSECOND if value < START else -MICROSECOND), None]
        case _:
            return [START]


@given(BOOKED, st.data())
def test_a_row_that_is_missing_or_there_twice_is_doubted(booked: list[Any], data: st.DataObject) -> None:
    copies = copies_of(booked)
    table = data.draw(st.sampled_from([copies.transactions, copies.entries]))
    place = data.draw(st.integers(0, len(table) - 1))
    table[place : place + 1] = [table[place]] * data.draw(st.sampled_from([0, 2]))

    assert quick_check(copies.part()).is_doubtful


def test_entries_are_not_copied_to_be_looked_at() -> None:
    copy = copied([[0] * 9]) + bytes(ENTRIES_BYTES)
    part = dataclasses.replace(copies_of([]).part(), entries=copy + b"\xff\xff")

    assert peak_bytes(lambda: quick_check(part)) < ENTRIES_BYTES / 4


async def test_a_part_is_not_kept_twice_while_it_is_checked() -> None:
    part = dataclasses.replace(copies_of([]).part(), entries=bytes(ENTRIES_BYTES))
    async with VerifyProcesses.running(1) as processes:
        tracemalloc.start()
        report = await processes.check(part)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert report.is_doubtful
    assert peak < ENTRIES_BYTES / 4


def peak_bytes(act: Callable[[], object]) -> int:
    """How much memory something takes for itself."""
    tracemalloc.start()
    act()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


async def test_both_checks_say_the_same_of_books_with_something_of_every_kind(
    infrastructure: Infrastructure, ledger: Any, book: Book
) -> None:
    transactions = await fill(book)
    url = infrastructure.settings("ledger").database_url.get_secret_value()
    database = await Database.connect(url, pool_size=1)
    keys = await Auditor.of(ledger, book).keys()
    async with snapshot(database, book.tenant_id) as connection:
        journal = await find_journal(connection, book.tenant_id)
        assert journal is not None
        span = Span(0, journal.tree_size, 1, journal.last_sequence + 1)
        checkpoints = await list_checkpoint_rows(connection, journal.journal_key, 0, span.end_leaf)
        part = Part(book.tenant_id, span, checkpoints, [4], keys)
        quick = dataclasses.replace(part, **(await copy_quick(connection, journal.journal_key, span))._asdict())
        thorough = dataclasses.replace(
            part,
            transactions=await copy_transactions(connection, journal.journal_key, 0, span.end_leaf),
            entries=await copy_entries(connection, journal.journal_key, 1, span.end_sequence),
        )
    await database.close()
    report = quick_check(quick)

    assert report == check_part(thorough)
    assert (report.is_doubtful, report.faults, report.transaction_count) == (False, [], len(transactions))
