"""A tenant's book as a client sees it, in few words."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable
from typing import Any

import asyncpg
import grpc
import pytest
from kente.common.v1.money_pb2 import Money
from kente.ledger.v1 import ledger_pb2, ledger_service_pb2, ledger_service_pb2_grpc

from mesh.errors import Problem
from mesh.ids import new_id

SCOPES = ("ledger:read", "ledger:write")
BANK, PAYER, FEES = "assets:bank", "liabilities:payer", "income:fees"
TYPE_OF_FIRST_WORD = {
    "assets": ledger_pb2.Account.TYPE_ASSET,
    "liabilities": ledger_pb2.Account.TYPE_LIABILITY,
    "equity": ledger_pb2.Account.TYPE_EQUITY,
    "income": ledger_pb2.Account.TYPE_INCOME,
    "expenses": ledger_pb2.Account.TYPE_EXPENSE,
}


def new_request_id() -> str:
    """A caller's key for one request."""
    return str(uuid.uuid4())


def debit(account_name: str, amount_minor: int, currency: str = "GHS") -> ledger_pb2.Leg:
    """A debit leg."""
    amount = Money(amount_minor=amount_minor, currency=currency)
    return ledger_pb2.Leg(account_name=account_name, side=ledger_pb2.SIDE_DEBIT, amount=amount)


def credit(account_name: str, amount_minor: int, currency: str = "GHS") -> ledger_pb2.Leg:
    """A credit leg."""
    amount = Money(amount_minor=amount_minor, currency=currency)
    return ledger_pb2.Leg(account_name=account_name, side=ledger_pb2.SIDE_CREDIT, amount=amount)


def transaction_request(*legs: ledger_pb2.Leg, **fields: Any) -> ledger_service_pb2.CreateTransactionRequest:
    """A request to post legs; ids are new unless given."""
    values = {"request_id": new_request_id(), "transaction_id": new_id("txn")} | fields
    return ledger_service_pb2.CreateTransactionRequest(legs=legs, **values)


def account_request(account_name: str, **fields: Any) -> ledger_service_pb2.CreateAccountRequest:
    """A request to create an account in GHS whose type follows from the first word of its name."""
    values: dict[str, Any] = {
        "request_id": new_request_id(),
        "type": TYPE_OF_FIRST_WORD[account_name.partition(":")[0]],
        "currency": "GHS",
    }
    return ledger_service_pb2.CreateAccountRequest(account_name=account_name, **(values | fields))


async def refusal(call: Awaitable[object]) -> Problem:
    """The problem that a call is refused with."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return Problem.from_rpc_error(refused.value)


class Book:
    """One tenant's book."""

    def __init__(self, channel: grpc.aio.Channel, tenant_id: str) -> None:
        self.tenant_id = tenant_id
        self.stub = ledger_service_pb2_grpc.LedgerServiceStub(channel)

    async def open(self, *account_names: str, **fields: Any) -> None:
        """Creates accounts."""
        for account_name in account_names:
            await self.stub.CreateAccount(account_request(account_name, **fields))

    async def post(self, *legs: ledger_pb2.Leg, **fields: Any) -> ledger_pb2.Transaction:
        """Posts a transaction."""
        answer = await self.stub.CreateTransaction(transaction_request(*legs, **fields))
        return answer.transaction

    async def account(self, account_name: str) -> ledger_pb2.Account:
        """Reads an account."""
        answer = await self.stub.GetAccount(ledger_service_pb2.GetAccountRequest(account_name=account_name))
        return answer.account

    async def balance(self, account_name: str) -> tuple[int, int, int]:
        """Balance, debits and credits of an account in minor units."""
        answer = await self.stub.GetBalance(ledger_service_pb2.GetBalanceRequest(account_name=account_name))
        return answer.balance.amount_minor, answer.debits.amount_minor, answer.credits.amount_minor

    async def transaction(self, transaction_id: str) -> ledger_pb2.Transaction:
        """Reads a transaction."""
        answer = await self.stub.GetTransaction(ledger_service_pb2.GetTransactionRequest(transaction_id=transaction_id))
        return answer.transaction

    async def entries(self, **filters: Any) -> list[ledger_pb2.Entry]:
        """All entries that pass the filters, page by page."""
        found: list[ledger_pb2.Entry] = []
        page_token = ""
        while True:
            request = ledger_service_pb2.ListEntriesRequest(page_token=page_token, **filters)
            answer = await self.stub.ListEntries(request)
            found += answer.entries
            page_token = answer.next_page_token
            if not page_token:
                return found


async def set_state(admin: asyncpg.Connection, book: Book, account_name: str, state: str) -> None:
    """Freezes, closes or opens an account: no RPC of this version does."""
    await admin.execute(
        "UPDATE accounts SET state = $3 WHERE tenant_id = $1 AND account_name = $2", book.tenant_id, account_name, state
    )
