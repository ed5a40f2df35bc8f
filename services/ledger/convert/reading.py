"""Between the contracts of what is read and the model: filters, entries, balances, statements. Pure functions."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.errors import Problem, Reason, Violation
from services.ledger.convert.accounts import account_to_proto
from services.ledger.convert.common import (
    KINDS_FROM_PROTO,
    SIDES_FROM_PROTO,
    SIDES_TO_PROTO,
    TYPES_FROM_PROTO,
    TYPES_TO_PROTO,
    book_name_from_proto,
    money_to_proto,
    time_from_proto,
    time_to_proto,
)
from services.ledger.model.reading import (
    Balance,
    BookedEntry,
    BranchBalance,
    EntryFilter,
    Moment,
    Period,
    Statement,
    TransactionFilter,
    period_of,
)


def time_of_request(request: Any, field: str) -> datetime | None:  # noqa: ANN401 - any request that has the field
    """The time in a field of a request; None when it is absent.

    Raises:
        Problem: FIELD_INVALID, it is no time.
    """
    return time_from_proto(getattr(request, field), field) if request.HasField(field) else None


def moment_from_proto(request: Any) -> Moment:  # noqa: ANN401 - any request that has both times
    """The moment that a request is about.

    Raises:
        Problem: FIELD_INVALID, a time is none.
    """
    return Moment(time_of_request(request, "booking_time"), time_of_request(request, "effective_time"))


def period_from_proto(request: Any) -> Period:  # noqa: ANN401 - any request that has a start and an end
    """The period that a request is about.

    Raises:
        Problem: FIELD_INVALID, a time is none, or the period ends before it starts.
    """
    period = period_of(time_of_request(request, "start_time"), time_of_request(request, "end_time"))
    if period is None:
        description = "must be later than start_time: the end is not in the period"
        raise Problem(Reason.FIELD_INVALID, violations=[Violation("end_time", description)])
    return period


def transaction_filter_from_proto(request: pb2.ListTransactionsRequest) -> TransactionFilter:
    """Which transactions to list.

    Raises:
        Problem: FIELD_INVALID.
    """
    return TransactionFilter(
        book_name=book_name_from_proto(request.book_name),
        source_id=request.source_id,
        kind=KINDS_FROM_PROTO.get(request.kind),
        booked=period_from_proto(request),
        metadata=dict(sorted(request.metadata.items())),
    )


def entry_filter_from_proto(request: pb2.ListEntriesRequest) -> EntryFilter:
    """Which entries to list.

    Raises:
        Problem: FIELD_INVALID.
    """
    return EntryFilter(
        book_name=book_name_from_proto(request.book_name),
        account_name=request.account_name,
        account_name_prefix=request.account_name_prefix,
        account_type=TYPES_FROM_PROTO.get(request.account_type),
        side=SIDES_FROM_PROTO.get(request.side),
        min_amount_minor=request.min_amount_minor if request.HasField("min_amount_minor") else None,
        max_amount_minor=request.max_amount_minor if request.HasField("max_amount_minor") else None,
        source_id=request.source_id,
        booked=period_from_proto(request),
        metadata=dict(sorted(request.metadata.items())),
    )


def booked_entry_to_proto(booked: BookedEntry) -> ledger_pb2.Entry:
    """An entry as callers see it."""
    entry = booked.entry
    return ledger_pb2.Entry(
        sequence=entry.sequence,
        transaction_id=booked.transaction_id,
        account_name=entry.account_name,
        side=SIDES_TO_PROTO[entry.side],
        amount=money_to_proto(entry.amount_minor, entry.currency),
        balance_after=money_to_proto(entry.balance_after_minor, entry.currency),
        create_time=time_to_proto(booked.create_time),
        pending=entry.pending,
        effective_time=time_to_proto(booked.effective_time or booked.create_time),
    )


def balance_to_proto(balance: Balance) -> pb2.GetBalanceResponse:
    """A balance as callers see it."""
    currency = balance.account.currency
    available_minor = balance.available_minor
    return pb2.GetBalanceResponse(
        balance=money_to_proto(balance.balance_minor, currency),
        debits=money_to_proto(balance.debits_minor, currency),
        credits=money_to_proto(balance.credits_minor, currency),
        pending_debits=money_to_proto(balance.pending_debits_minor, currency),
        pending_credits=money_to_proto(balance.pending_credits_minor, currency),
        available=None if available_minor is None else money_to_proto(available_minor, currency),
        sequence=balance.sequence,
    )


def branch_balance_to_proto(balance: BranchBalance) -> ledger_pb2.BranchBalance:
    """The balance of a branch as callers see it."""
    return ledger_pb2.BranchBalance(
        branch=balance.branch,
        type=TYPES_TO_PROTO[balance.type],
        balance=money_to_proto(balance.balance_minor, balance.currency),
        debits=money_to_proto(balance.debits_minor, balance.currency),
        credits=money_to_proto(balance.credits_minor, balance.currency),
        account_count=balance.account_count,
    )


def statement_to_proto(statement: Statement, next_page_token: str) -> pb2.GetStatementResponse:
    """A page of a statement as callers see it."""
    currency = statement.account.currency
    return pb2.GetStatementResponse(
        account=account_to_proto(statement.account),
        opening_balance=money_to_proto(statement.opening_balance_minor, currency),
        closing_balance=money_to_proto(statement.closing_balance_minor, currency),
        debits=money_to_proto(statement.debits_minor, currency),
        credits=money_to_proto(statement.credits_minor, currency),
        lines=[
            ledger_pb2.StatementLine(
                entry=booked_entry_to_proto(line.booked),
                running_balance=money_to_proto(line.running_balance_minor, currency),
                description=line.booked.description,
                source_id=line.booked.source_id,
            )
            for line in statement.lines
        ],
        next_page_token=next_page_token,
    )
