"""Many transfers in one call, through the contract."""

from __future__ import annotations

import random

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.errors import Reason
from mesh.ids import new_id
from mesh.money import INT64_MAX
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
    pending,
    send_transfers,
    transfer,
    transfer_of_hold,
    transfers_request,
)
from tests.ledger.teller import told

MOST = 8_192
WALLET = "liabilities:wallet"
OK = ""


def reasons(results: list[ledger_pb2.TransferResult]) -> list[str]:
    """Why each was refused; empty for those that were booked."""
    return [result.reason for result in results]


async def test_each_transfer_is_a_transaction_with_a_result(open_book: Book) -> None:
    first = transfer(100, description="first", source_id="pay_1", metadata={"order": "1"})
    second = transfer(30, debited=PAYER, credited=FEES)

    results = await send_transfers(open_book, first, second)

    assert results == [
        ledger_pb2.TransferResult(
            transaction_id=first.transaction_id,
            amount=first.amount,
            leaf_index=0,
            first_sequence=1,
            debit_balance_after_minor=100,
            credit_balance_after_minor=100,
        ),
        ledger_pb2.TransferResult(
            transaction_id=second.transaction_id,
            amount=second.amount,
            leaf_index=1,
            first_sequence=3,
            debit_balance_after_minor=70,
            credit_balance_after_minor=30,
        ),
    ]
    booked = await open_book.transaction(first.transaction_id)
    assert (booked.kind, booked.description, booked.source_id, dict(booked.metadata), len(booked.entries)) == (
        ledger_pb2.Transaction.KIND_POSTING,
        "first",
        "pay_1",
        {"order": "1"},
        2,
    )
    assert await open_book.balance(PAYER) == (70, 30, 100)


async def test_as_many_as_allowed_are_booked_at_once_and_one_more_is_refused(open_book: Book) -> None:
    chance = random.Random(8_192)
    names = [BANK, PAYER, FEES]
    transfers = [transfer(chance.randint(1, 1_000), *chance.sample(names, 2)) for _ in range(MOST)]
    request = transfers_request(transfers)

    answer = await open_book.stub.CreateTransfers(request, timeout=60)
    too_many = await refusal(open_book.stub.CreateTransfers(transfers_request([*transfers, transfer(1)]), timeout=60))
    again = await open_book.stub.CreateTransfers(request, timeout=60)

    assert reasons(list(answer.results)) == [OK] * MOST
    assert [result.leaf_index for result in answer.results] == list(range(MOST))
    assert [result.first_sequence for result in answer.results] == list(range(1, 2 * MOST, 2))
    assert too_many.reason is Reason.FIELD_INVALID
    assert [violation.field for violation in too_many.violations] == ["transfers"]
    assert again.SerializeToString(deterministic=True) == answer.SerializeToString(deterministic=True)
    for name in names:
        debits = sum(one.amount.amount_minor for one in transfers if one.debit_account_name == name)
        credits_ = sum(one.amount.amount_minor for one in transfers if one.credit_account_name == name)
        assert (await open_book.balance(name))[1:] == (debits, credits_)


async def test_no_transfers_are_refused(open_book: Book) -> None:
    problem = await refusal(open_book.stub.CreateTransfers(transfers_request([])))

    assert problem.reason is Reason.FIELD_INVALID


async def test_one_that_is_refused_does_not_touch_the_others(open_book: Book) -> None:
    await open_book.open(WALLET, limits=ledger_pb2.AccountLimits(min_balance_minor=0))
    transfers = [
        transfer(50, BANK, WALLET),
        transfer(51, WALLET, FEES),
        transfer(50, WALLET, FEES),
        transfer(1, BANK, "liabilities:nobody"),
        transfer(INT64_MAX, BANK, PAYER),
        transfer(3, BANK, PAYER),
    ]

    results = await send_transfers(open_book, *transfers)

    assert reasons(results) == [OK, "BALANCE_LIMIT_EXCEEDED", OK, "ACCOUNT_NOT_FOUND", "BALANCE_OVERFLOW", OK]
    assert results[1].metadata["exceeded_by_minor"] == "1"
    assert (dict(results[3].metadata), results[3].detail) == (
        {"account_name": "liabilities:nobody"},
        "account liabilities:nobody does not exist",
    )
    assert [result.leaf_index for result in results if not result.reason] == [0, 1, 2]
    assert await open_book.balance(BANK) == (53, 53, 0)


async def test_an_account_that_is_debited_and_credited_by_one_transfer_stays_as_it_is(open_book: Book) -> None:
    (result,) = await send_transfers(open_book, transfer(5, BANK, BANK))

    assert (result.debit_balance_after_minor, result.credit_balance_after_minor) == (5, 0)
    assert await open_book.balance(BANK) == (0, 5, 5)


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


async def test_as_much_as_is_available_is_moved_up_to_the_amount(open_book: Book) -> None:
    await open_book.open(WALLET, limits=ledger_pb2.AccountLimits(min_balance_minor=10, max_balance_minor=100))
    results = await send_transfers(
        open_book,
        transfer(70, BANK, WALLET, up_to_available=True),
        # 30 are left up to the limit, though 500 are asked for.
        transfer(500, BANK, WALLET, up_to_available=True),
        transfer(500, BANK, WALLET, up_to_available=True),
        transfer(40, WALLET, BANK, action=HOLD, up_to_available=True),
        # 50 are left above the lowest balance and beside the hold.
        transfer(500, WALLET, BANK, up_to_available=True),
        transfer(500, WALLET, BANK, up_to_available=True),
    )

    assert reasons(results) == [OK, OK, "BALANCE_LIMIT_EXCEEDED", OK, OK, "BALANCE_LIMIT_EXCEEDED"]
    assert [result.amount.amount_minor for result in results] == [70, 30, 0, 40, 50, 0]
    assert results[5].metadata["available_minor"] == "0"
    assert await open_book.balance(WALLET) == (50, 50, 100)
    assert await pending(open_book, WALLET) == (40, 0)


