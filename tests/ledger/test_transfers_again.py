"""Transfers that are linked, and transfers that are sent again, through the contract."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from kente.ledger.v1 import ledger_pb2

from mesh.errors import Reason
from tests.ledger.book import (
    BANK,
    FEES,
    PAYER,
    Book,
    credit,
    debit,
    new_request_id,
    refusal,
    transaction_request,
)
from tests.ledger.orders import (
    HOLD,
    POST_HOLD,
    VOID_HOLD,
    hold,
    reasons,
    send_transfers,
    transfer,
    transfer_of_hold,
    transfers_request,
)
from tests.ledger.teller import told

WALLET = "liabilities:wallet"
OK = ""


async def test_linked_transfers_are_booked_together(open_book: Book) -> None:
    await send_transfers(open_book, transfer(1, linked=True), transfer(2, linked=True), transfer(3))

    assert await open_book.balance(BANK) == (6, 6, 0)


async def test_one_of_a_group_that_is_refused_takes_its_group_along_and_no_other(open_book: Book) -> None:
    await open_book.open(WALLET, limits=ledger_pb2.AccountLimits(max_balance_minor=10))
    groups = [
        [transfer(1, BANK, WALLET, linked=True), transfer(1, BANK, WALLET)],
        [
            transfer(5, BANK, WALLET, linked=True),
            transfer(1, BANK, "liabilities:nobody", linked=True),
            transfer(2, BANK, WALLET, linked=True),
            transfer(3, BANK, WALLET),
        ],
        [transfer(8, BANK, WALLET)],
        [transfer(1, BANK, PAYER, linked=True), transfer(1, BANK, WALLET)],
    ]

    results = await send_transfers(open_book, *(one for group in groups for one in group))

    failed = "LINKED_TRANSFER_FAILED"
    assert reasons(results) == [
        *(OK, OK),
        *(failed, "ACCOUNT_NOT_FOUND", failed, failed),
        OK,
        *(failed, "BALANCE_LIMIT_EXCEEDED"),
    ]
    for result in results:
        if result.reason == failed:
            culprit = groups[1][1] if result in results[2:6] else groups[3][1]
            assert dict(result.metadata) == {"transaction_id": culprit.transaction_id}
    assert await open_book.balance(WALLET) == (10, 0, 10)
    assert [entry.sequence for entry in await open_book.entries()] == [1, 2, 3, 4, 5, 6]
    # What was refused stays refused, in whatever group it comes.
    assert reasons(await send_transfers(open_book, groups[1][3])) == [failed]


async def test_a_group_that_the_end_of_the_request_cuts_is_refused_with_all_others(open_book: Book) -> None:
    problem = await refusal(open_book.stub.CreateTransfers(transfers_request([transfer(1), transfer(2, linked=True)])))

    assert problem.reason is Reason.FIELD_INVALID
    assert [violation.field for violation in problem.violations] == ["transfers[1].linked"]
    assert await open_book.entries() == []


async def test_a_group_that_fails_gives_its_hold_back(open_book: Book) -> None:
    hold_id = await hold(open_book, 10)

    results = await send_transfers(
        open_book,
        transfer_of_hold(hold_id, POST_HOLD, linked=True),
        transfer(1, BANK, "liabilities:nobody"),
        transfer_of_hold(hold_id, VOID_HOLD),
    )

    assert reasons(results) == ["LINKED_TRANSFER_FAILED", "ACCOUNT_NOT_FOUND", OK]
    assert (await open_book.transaction(hold_id)).hold_state == ledger_pb2.Transaction.HOLD_STATE_VOIDED


async def test_what_was_booked_before_is_not_booked_together_with_what_is_new(open_book: Book) -> None:
    before, new = transfer(1, linked=True), transfer(2)
    await send_transfers(open_book, before, transfer(5))

    results = await send_transfers(open_book, before, new)

    assert reasons(results) == [OK, "LINKED_TRANSFER_FAILED"]
    assert dict(results[1].metadata) == {"transaction_id": before.transaction_id}
    assert await open_book.balance(BANK) == (6, 6, 0)


async def test_the_same_transfer_twice_in_a_request_is_booked_once(open_book: Book) -> None:
    one = transfer(5)
    other = transfer(6, transaction_id=one.transaction_id)

    results = await send_transfers(open_book, one, one, other, one)

    assert reasons(results) == [OK, OK, "RESOURCE_ALREADY_EXISTS", OK]
    assert results[0] == results[1] == results[3]
    assert dict(results[2].metadata) == {"transaction_id": one.transaction_id, "differing_fields": "amount"}
    assert await open_book.balance(BANK) == (5, 5, 0)


async def test_a_refused_transfer_twice_in_a_request_is_refused_alike(open_book: Book) -> None:
    one = transfer(5, BANK, "liabilities:nobody")

    results = await send_transfers(open_book, one, one)

    assert reasons(results) == ["ACCOUNT_NOT_FOUND"] * 2
    assert results[0] == results[1]


async def test_a_transfer_twice_in_one_group_spoils_it(open_book: Book) -> None:
    one = transfer(5, linked=True)
    again = transfer(5, transaction_id=one.transaction_id)

    results = await send_transfers(open_book, one, again)

    assert "RESOURCE_ALREADY_EXISTS" in reasons(results)
    assert OK not in reasons(results)
    assert await open_book.entries() == []


async def test_a_resend_gives_the_same_bytes_for_what_was_booked_and_what_was_refused(open_book: Book) -> None:
    transfers = [
        transfer(5),
        transfer(1, BANK, "liabilities:late"),
        transfer(2, linked=True),
        transfer(1, BANK, "liabilities:late"),
        transfer(7, BANK, PAYER, up_to_available=True),
    ]
    request = transfers_request(transfers)

    first = await told(open_book.stub.CreateTransfers(request))
    await open_book.open("liabilities:late")
    await open_book.post(debit(BANK, 1_000), credit(PAYER, 1_000))
    again = await told(open_book.stub.CreateTransfers(request))
    by_another = await told(open_book.stub.CreateTransfers(transfers_request(transfers)))
    one_by_one = [result for one in transfers[:2] for result in await send_transfers(open_book, one)]

    assert {again.as_bytes, by_another.as_bytes} == {first.as_bytes}
    assert one_by_one == list(first.message.results[:2])
    assert await open_book.balance(BANK) == (1_012, 1_012, 0)


async def test_a_request_id_used_for_other_transfers_is_refused(open_book: Book) -> None:
    request_id, one = new_request_id(), transfer(1)
    await send_transfers(open_book, one, transfer(2), request_id=request_id)

    problem = await refusal(open_book.stub.CreateTransfers(transfers_request([one], request_id=request_id)))

    assert problem.reason is Reason.REQUEST_ID_REUSED
    assert await open_book.balance(BANK) == (3, 3, 0)


@pytest.mark.parametrize(
    ("fields", "differing"),
    [
        ({"amount_minor": 6}, "amount"),
        ({"debited": FEES}, "debit_account_name"),
        ({"description": "b", "source_id": "pay_2"}, "description,source_id"),
        ({"linked": True}, "linked"),
        ({"action": HOLD}, "action"),
        ({"effective_time": Timestamp(seconds=1)}, "effective_time"),
    ],
)
async def test_the_same_id_with_another_transfer_is_told_what_differs(
    open_book: Book, fields: dict[str, object], differing: str
) -> None:
    one = transfer(5)
    await send_transfers(open_book, one)

    other = transfer(**({"amount_minor": 5, "transaction_id": one.transaction_id} | fields))  # type: ignore[arg-type]  # fields of a transfer
    results = await send_transfers(open_book, other, transfer(1))

    assert results[0].reason == "RESOURCE_ALREADY_EXISTS"
    assert dict(results[0].metadata) == {"transaction_id": one.transaction_id, "differing_fields": differing}


async def test_the_same_transfer_in_another_book_is_told_so(open_book: Book) -> None:
    one = transfer(5)
    await send_transfers(open_book, one)

    (result,) = await send_transfers(open_book, one, book_name="side")

    assert result.metadata["differing_fields"] == "book_name"


async def test_an_id_of_a_transfer_is_taken_for_transactions_too(open_book: Book) -> None:
    one = transfer(5)
    await send_transfers(open_book, one)

    problem = await refusal(
        open_book.stub.CreateTransaction(
            transaction_request(debit(BANK, 5), credit(PAYER, 5), transaction_id=one.transaction_id)
        )
    )

    assert problem.reason is Reason.RESOURCE_ALREADY_EXISTS
    assert problem.metadata["differing_fields"] == "rpc"
