"""The record of a transaction says all of it, and no two transactions have the same."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ledger.model.accounts import Side
from services.ledger.model.merkle import leaf_hash
from services.ledger.model.postings import Entry, Kind, Transaction
from services.ledger.model.records import RecordError, decode_record, encode_record

NUMBERS = st.integers(-(2**63), 2**63 - 1)
# Few and short, so that what differs is often only where one field ends and the next begins.
TEXTS = st.text("ab\u00e9\x00", max_size=3)
TIMES = st.datetimes(timezones=st.just(UTC))
ENTRIES = st.builds(Entry, st.just(0), TEXTS, st.sampled_from(Side), st.booleans(), NUMBERS, TEXTS, NUMBERS)


def numbered(transaction: Transaction) -> Transaction:
    """The transaction, its entries numbered on from its first sequence."""
    entries = tuple(
        dataclasses.replace(entry, sequence=transaction.first_sequence + offset)
        for offset, entry in enumerate(transaction.entries)
    )
    return dataclasses.replace(transaction, entries=entries)


TRANSACTIONS = st.builds(
    Transaction,
    transaction_id=TEXTS,
    kind=st.sampled_from(Kind),
    book_name=TEXTS,
    leaf_index=NUMBERS,
    first_sequence=NUMBERS,
    entries=st.lists(ENTRIES, max_size=3).map(tuple),
    description=TEXTS,
    source_id=TEXTS,
    metadata=st.dictionaries(TEXTS, TEXTS, max_size=3),
    effective_time=st.none() | TIMES,
    expire_time=st.none() | TIMES,
    related_id=TEXTS,
    create_time=TIMES,
    hold_state=st.none(),
    later_ids=st.just(()),
).map(numbered)

MORNING = datetime(2026, 11, 21, 9, 30, 0, 250_000, tzinfo=UTC)
EXAMPLE = Transaction(
    transaction_id="txn_00000000000000000000000001",
    kind=Kind.HOLD,
    book_name="main",
    leaf_index=4,
    first_sequence=9,
    entries=(
        Entry(9, "assets:bank", Side.DEBIT, pending=True, amount_minor=250, currency="GHS", balance_after_minor=1000),
        Entry(
            10, "liabilities:ama", Side.CREDIT, pending=True, amount_minor=250, currency="GHS", balance_after_minor=-7
        ),
    ),
    description="rent",
    source_id="pay_1",
    metadata={"b": "2", "a": "1"},
    effective_time=MORNING - timedelta(days=1),
    expire_time=MORNING + timedelta(days=1),
    related_id="txn_00000000000000000000000000",
    create_time=MORNING,
)


@given(TEXTS, TRANSACTIONS)
def test_a_record_can_be_read_back(tenant_id: str, transaction: Transaction) -> None:
    assert decode_record(encode_record(tenant_id, transaction)) == (tenant_id, transaction)


@given(st.tuples(TEXTS, TRANSACTIONS), st.tuples(TEXTS, TRANSACTIONS))
def test_different_transactions_have_different_records(
    first: tuple[str, Transaction], second: tuple[str, Transaction]
) -> None:
    assert (encode_record(*first) == encode_record(*second)) == (first == second)


def changes() -> list[Any]:
    """The example with one thing changed, for each thing there is."""
    entry = EXAMPLE.entries[1]
    of_transaction: dict[str, Any] = {
        "transaction_id": "txn_x",
        "kind": Kind.POSTING,
        "book_name": "other",
        "leaf_index": 5,
        "first_sequence": 10,
        "entries": EXAMPLE.entries[:1],
        "description": "",
        "source_id": "pay_2",
        "metadata": {"a": "1"},
        "effective_time": None,
        "expire_time": None,
        "related_id": "",
        "create_time": MORNING + timedelta(microseconds=1),
    }
    of_entry: dict[str, Any] = {
        "account_name": "liabilities:kofi",
        "side": Side.DEBIT,
        "pending": False,
        "amount_minor": 251,
        "currency": "NGN",
        "balance_after_minor": 7,
    }
    return [
        *(
            pytest.param(dataclasses.replace(EXAMPLE, **{name: value}), id=name)
            for name, value in of_transaction.items()
        ),
        *(
            pytest.param(
                dataclasses.replace(EXAMPLE, entries=(EXAMPLE.entries[0], dataclasses.replace(entry, **{name: value}))),
                id=f"entry {name}",
            )
            for name, value in of_entry.items()
        ),
        pytest.param(dataclasses.replace(EXAMPLE, entries=EXAMPLE.entries[::-1]), id="order of entries"),
    ]


@pytest.mark.parametrize("changed", changes())
def test_every_field_is_part_of_the_record(changed: Transaction) -> None:
    assert encode_record("ten_1", changed) != encode_record("ten_1", EXAMPLE)


def test_what_became_of_a_transaction_later_is_not_part_of_its_record() -> None:
    later = dataclasses.replace(EXAMPLE, later_ids=("txn_2",))

    assert encode_record("ten_1", later) == encode_record("ten_1", EXAMPLE)


def test_the_tenant_is_part_of_the_record() -> None:
    assert encode_record("ten_1", EXAMPLE) != encode_record("ten_2", EXAMPLE)


def test_the_form_never_changes() -> None:
    record = encode_record("ten_1", EXAMPLE)

    assert record.startswith(b"\x00\x00\x00\x16kente-ledger-record-v1\x00\x00\x00\x05ten_1\x00\x00\x00\x04main")
    # Whoever changes the form breaks every proof that was ever given: it takes a new name, beside the old one.
    assert leaf_hash(record).hex() == "dfdc147cab2f224d8b205d74152b36b52fb69e2be46899ebb6f8cf5713c2ceb3"


@given(st.binary(max_size=40))
def test_other_bytes_are_no_record(data: bytes) -> None:
    with pytest.raises(RecordError):
        decode_record(data)


@given(st.data())
def test_a_record_with_a_byte_too_many_or_too_few_is_none(data: st.DataObject) -> None:
    record = encode_record("ten_1", EXAMPLE)
    place = data.draw(st.integers(0, len(record) - 1))

    for wrong in (record[:place], record[:place] + record[place + 1 :], record + b"\x00", record + bytes(4)):
        with pytest.raises(RecordError):
            decode_record(wrong)


def test_a_number_that_is_written_in_another_way_is_refused() -> None:
    record = encode_record("ten_1", EXAMPLE)
    # "pending" as 2 would read as true as well.
    doubtful = record.replace(b"\x00\x00\x00\x01\x01", b"\x00\x00\x00\x01\x02")

    assert doubtful != record
    with pytest.raises(RecordError, match="one right way"):
        decode_record(doubtful)
