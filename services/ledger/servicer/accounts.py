"""The RPCs of accounts and books: convert in, call the use case, convert out."""

# ruff: noqa: N802 - the contracts name the methods

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime

from google.protobuf.message import Message
from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.context import current_call, current_tenant_id
from mesh.database import Database
from services.ledger.convert import accounts as convert
from services.ledger.convert.common import TYPES_FROM_PROTO, book_name_from_proto, time_from_proto
from services.ledger.model.accounts import Account, AccountState
from services.ledger.model.changes import ChangeRequest
from services.ledger.use_cases.batch_create_accounts import batch_create_accounts
from services.ledger.use_cases.booking import Bookkeeper
from services.ledger.use_cases.change_account_state import change_account_state
from services.ledger.use_cases.close_period import close_period
from services.ledger.use_cases.create_account import create_account
from services.ledger.use_cases.get_account import get_account
from services.ledger.use_cases.get_book import get_book
from services.ledger.use_cases.list_accounts import list_accounts
from services.ledger.use_cases.update_account import update_account


class AccountRpcs:
    """Accounts and books. Whoever builds the servicer sets the attributes."""

    _database: Database
    _clock: Callable[[], datetime]
    _bookkeeper: Bookkeeper

    async def CreateAccount(self, request: pb2.CreateAccountRequest, _context: object) -> pb2.CreateAccountResponse:
        account = await create_account(
            self._database,
            self._clock,
            tenant_id=current_tenant_id(),
            request=_change_request(request, request.request_id),
            draft=convert.account_draft_from_proto(request),
            describe=convert.account_to_proto,
        )
        return pb2.CreateAccountResponse(account=convert.account_to_proto(account))

    async def BatchCreateAccounts(
        self, request: pb2.BatchCreateAccountsRequest, _context: object
    ) -> pb2.BatchCreateAccountsResponse:
        accounts = await batch_create_accounts(
            self._database,
            self._clock,
            tenant_id=current_tenant_id(),
            request=_change_request(request, request.request_id),
            drafts=convert.account_drafts_from_proto(request),
            describe=convert.account_to_proto,
        )
        return pb2.BatchCreateAccountsResponse(accounts=[convert.account_to_proto(account) for account in accounts])

    async def GetAccount(self, request: pb2.GetAccountRequest, _context: object) -> pb2.GetAccountResponse:
        tenant_id = current_tenant_id()
        await self._bookkeeper.expire_due(tenant_id)
        account = await get_account(
            self._database,
            tenant_id=tenant_id,
            book_name=book_name_from_proto(request.book_name),
            account_name=request.account_name,
        )
        return pb2.GetAccountResponse(account=convert.account_to_proto(account))

    async def ListAccounts(self, request: pb2.ListAccountsRequest, _context: object) -> pb2.ListAccountsResponse:
        tenant_id = current_tenant_id()
        await self._bookkeeper.expire_due(tenant_id)
        accounts, next_page_token = await list_accounts(
            self._database,
            tenant_id=tenant_id,
            book_name=book_name_from_proto(request.book_name),
            account_name_prefix=request.account_name_prefix,
            type_=TYPES_FROM_PROTO.get(request.type),
            account_number=request.account_number,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return pb2.ListAccountsResponse(
            accounts=[convert.account_to_proto(account) for account in accounts], next_page_token=next_page_token
        )

    async def UpdateAccount(self, request: pb2.UpdateAccountRequest, _context: object) -> pb2.UpdateAccountResponse:
        account = await update_account(
            self._database,
            self._clock,
            tenant_id=current_tenant_id(),
            request=_change_request(request, request.request_id),
            book_name=book_name_from_proto(request.book_name),
            account_name=request.account_name,
            changes=convert.account_changes_from_proto(request),
            describe=convert.account_to_proto,
        )
        return pb2.UpdateAccountResponse(account=convert.account_to_proto(account))

    async def FreezeAccount(self, request: pb2.FreezeAccountRequest, _context: object) -> pb2.FreezeAccountResponse:
        account = await self._change_state(request, AccountState.FROZEN)
        return pb2.FreezeAccountResponse(account=convert.account_to_proto(account))

    async def OpenAccount(self, request: pb2.OpenAccountRequest, _context: object) -> pb2.OpenAccountResponse:
        account = await self._change_state(request, AccountState.OPENED)
        return pb2.OpenAccountResponse(account=convert.account_to_proto(account))

    async def CloseAccount(self, request: pb2.CloseAccountRequest, _context: object) -> pb2.CloseAccountResponse:
        # What is held no more must not keep an account open.
        await self._bookkeeper.expire_due(current_tenant_id())
        account = await self._change_state(request, AccountState.CLOSED)
        return pb2.CloseAccountResponse(account=convert.account_to_proto(account))

    async def GetBook(self, request: pb2.GetBookRequest, _context: object) -> pb2.GetBookResponse:
        book = await get_book(self._database, tenant_id=current_tenant_id(), book_name=request.book_name)
        return pb2.GetBookResponse(book=convert.book_to_proto(book))

    async def ClosePeriod(self, request: pb2.ClosePeriodRequest, _context: object) -> pb2.ClosePeriodResponse:
        tenant_id = current_tenant_id()
        end_time = time_from_proto(request.end_time, "end_time")
        # Holds whose time is over end within the period, as long as it is open.
        await self._bookkeeper.expire_due(tenant_id)
        book = await close_period(
            self._database,
            self._clock,
            tenant_id=tenant_id,
            request=_change_request(request, request.request_id),
            book_name=request.book_name,
            end_time=end_time,
            describe=convert.book_to_proto,
        )
        return pb2.ClosePeriodResponse(book=convert.book_to_proto(book))

    async def _change_state(
        self, request: pb2.FreezeAccountRequest | pb2.OpenAccountRequest | pb2.CloseAccountRequest, state: AccountState
    ) -> Account:
        return await change_account_state(
            self._database,
            self._clock,
            tenant_id=current_tenant_id(),
            request=_change_request(request, request.request_id),
            book_name=book_name_from_proto(request.book_name),
            account_name=request.account_name,
            state=state,
            describe=convert.account_to_proto,
        )


def _change_request(request: Message, request_id: str) -> ChangeRequest:
    body = request.SerializeToString(deterministic=True)
    return ChangeRequest(current_call().method, request_id, hashlib.sha256(body).digest())
