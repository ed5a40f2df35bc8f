"""Finds what a table of an export is made of: its columns, and its rows some at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

from mesh.database import Connection, Database
from mesh.pages import MAX_SIZE
from services.ledger.model.exports.entries import entries_table, entry_rows
from services.ledger.model.exports.reports import ReportRows, StatementRows
from services.ledger.model.exports.requests import ExportRequest, ReportKind
from services.ledger.model.exports.tables import Row, Table
from services.ledger.model.reading import BEGINNING_OF_TIME, Moment, Statement
from services.ledger.repository import exports as repository
from services.ledger.repository.exports import ExportScope
from services.ledger.use_cases.get_balance_sheet import get_balance_sheet
from services.ledger.use_cases.get_book import book_not_found
from services.ledger.use_cases.get_profit_and_loss import get_profit_and_loss
from services.ledger.use_cases.get_statement import get_statement
from services.ledger.use_cases.get_trial_balance import get_trial_balance

# So few that others of the process need not wait long while they are written.
_ENTRIES_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Source:
    """A table and its rows."""

    table: Table
    batches: AsyncIterator[Sequence[Row]]


async def open_source(database: Database, tenant_id: str, request: ExportRequest) -> Source:
    """The table that was asked for.

    Raises:
        Problem: RESOURCE_NOT_FOUND; FIELD_INVALID, a rate is missing or makes an amount too large; BALANCE_OVERFLOW.
    """
    if request.kind is ReportKind.ENTRIES:
        async with database.transaction(tenant_id) as connection:
            scope = await find_scope(connection, tenant_id, request)
        table = entries_table(request.facts, request.presentation)
        return Source(table, _entry_batches(database, tenant_id, request, scope))
    if request.kind is ReportKind.STATEMENT:
        return await _statement(database, tenant_id, request)
    return await _report(database, tenant_id, request)


async def find_scope(connection: Connection, tenant_id: str, request: ExportRequest) -> ExportScope:
    """The entries to export: those that are booked now.

    Raises:
        Problem: RESOURCE_NOT_FOUND, there is no such book; FIELD_INVALID, a rate is missing.
    """
    scope = await repository.find_scope(connection, tenant_id, request.book_name, request.period, request.booking_time)
    if scope is None:
        raise book_not_found(request.book_name)
    if request.presentation is not None:
        request.check_rates(await repository.find_scales(connection, tenant_id, request.book_name))
    return scope


async def _entry_batches(
    database: Database, tenant_id: str, request: ExportRequest, scope: ExportScope
) -> AsyncIterator[Sequence[Row]]:
    # Numbers have no gap, so a stretch of them is a bounded amount of work, also when few of them pass the filter.
    not_before = BEGINNING_OF_TIME
    for after_sequence in range(0, scope.last_sequence, _ENTRIES_AT_ONCE):
        async with database.transaction(tenant_id) as connection:
            entries = await repository.list_entries_between(
                connection, scope, after_sequence, after_sequence + _ENTRIES_AT_ONCE, not_before
            )
        if entries:
            not_before = entries[-1].create_time
            yield list(entry_rows(entries, request.presentation))


async def _statement(database: Database, tenant_id: str, request: ExportRequest) -> Source:
    first, next_page_token = await _statement_page(database, tenant_id, request, "")
    request.check_rates([first.account.currency])
    rows = StatementRows(first.account, request.presentation)

    async def batches() -> AsyncIterator[Sequence[Row]]:
        page, token = first, next_page_token
        yield [rows.edge("opening", first.opening_balance_minor), *rows.lines(page.lines)]
        while token:
            page, token = await _statement_page(database, tenant_id, request, token)
            yield list(rows.lines(page.lines))
        yield [rows.edge("closing", first.closing_balance_minor)]

    return Source(rows.table(request.facts), batches())


async def _statement_page(
    database: Database, tenant_id: str, request: ExportRequest, page_token: str
) -> tuple[Statement, str]:
    return await get_statement(
        database,
        tenant_id=tenant_id,
        book_name=request.book_name,
        account_name=request.account_name,
        period=request.period,
        booking_time=request.booking_time,
        page_size=MAX_SIZE,
        page_token=page_token,
    )


async def _report(database: Database, tenant_id: str, request: ExportRequest) -> Source:
    async with database.transaction(tenant_id) as connection:
        scales = await repository.find_scales(connection, tenant_id, request.book_name)
    rows = ReportRows(scales, request.presentation)
    found = list(await _report_rows(database, tenant_id, request, rows))

    async def batches() -> AsyncIterator[Sequence[Row]]:
        for start in range(0, len(found), _ENTRIES_AT_ONCE):
            yield found[start : start + _ENTRIES_AT_ONCE]

    return Source(rows.table(request.kind.value, request.facts), batches())


async def _report_rows(database: Database, tenant_id: str, request: ExportRequest, rows: ReportRows) -> Iterable[Row]:
    book_name, presentation = request.book_name, request.presentation
    if request.kind is ReportKind.PROFIT_AND_LOSS:
        period, booking_time = request.period, request.booking_time
        return rows.profit_and_loss(
            await get_profit_and_loss(
                database,
                tenant_id=tenant_id,
                book_name=book_name,
                period=period,
                booking_time=booking_time,
                presentation=presentation,
            )
        )
    moment = Moment(request.booking_time, request.period.last_time)
    if request.kind is ReportKind.BALANCE_SHEET:
        return rows.balance_sheet(
            await get_balance_sheet(
                database, tenant_id=tenant_id, book_name=book_name, moment=moment, presentation=presentation
            )
        )
    return rows.trial_balance(
        await get_trial_balance(
            database, tenant_id=tenant_id, book_name=book_name, moment=moment, presentation=presentation
        )
    )
