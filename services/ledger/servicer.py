"""The RPCs of the ledger service: convert in, call the use case, convert out."""

# ruff: noqa: N802 - the contracts name the methods

from __future__ import annotations

from kente.ledger.v1 import ledger_service_pb2 as pb2
from kente.ledger.v1 import ledger_service_pb2_grpc as pb2_grpc

from mesh.context import current_tenant_id
from mesh.database import Database
from services.ledger import convert
from services.ledger.use_cases.create_account import create_account
from services.ledger.use_cases.create_transaction import create_transaction
from services.ledger.use_cases.get_account import get_account
from services.ledger.use_cases.get_balance import get_balance
from services.ledger.use_cases.get_transaction import get_transaction
from services.ledger.use_cases.list_accounts import list_accounts
from services.ledger.use_cases.list_entries import list_entries


class LedgerServicer(pb2_grpc.LedgerServiceServicer):
    """Accounts and the transactions between them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def CreateAccount(self, request: pb2.CreateAccountRequest, _context: object) -> pb2.CreateAccountResponse:
        account = await create_account(
            self._database,
            tenant_id=current_tenant_id(),
            request_id=request.request_id,
            draft=convert.account_draft_from_proto(request),
            describe=convert.account_to_proto,
        )
        return pb2.CreateAccountResponse(account=convert.account_to_proto(account))

    async def GetAccount(self, request: pb2.GetAccountRequest, _context: object) -> pb2.GetAccountResponse:
        account = await get_account(
            self._database,
            tenant_id=current_tenant_id(),
            account_name=convert.text_from_proto(request.account_name, "account_name"),
        )
        return pb2.GetAccountResponse(account=convert.account_to_proto(account))

    async def ListAccounts(self, request: pb2.ListAccountsRequest, _context: object) -> pb2.ListAccountsResponse:
        accounts, next_page_token = await list_accounts(
            self._database,
            tenant_id=current_tenant_id(),
            account_name_prefix=convert.text_from_proto(request.account_name_prefix, "account_name_prefix"),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return pb2.ListAccountsResponse(
            accounts=[convert.account_to_proto(account) for account in accounts], next_page_token=next_page_token
        )

    async def GetBalance(self, request: pb2.GetBalanceRequest, _context: object) -> pb2.GetBalanceResponse:
        account = await get_balance(
            self._database,
            tenant_id=current_tenant_id(),
            account_name=convert.text_from_proto(request.account_name, "account_name"),
        )
        return convert.balance_to_proto(account)

    async def CreateTransaction(
        self, request: pb2.CreateTransactionRequest, _context: object
    ) -> pb2.CreateTransactionResponse:
        transaction = await create_transaction(
            self._database,
            tenant_id=current_tenant_id(),
            posting=convert.posting_from_proto(request),
            describe=convert.transaction_to_proto,
        )
        return pb2.CreateTransactionResponse(transaction=convert.transaction_to_proto(transaction))

    async def GetTransaction(self, request: pb2.GetTransactionRequest, _context: object) -> pb2.GetTransactionResponse:
        transaction = await get_transaction(
            self._database, tenant_id=current_tenant_id(), transaction_id=request.transaction_id
        )
        return pb2.GetTransactionResponse(transaction=convert.transaction_to_proto(transaction))

    async def ListEntries(self, request: pb2.ListEntriesRequest, _context: object) -> pb2.ListEntriesResponse:
        entries, next_page_token = await list_entries(
            self._database,
            tenant_id=current_tenant_id(),
            account_name=convert.text_from_proto(request.account_name, "account_name"),
            source_id=convert.text_from_proto(request.source_id, "source_id"),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return pb2.ListEntriesResponse(
            entries=[convert.entry_to_proto(entry) for entry in entries], next_page_token=next_page_token
        )
