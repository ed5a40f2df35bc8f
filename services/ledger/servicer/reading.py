"""The RPCs that read transactions, entries, balances and reports: convert in, call the use case, convert out."""

# ruff: noqa: N802 - the contracts name the methods

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import grpc
from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.context import current_tenant_id
from mesh.database import Database
from services.ledger.convert import reading as convert
from services.ledger.convert import reports as convert_reports
from services.ledger.convert.common import book_name_from_proto
from services.ledger.convert.postings import transaction_to_proto
from services.ledger.use_cases.booking import Bookkeeper
from services.ledger.use_cases.get_balance import get_balance
from services.ledger.use_cases.get_balance_sheet import get_balance_sheet
from services.ledger.use_cases.get_profit_and_loss import get_profit_and_loss
from services.ledger.use_cases.get_statement import get_statement
from services.ledger.use_cases.get_transaction import get_transaction
from services.ledger.use_cases.get_trial_balance import get_trial_balance
from services.ledger.use_cases.list_balances import list_balances
from services.ledger.use_cases.list_entries import list_entries
from services.ledger.use_cases.list_transactions import list_transactions
from services.ledger.use_cases.watch_entries import watch_entries


class ReadingRpcs:
    """Reads of the books. Whoever builds the servicer sets the attributes."""

    _database: Database
    _bookkeeper: Bookkeeper

    async def GetBalance(self, request: pb2.GetBalanceRequest, _context: object) -> pb2.GetBalanceResponse:
        tenant_id = current_tenant_id()
        moment = convert.moment_from_proto(request)
        await self._bookkeeper.expire_due(tenant_id)
        balance = await get_balance(
            self._database,
            tenant_id=tenant_id,
            book_name=book_name_from_proto(request.book_name),
            account_name=request.account_name,
            moment=moment,
        )
        return convert.balance_to_proto(balance)

    async def ListBalances(self, request: pb2.ListBalancesRequest, _context: object) -> pb2.ListBalancesResponse:
        balances, next_page_token = await list_balances(
            self._database,
            tenant_id=current_tenant_id(),
            book_name=book_name_from_proto(request.book_name),
            branch=request.branch,
            depth=request.depth,
            moment=convert.moment_from_proto(request),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return pb2.ListBalancesResponse(
            balances=[convert.branch_balance_to_proto(balance) for balance in balances],
            next_page_token=next_page_token,
        )

    async def GetTransaction(self, request: pb2.GetTransactionRequest, _context: object) -> pb2.GetTransactionResponse:
        tenant_id = current_tenant_id()
        await self._bookkeeper.expire_due(tenant_id)
        transaction = await get_transaction(self._database, tenant_id=tenant_id, transaction_id=request.transaction_id)
        return pb2.GetTransactionResponse(transaction=transaction_to_proto(transaction))

    async def ListTransactions(
        self, request: pb2.ListTransactionsRequest, _context: object
    ) -> pb2.ListTransactionsResponse:
        tenant_id = current_tenant_id()
        wanted = convert.transaction_filter_from_proto(request)
        await self._bookkeeper.expire_due(tenant_id)
        transactions, next_page_token = await list_transactions(
            self._database,
            tenant_id=tenant_id,
            wanted=wanted,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return pb2.ListTransactionsResponse(
            transactions=[transaction_to_proto(transaction) for transaction in transactions],
            next_page_token=next_page_token,
        )

    async def ListEntries(self, request: pb2.ListEntriesRequest, _context: object) -> pb2.ListEntriesResponse:
        entries, next_page_token = await list_entries(
            self._database,
            tenant_id=current_tenant_id(),
            wanted=convert.entry_filter_from_proto(request),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return pb2.ListEntriesResponse(
            entries=[convert.booked_entry_to_proto(booked) for booked in entries], next_page_token=next_page_token
        )

    async def WatchEntries(
        self, request: pb2.WatchEntriesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncGenerator[pb2.WatchEntriesResponse]:
        async def ready() -> None:
            # Who asks for what comes from now on learns so when that is.
            await context.send_initial_metadata(())

        transactions = watch_entries(
            self._database,
            self._bookkeeper,
            tenant_id=current_tenant_id(),
            resume_token=request.resume_token,
            from_now=request.from_now,
            ready=ready,
        )
        async with aclosing(transactions):
            async for transaction, resume_token in transactions:
                yield pb2.WatchEntriesResponse(transaction=transaction_to_proto(transaction), resume_token=resume_token)

    async def GetStatement(self, request: pb2.GetStatementRequest, _context: object) -> pb2.GetStatementResponse:
        tenant_id = current_tenant_id()
        period = convert.period_from_proto(request)
        booking_time = convert.time_of_request(request, "booking_time")
        await self._bookkeeper.expire_due(tenant_id)
        statement, next_page_token = await get_statement(
            self._database,
            tenant_id=tenant_id,
            book_name=book_name_from_proto(request.book_name),
            account_name=request.account_name,
            period=period,
            booking_time=booking_time,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return convert.statement_to_proto(statement, next_page_token)

    async def GetTrialBalance(
        self, request: pb2.GetTrialBalanceRequest, _context: object
    ) -> pb2.GetTrialBalanceResponse:
        presentation = convert_reports.presentation_from_proto(request.presentation_currency, request.rates)
        report = await get_trial_balance(
            self._database,
            tenant_id=current_tenant_id(),
            book_name=book_name_from_proto(request.book_name),
            moment=convert.moment_from_proto(request),
            presentation=presentation,
        )
        return convert_reports.trial_balance_to_proto(report, presentation)

    async def GetBalanceSheet(
        self, request: pb2.GetBalanceSheetRequest, _context: object
    ) -> pb2.GetBalanceSheetResponse:
        presentation = convert_reports.presentation_from_proto(request.presentation_currency, request.rates)
        report = await get_balance_sheet(
            self._database,
            tenant_id=current_tenant_id(),
            book_name=book_name_from_proto(request.book_name),
            moment=convert.moment_from_proto(request),
            presentation=presentation,
        )
        return convert_reports.balance_sheet_to_proto(report, presentation)

    async def GetProfitAndLoss(
        self, request: pb2.GetProfitAndLossRequest, _context: object
    ) -> pb2.GetProfitAndLossResponse:
        presentation = convert_reports.presentation_from_proto(request.presentation_currency, request.rates)
        report = await get_profit_and_loss(
            self._database,
            tenant_id=current_tenant_id(),
            book_name=book_name_from_proto(request.book_name),
            period=convert.period_from_proto(request),
            booking_time=convert.time_of_request(request, "booking_time"),
            presentation=presentation,
        )
        return convert_reports.profit_and_loss_to_proto(report, presentation)
