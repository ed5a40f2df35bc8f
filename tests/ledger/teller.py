"""Says the oracle's words in those of the contract: asks as requests, and what is expected as answers."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from kente.common.v1.money_pb2 import Money
from kente.ledger.v1 import ledger_pb2, ledger_service_pb2

from mesh.errors import Problem
from tests.ledger.book import TYPE_OF_FIRST_WORD, Book, credit, debit, new_request_id
from tests.ledger.oracle import Oracle, Outcome, Refused
from tests.ledger.oracle_history import INT64_MAX, Ask, Booked, History, Leg, Limits, OracleEntry

SIDES = {"debit": ledger_pb2.SIDE_DEBIT, "credit": ledger_pb2.SIDE_CREDIT}
ACTIONS = {
    "posting": ledger_pb2.Transfer.ACTION_POST,
    "hold": ledger_pb2.Transfer.ACTION_HOLD,
    "hold_posting": ledger_pb2.Transfer.ACTION_POST_HOLD,
    "hold_void": ledger_pb2.Transfer.ACTION_VOID_HOLD,
}


@dataclass(frozen=True)
class Told:
    """An answer of the service to one request: a message, or the problem that it was refused with."""

    message: Any = None
    problem: Problem | None = None

    @property
    def reason(self) -> str:
        """Why it was refused; "OK" when it was not."""
        return "OK" if self.problem is None else self.problem.reason_name

    @property
    def as_bytes(self) -> bytes:
        """What was told, byte for byte."""
        said: Message = self.message if self.problem is None else self.problem.to_status()
        return said.SerializeToString(deterministic=True)


async def told(call: Awaitable[Message]) -> Told:
    """What a call is answered with."""
    try:
        return Told(message=await call)
    except grpc.aio.AioRpcError as error:
        return Told(problem=Problem.from_rpc_error(error))


def timestamp(time: datetime | None) -> Timestamp | None:
    """A time of the contract."""
    if time is None:
        return None
    made = Timestamp()
    made.FromDatetime(time)
    return made


def money(amount_minor: int, currency: str) -> Money:
    """An amount of the contract."""
    return Money(amount_minor=amount_minor, currency=currency)


def limits_message(limits: Limits) -> ledger_pb2.AccountLimits:
    """Limits of the contract."""
    return ledger_pb2.AccountLimits(
        min_balance_minor=limits.lowest, max_balance_minor=limits.highest, credit_limit_minor=limits.credit
    )


def leg_message(leg: Leg) -> ledger_pb2.Leg:
    """A leg of the contract."""
    return {"debit": debit, "credit": credit}[leg.side](leg.account, leg.amount, leg.currency)


def book_name(book: str) -> str:
    """The book as a caller names it, who says nothing of the main one."""
    return "" if book == "main" else book


def request_of(ask: Ask, request_id: str = "") -> Any:
    """The request for one transaction."""
    common: dict[str, Any] = {
        "request_id": request_id or new_request_id(),
        "transaction_id": ask.transaction_id,
        "description": ask.description,
        "metadata": dict(ask.metadata),
    }
    if ask.kind == "hold_void":
        return ledger_service_pb2.VoidHoldRequest(hold_transaction_id=ask.related_id, **common)
    common["effective_time"] = timestamp(ask.effective_time)
    if ask.kind == "hold_posting":
        legs = [leg_message(leg) for leg in ask.legs]
        return ledger_service_pb2.PostHoldRequest(hold_transaction_id=ask.related_id, legs=legs, **common)
    if ask.kind == "reversal":
        return ledger_service_pb2.ReverseTransactionRequest(
            reversed_transaction_id=ask.related_id, entry_indexes=ask.entry_indexes, **common
        )
    return ledger_service_pb2.CreateTransactionRequest(
        legs=[leg_message(leg) for leg in ask.legs],
        source_id=ask.source_id,
        book_name=book_name(ask.book),
        pending=ask.kind == "hold",
        expire_time=timestamp(ask.expire_time),
        assertions=[
            ledger_pb2.BalanceAssertion(account_name=account, balance=money(balance, currency))
            for account, balance, currency in ask.assertions
        ],
        **common,
    )


def transfer_of(ask: Ask) -> ledger_pb2.Transfer:
    """The same as an item of CreateTransfers."""
    transfer = ledger_pb2.Transfer(
        transaction_id=ask.transaction_id,
        action=ACTIONS[ask.kind],
        linked=ask.linked,
        up_to_available=ask.up_to_available,
        hold_transaction_id=ask.related_id,
        expire_time=timestamp(ask.expire_time),
        effective_time=timestamp(ask.effective_time),
        description=ask.description,
        source_id=ask.source_id,
        metadata=dict(ask.metadata),
    )
    if ask.legs:
        transfer.amount.CopyFrom(money(ask.legs[0].amount, ask.legs[0].currency))
    if ask.legs and not ask.related_id:
        transfer.debit_account_name, transfer.credit_account_name = (leg.account for leg in ask.legs)
    return transfer


async def send(book: Book, ask: Ask, request_id: str = "") -> Told:
    """Sends the request for one transaction."""
    rpc: Any = {
        "posting": book.stub.CreateTransaction,
        "hold": book.stub.CreateTransaction,
        "hold_posting": book.stub.PostHold,
        "hold_void": book.stub.VoidHold,
        "reversal": book.stub.ReverseTransaction,
    }[ask.kind]
    return await told(rpc(request_of(ask, request_id)))


async def send_all(book: Book, asks: Sequence[Ask], request_id: str = "") -> Told:
    """Sends one request for several transfers, of which all are in one book."""
    request = ledger_service_pb2.CreateTransfersRequest(
        request_id=request_id or new_request_id(),
        transfers=[transfer_of(ask) for ask in asks],
        book_name=book_name(asks[0].book),
    )
    return await told(book.stub.CreateTransfers(request))


def entry_message(booked: Booked, entry: OracleEntry) -> ledger_pb2.Entry:
    """An entry as every answer shows it."""
    return ledger_pb2.Entry(
        sequence=entry.sequence,
        transaction_id=booked.transaction_id,
        account_name=entry.account,
        side=SIDES[entry.side],
        amount=money(entry.amount, entry.currency),
        balance_after=money(entry.balance_after, entry.currency),
        create_time=timestamp(booked.create_time),
        pending=entry.pending,
        effective_time=timestamp(booked.effective_time),
    )


def transaction_message(booked: Booked, history: History | None = None) -> ledger_pb2.Transaction:
    """A transaction as it was answered when it was booked, or with what became of it in the history since."""
    message = ledger_pb2.Transaction(
        transaction_id=booked.transaction_id,
        description=booked.description,
        source_id=booked.source_id,
        entries=[entry_message(booked, entry) for entry in booked.entries],
        effective_time=timestamp(booked.effective_time),
        create_time=timestamp(booked.create_time),
        book_name=booked.book,
        kind=ledger_pb2.Transaction.Kind.Value(f"KIND_{booked.kind.upper()}"),
        metadata=dict(booked.metadata),
        leaf_index=booked.leaf_index,
        expire_time=timestamp(booked.expire_time),
        related_transaction_id=booked.related_id,
    )
    if booked.kind == "hold":
        state = "held" if history is None else history.hold_state(booked)
        message.hold_state = ledger_pb2.Transaction.HoldState.Value(f"HOLD_STATE_{state.upper()}")
    if history is not None:
        message.later_transaction_ids.extend(later.transaction_id for later in history.later(booked.transaction_id))
    return message


def balance_messages(history: History, booked: Booked) -> list[ledger_pb2.AccountBalance]:
    """The balances of a transaction's accounts now, as its answer shows them right after it."""
    messages = []
    for account in dict.fromkeys(entry.account for entry in booked.entries):
        key = (booked.book, account)
        available = history.available(key)
        messages.append(
            ledger_pb2.AccountBalance(
                account_name=account,
                balance=money(history.balance(key), history.accounts[key].currency),
                pending_debits_minor=history.held(key, "debit"),
                pending_credits_minor=history.held(key, "credit"),
                # More than an amount can say is more than any posting can move.
                available_minor=None if available is None else min(available, INT64_MAX),
            )
        )
    return messages