async def test_an_account_without_limits_gives_down_to_zero(open_book: Book) -> None:
    await open_book.post(debit(BANK, 30), credit(PAYER, 30))

    results = await send_transfers(
        open_book, transfer(50, PAYER, BANK, up_to_available=True), transfer(50, PAYER, BANK)
    )

    assert [result.amount.amount_minor for result in results] == [30, 50]
    assert await open_book.balance(PAYER) == (-50, 80, 30)


async def test_holds_are_made_posted_and_voided_by_transfers_of_one_request(open_book: Book) -> None:
    full, part, voided = (transfer(10, action=HOLD) for _ in range(3))

    results = await send_transfers(
        open_book,
        full,
        part,
        voided,
        transfer_of_hold(full.transaction_id, POST_HOLD),
        transfer_of_hold(part.transaction_id, POST_HOLD, 4),
        transfer_of_hold(voided.transaction_id, VOID_HOLD),
        transfer_of_hold(voided.transaction_id, POST_HOLD),
    )

    assert reasons(results) == [OK] * 6 + ["HOLD_NOT_PENDING"]
    assert [result.amount.amount_minor for result in results] == [10, 10, 10, 10, 4, 0, 0]
    assert [result.first_sequence for result in results] == [1, 3, 5, 7, 9, 0, 0]
    assert await open_book.balance(BANK) == (14, 14, 0)
    assert await pending(open_book, BANK) == (0, 0)


async def test_holds_of_before_are_ended_by_transfers(open_book: Book) -> None:
    posted, voided = await hold(open_book, 10), await hold(open_book, 20)

    results = await send_transfers(
        open_book,
        transfer_of_hold(posted, POST_HOLD, 11),
        transfer_of_hold(posted, POST_HOLD, 3),
        transfer_of_hold(voided, VOID_HOLD),
        transfer_of_hold(new_id("txn"), VOID_HOLD),
    )

    assert reasons(results) == ["HOLD_EXCEEDED", OK, OK, "RESOURCE_NOT_FOUND"]
    assert (results[1].debit_balance_after_minor, results[1].credit_balance_after_minor) == (3, 3)
    assert await open_book.balance(BANK) == (3, 3, 0)
    assert await pending(open_book, BANK) == (0, 0)


async def test_a_hold_of_many_legs_is_posted_by_a_transfer_in_full_only(open_book: Book) -> None:
    held = await open_book.post(debit(BANK, 30), credit(PAYER, 20), credit(FEES, 10), pending=True)

    results = await send_transfers(
        open_book,
        transfer_of_hold(held.transaction_id, POST_HOLD, 5),
        transfer_of_hold(held.transaction_id, POST_HOLD),
    )

    assert reasons(results) == ["TRANSACTION_UNBALANCED", OK]
    assert await open_book.balance(FEES) == (10, 0, 10)


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


def bad_transfers() -> dict[str, tuple[ledger_pb2.Transfer, str]]:
    """Transfers that break a rule of the contract, with the field at fault."""
    held = new_id("txn")
    metadata = {f"name_{number}": "x" * 256 for number in range(32)}
    return {
        "no transaction id": (transfer(5, transaction_id=""), "transaction_id"),
        "no debit account": (transfer(5, debited=""), "debit_account_name"),
        "no credit account": (transfer(5, credited=""), "credit_account_name"),
        "amount zero": (transfer(0), "amount.amount_minor"),
        "amount negative": (transfer(-1), "amount.amount_minor"),
        "hold of a posting": (transfer(5, hold_transaction_id=held), "hold_transaction_id"),
        "expiry of a posting": (transfer(5, expire_time=Timestamp(seconds=1)), "expire_time"),
        "no hold": (transfer_of_hold("", POST_HOLD), "hold_transaction_id"),
        "account of a hold's posting": (
            transfer_of_hold(held, POST_HOLD, debit_account_name=BANK),
            "debit_account_name",
        ),
        "amount of a void": (transfer_of_hold(held, VOID_HOLD, 5), "amount"),
        "amount zero of a hold's posting": (transfer_of_hold(held, POST_HOLD, 0), "amount.amount_minor"),
        "limit of a hold's posting": (transfer_of_hold(held, POST_HOLD, up_to_available=True), "up_to_available"),
        "metadata too large": (transfer(5, metadata=metadata), "metadata"),
        "no time": (transfer(5, effective_time=Timestamp(nanos=-1)), "effective_time"),
    }


@pytest.mark.parametrize("name", bad_transfers())
async def test_a_bad_transfer_is_named_and_nothing_is_booked(open_book: Book, name: str) -> None:
    bad, field = bad_transfers()[name]

    problem = await refusal(open_book.stub.CreateTransfers(transfers_request([transfer(1), bad])))

    assert problem.reason is Reason.FIELD_INVALID
    assert problem.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in problem.violations] == [f"transfers[1].{field}"]
    assert await open_book.entries() == []


async def test_transfers_lie_in_the_book_that_the_request_names(open_book: Book) -> None:
    await open_book.open(BANK, PAYER, book_name="side")

    await send_transfers(open_book, transfer(5), book_name="side")

    request = pb2.GetBalanceRequest(account_name=BANK, book_name="side")
    assert (await open_book.stub.GetBalance(request)).balance.amount_minor == 5
    assert await open_book.balance(BANK) == (0, 0, 0)
