"""ReportService: convert in, let the file be made, pass its bytes on."""

# ruff: noqa: N802 - the contracts name the methods

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from kente.ledger.v1 import report_service_pb2 as pb2
from kente.ledger.v1 import report_service_pb2_grpc as pb2_grpc

from mesh.context import current_tenant_id
from mesh.database import Database
from services.ledger.convert.exports import export_request_from_proto
from services.ledger.use_cases.export_report import export_report

# Each keeps a connection of the pool for as long as the database sorts.
_JOURNALS_AT_ONCE = 2


class ReportServicer(pb2_grpc.ReportServiceServicer):
    """Entries and reports as files."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._journals = asyncio.Semaphore(_JOURNALS_AT_ONCE)

    async def ExportReport(
        self, request: pb2.ExportReportRequest, _context: object
    ) -> AsyncGenerator[pb2.ExportReportResponse]:
        """Streams a file."""
        wanted = export_request_from_proto(request)
        file = export_report(self._database, tenant_id=current_tenant_id(), request=wanted, journals=self._journals)
        async with aclosing(file) as chunks:
            async for chunk in chunks:
                yield pb2.ExportReportResponse(data=chunk)