def check_refusal(problem: Problem | None, expected: Refused) -> None:
    """The reason is the expected one, and machines are told at least what is expected."""
    assert problem is not None, f"booked, though it was to be refused: {expected}"
    assert (problem.reason_name, problem.metadata) == (expected.reason, {**problem.metadata, **expected.metadata})


def check_result(result: ledger_pb2.TransferResult, ask: Ask, expected: Outcome) -> None:
    """The result of one transfer is the expected one."""
    assert result.transaction_id == ask.transaction_id
    if isinstance(expected, Refused):
        assert (result.reason, dict(result.metadata)) == (
            expected.reason,
            {**result.metadata, **expected.metadata},
        )
        assert result.detail
        return
    assert result.reason == "", result
    entries = expected.entries
    assert result.leaf_index == expected.leaf_index
    assert result.first_sequence == (entries[0].sequence if entries else 0)
    if len(entries) == 2:
        assert result.amount == money(entries[0].amount, entries[0].currency)
        after = {entry.side: entry.balance_after for entry in entries}
        assert (result.debit_balance_after_minor, result.credit_balance_after_minor) == (
            after["debit"],
            after["credit"],
        )


def check_account(oracle: Oracle, account: ledger_pb2.Account) -> None:
    """An account that was answered is the oracle's."""
    key = (account.book_name, account.account_name)
    known = oracle.accounts[key]
    available = oracle.available(key)
    assert (account.balance.amount_minor, account.debits.amount_minor, account.credits.amount_minor) == (
        oracle.balance(key),
        oracle.total(key, "debit"),
        oracle.total(key, "credit"),
    )
    assert (account.pending_debits.amount_minor, account.pending_credits.amount_minor) == (
        oracle.held(key, "debit"),
        oracle.held(key, "credit"),
    )
    assert (account.available.amount_minor if account.HasField("available") else None) == available
    assert account.state == ledger_pb2.Account.State.Value(f"STATE_{known.state.upper()}")
    assert account.limits == limits_message(known.limits)
    assert account.type == TYPE_OF_FIRST_WORD[key[1].partition(":")[0]]
