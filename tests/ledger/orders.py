"""Requests to book that are no plain posting, with new ids unless given."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kente.common.v1.money_pb2 import Money
from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.ids import new_id
from tests.ledger.book import BANK, PAYER, Book, credit, debit, new_request_id

HOLD, POST_HOLD, VOID_HOLD = (
    ledger_pb2.Transfer.ACTION_HOLD,
    ledger_pb2.Transfer.ACTION_POST_HOLD,
    ledger_pb2.Transfer.ACTION_VOID_HOLD,
)


def transfer(amount_minor: int, debited: str = BANK, credited: str = PAYER, **fields: Any) -> ledger_pb2.Transfer:
    """One transfer in GHS."""
    values: dict[str, Any] = {"transaction_id": new_id("txn")} | fields
    amount = Money(amount_minor=amount_minor, currency="GHS")
    return ledger_pb2.Transfer(debit_account_name=debited, credit_account_name=credited, amount=amount, **values)


def transfer_of_hold(
    hold_id: str, action: ledger_pb2.Transfer.Action.ValueType, amount_minor: int | None = None, **fields: Any
) -> ledger_pb2.Transfer:
    """A transfer that ends a hold in GHS."""
    amount = None if amount_minor is None else Money(amount_minor=amount_minor, currency="GHS")
    values: dict[str, Any] = {"transaction_id": new_id("txn")} | fields
    return ledger_pb2.Transfer(hold_transaction_id=hold_id, action=action, amount=amount, **values)


def transfers_request(transfers: Iterable[ledger_pb2.Transfer], **fields: Any) -> pb2.CreateTransfersRequest:
    """A request for transfers."""
    return pb2.CreateTransfersRequest(**({"request_id": new_request_id(), "transfers": transfers} | fields))


def post_hold_request(hold_id: str, *legs: ledger_pb2.Leg, **fields: Any) -> pb2.PostHoldRequest:
    """A request to post a hold: all of it, or legs."""
    values: dict[str, Any] = {"request_id": new_request_id(), "transaction_id": new_id("txn")} | fields
    return pb2.PostHoldRequest(hold_transaction_id=hold_id, legs=legs, **values)


def void_hold_request(hold_id: str, **fields: Any) -> pb2.VoidHoldRequest:
    """A request to release a hold."""
    values: dict[str, Any] = {"request_id": new_request_id(), "transaction_id": new_id("txn")} | fields
    return pb2.VoidHoldRequest(hold_transaction_id=hold_id, **values)


def reversal_request(transaction_id: str, *entry_indexes: int, **fields: Any) -> pb2.ReverseTransactionRequest:
    """A request to reverse a transaction: all of it, or some entries."""
    values: dict[str, Any] = {"request_id": new_request_id(), "transaction_id": new_id("txn")} | fields
    return pb2.ReverseTransactionRequest(reversed_transaction_id=transaction_id, entry_indexes=entry_indexes, **values)


async def send_transfers(book: Book, *transfers: ledger_pb2.Transfer, **fields: Any) -> list[ledger_pb2.TransferResult]:
    """Books transfers, and gives what became of each."""
    return list((await book.stub.CreateTransfers(transfers_request(transfers, **fields))).results)


async def hold(book: Book, amount_minor: int, debited: str = BANK, credited: str = PAYER, **fields: Any) -> str:
    """Holds an amount in GHS, and gives the id."""
    held = await book.post(debit(debited, amount_minor), credit(credited, amount_minor), pending=True, **fields)
    return held.transaction_id


async def pending(book: Book, account_name: str) -> tuple[int, int]:
    """What is held on an account: debits and credits, in minor units."""
    account = await book.account(account_name)
    return account.pending_debits.amount_minor, account.pending_credits.amount_minor


def reasons(results: list[ledger_pb2.TransferResult]) -> list[str]:
    """Why each was refused; empty for those that were booked."""
    return [result.reason for result in results]
