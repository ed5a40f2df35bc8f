"""Finds what a table of an export is made of: its columns, and its rows some at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from mesh.database import Connection, Database
from services.ledger.model.exports.entries import entries_table, entry_rows
from services.ledger.model.exports.requests import ExportRequest
from services.ledger.model.exports.tables import Row, Table
from services.ledger.model.reading import BEGINNING_OF_TIME
from services.ledger.repository import exports as repository
from services.ledger.repository.exports import ExportScope
from services.ledger.use_cases.get_book import book_not_found

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
        Problem: RESOURCE_NOT_FOUND; FIELD_INVALID, a rate is missing.
    """
    async with database.transaction(tenant_id) as connection:
        scope = await find_scope(connection, tenant_id, request)
    return Source(
        entries_table(request.facts, request.presentation), _entry_batches(database, tenant_id, request, scope)
    )


async def find_scope(connection: Connection, tenant_id: str, request: ExportRequest) -> ExportScope:
    """The entries to export: those that are booked now.

    Raises:
        Problem: RESOURCE_NOT_FOUND, there is no such book; FIELD_INVALID, a rate is missing.
    """
    scope = await repository.find_scope(connection, tenant_id, request.book_name, request.period, request.booking_time)
    if scope is None:
        raise book_not_found(request.book_name)
    if request.presentation is not None:
        scales = await repository.find_scales(connection, tenant_id, request.book_name)
        request.check_rates(scales)
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
