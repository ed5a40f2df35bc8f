"""Makes a file of entries or of a report, part by part.

Tables of entries are read a stretch of numbers at a time, each in a short transaction of its own, and go out as they
are read. A workbook and a journal are made on disk first: the one because its form wants it, the other because the
database sorts it, and a caller who reads slowly must not keep a connection busy. So memory does not grow with the
number of entries in any case.
"""

from __future__ import annotations

import asyncio
import errno
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import IO

from mesh.database import Database
from mesh.errors import Problem, Reason
from services.ledger.model.exports.beancount import BeancountWriter
from services.ledger.model.exports.csv_table import CsvWriter
from services.ledger.model.exports.hledger import HledgerWriter
from services.ledger.model.exports.journals import JournalHead
from services.ledger.model.exports.json_table import JsonWriter
from services.ledger.model.exports.requests import ExportRequest, ReportFormat
from services.ledger.model.exports.workbook import WorkbookWriter
from services.ledger.repository import exports as repository
from services.ledger.use_cases.export_tables import Source, find_scope, open_source

CHUNK_BYTES = 128 * 1024
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


async def export_report(
    database: Database, *, tenant_id: str, request: ExportRequest, journals: asyncio.Semaphore
) -> AsyncGenerator[bytes]:
    """The bytes of the file, in chunks of at most CHUNK_BYTES.

    Args:
        journals: how many journals may be made at a time; the others wait.

    Raises:
        Problem: RESOURCE_NOT_FOUND; FIELD_INVALID, the format can't show the report or a rate is missing;
            SERVICE_OVERLOADED, there is no room to make the file.
    """
    request.check()
    if request.format.is_journal:
        parts = _journal(database, tenant_id, request, journals)
    else:
        source = await open_source(database, tenant_id, request)
        parts = _workbook(source) if request.format is ReportFormat.XLSX else _text(source, request.format)
    try:
        async with aclosing(parts), aclosing(_in_chunks(parts)) as chunks:
            async for chunk in chunks:
                yield chunk
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise Problem(Reason.SERVICE_OVERLOADED, "there is no room to make the file now", retry_after_seconds=60) from (
            error
        )


async def _text(source: Source, format_: ReportFormat) -> AsyncGenerator[bytes]:
    writer = CsvWriter(source.table) if format_ is ReportFormat.CSV else JsonWriter(source.table)
    yield writer.begin()
    async for rows in source.batches:
        yield writer.rows(rows)
    yield writer.end()


async def _workbook(source: Source) -> AsyncGenerator[bytes]:
    # XlsxWriter does not know asyncio: its work is done beside the calls that others wait for.
    with tempfile.TemporaryDirectory(prefix="kente-export-") as folder:
        writer = WorkbookWriter(source.table, Path(folder))
        writer.begin()
        async for rows in source.batches:
            await asyncio.to_thread(writer.rows, rows)
        await asyncio.to_thread(writer.end)
        with writer.path.open("rb") as file:
            async for chunk in _read(file):
                yield chunk


async def _journal(
    database: Database, tenant_id: str, request: ExportRequest, journals: asyncio.Semaphore
) -> AsyncGenerator[bytes]:
    with tempfile.TemporaryFile(prefix="kente-export-") as file:
        async with journals:
            await _write_journal(database, tenant_id, request, file)
        file.seek(0)
        async for chunk in _read(file):
            yield chunk


async def _write_journal(database: Database, tenant_id: str, request: ExportRequest, file: IO[bytes]) -> None:
    async with database.transaction(tenant_id) as connection:
        scope = await find_scope(connection, tenant_id, request)
        accounts, first_day = await repository.list_journal_accounts(connection, scope)
        start_time = scope.period.start_time
        if first_day is None or (start_time is not None and any(account.opening_minor for account in accounts)):
            first_day = (start_time or scope.book_create_time).date()
        presentation = request.presentation
        used = {account.currency for account in accounts}
        head = JournalHead(
            book_name=scope.book_name,
            facts=request.facts,
            first_day=first_day,
            accounts=accounts,
            presentation_currency=presentation.currency if presentation else "",
            prices={currency: f"{rate:f}" for currency, rate in presentation.rates.items() if currency in used}
            if presentation
            else {},
        )
        writer = HledgerWriter(head) if request.format is ReportFormat.HLEDGER else BeancountWriter(head)
        await asyncio.to_thread(file.write, writer.begin())
        async for transactions in repository.read_journal(connection, scope):
            await asyncio.to_thread(file.write, writer.transactions(transactions))
        await asyncio.to_thread(file.write, writer.end())


async def _read(file: IO[bytes]) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
        yield chunk


async def _in_chunks(parts: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """The same bytes in chunks of one size, but for the last."""
    waiting: list[bytes] = []
    size = 0
    async for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= CHUNK_BYTES:
            joined = b"".join(waiting)
            cut = size - size % CHUNK_BYTES
            for start in range(0, cut, CHUNK_BYTES):
                yield joined[start : start + CHUNK_BYTES]
            waiting, size = [joined[cut:]], size - cut
    if size:
        yield b"".join(waiting)
