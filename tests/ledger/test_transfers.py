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
    refusal,
)
from tests.ledger.orders import (
    HOLD,
    POST_HOLD,
    VOID_HOLD,
    hold,
    pending,
    reasons,
    send_transfers,
    transfer,
    transfer_of_hold,
    transfers_request,
)

MOST = 8_192
WALLET = "liabilities:wallet"
OK = ""


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
