"""Between the contracts of the ledger and its model. Pure functions."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from kente.common.v1 import money_pb2
from kente.ledger.v1 import ledger_pb2, ledger_service_pb2

from mesh.errors import Problem, Reason, Violation
from mesh.money import Money, check_currency
from services.ledger.model import (
    Account,
    AccountDraft,
    AccountState,
    AccountType,
    Entry,
    Leg,
    Posting,
    Side,
    Transaction,
)

_TYPES_TO_PROTO = {type_: ledger_pb2.Account.Type.Value(f"TYPE_{type_.name}") for type_ in AccountType}
_STATES_TO_PROTO = {state: ledger_pb2.Account.State.Value(f"STATE_{state.name}") for state in AccountState}
_SIDES_TO_PROTO = {side: ledger_pb2.Side.Value(f"SIDE_{side.name}") for side in Side}
_TYPES_FROM_PROTO = {number: type_ for type_, number in _TYPES_TO_PROTO.items()}
_SIDES_FROM_PROTO = {number: side for side, number in _SIDES_TO_PROTO.items()}


def account_draft_from_proto(request: ledger_service_pb2.CreateAccountRequest) -> AccountDraft:
    """The account that a request asks for.

    Raises:
        Problem: FIELD_INVALID, the currency is unknown or a text can't be stored.
    """
    return AccountDraft(
        account_name=request.account_name,
        type=_TYPES_FROM_PROTO[request.type],
        currency=check_currency(request.currency, "currency"),
        display_name=text_from_proto(request.display_name, "display_name"),
    )


def posting_from_proto(request: ledger_service_pb2.CreateTransactionRequest) -> Posting:
    """The transaction that a request asks for.

    Raises:
        Problem: FIELD_INVALID, a currency is unknown, a text can't be stored, or the time is no time.
    """
    return Posting(
        transaction_id=request.transaction_id,
        description=text_from_proto(request.description, "description"),
        source_id=text_from_proto(request.source_id, "source_id"),
        legs=tuple(_leg_from_proto(leg, f"legs[{index}]") for index, leg in enumerate(request.legs)),
        effective_time=_effective_time_from_proto(request),
    )


def text_from_proto(text: str, field: str) -> str:
    """The text, when PostgreSQL can store it: proto allows the one character that it can't.

    Raises:
        Problem: FIELD_INVALID.
    """
    if "\x00" in text:
        raise Problem(Reason.FIELD_INVALID, violations=[Violation(field, "holds a NUL character: leave it out")])
    return text


def account_to_proto(account: Account) -> ledger_pb2.Account:
    """An account as callers see it."""
    return ledger_pb2.Account(
        account_name=account.account_name,
        type=_TYPES_TO_PROTO[account.type],
        currency=account.currency,
        state=_STATES_TO_PROTO[account.state],
        display_name=account.display_name,
        balance=_money_to_proto(account.balance),
        create_time=_timestamp(account.create_time),
    )


def balance_to_proto(account: Account) -> ledger_service_pb2.GetBalanceResponse:
    """The balance of an account, and the sums it comes from."""
    return ledger_service_pb2.GetBalanceResponse(
        balance=_money_to_proto(account.balance),
        debits=_money_to_proto(account.debits),
        credits=_money_to_proto(account.credits),
    )


def transaction_to_proto(transaction: Transaction) -> ledger_pb2.Transaction:
    """A transaction as callers see it, with its entries."""
    return ledger_pb2.Transaction(
        transaction_id=transaction.transaction_id,
        description=transaction.description,
        source_id=transaction.source_id,
        entries=[entry_to_proto(entry) for entry in transaction.entries],
        effective_time=_timestamp(transaction.effective_time or transaction.create_time),
        create_time=_timestamp(transaction.create_time),
    )


def entry_to_proto(entry: Entry) -> ledger_pb2.Entry:
    """An entry as callers see it."""
    return ledger_pb2.Entry(
        sequence=entry.sequence,
        transaction_id=entry.transaction_id,
        account_name=entry.account_name,
        side=_SIDES_TO_PROTO[entry.side],
        amount=_money_to_proto(entry.amount),
        balance_after=_money_to_proto(entry.balance_after),
        create_time=_timestamp(entry.create_time),
    )


def _leg_from_proto(leg: ledger_pb2.Leg, field: str) -> Leg:
    currency = check_currency(leg.amount.currency, f"{field}.amount.currency")
    return Leg(leg.account_name, _SIDES_FROM_PROTO[leg.side], Money(leg.amount.amount_minor, currency))


def _effective_time_from_proto(request: ledger_service_pb2.CreateTransactionRequest) -> datetime | None:
    """When it took effect, in whole microseconds: finer is not kept."""
    if not request.HasField("effective_time"):
        return None
    try:
        return request.effective_time.ToDatetime(tzinfo=UTC)
    except ValueError:
        description = "is no time: use seconds of the years 1 to 9999 and nanos of 0 to 999999999"
        raise Problem(Reason.FIELD_INVALID, violations=[Violation("effective_time", description)]) from None


def _money_to_proto(money: Money) -> money_pb2.Money:
    return money_pb2.Money(amount_minor=money.amount_minor, currency=money.currency)


def _timestamp(time: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp
