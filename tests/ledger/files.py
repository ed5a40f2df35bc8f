"""Files of the ledger as a client gets them."""

from __future__ import annotations

import csv
import io
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from kente.ledger.v1 import report_service_pb2 as pb2
from kente.ledger.v1 import report_service_pb2_grpc as pb2_grpc

CHUNK_BYTES_MAX = 256 * 1024


class Files:
    """Exports of one tenant."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = pb2_grpc.ReportServiceStub(channel)

    async def export(self, form: str, kind: str = "ENTRIES", **fields: Any) -> bytes:
        """A whole file."""
        return b"".join(await self.parts(form, kind, **fields))

    async def parts(self, form: str, kind: str = "ENTRIES", **fields: Any) -> list[bytes]:
        """A file in parts, none larger than allowed."""
        request = pb2.ExportReportRequest(
            kind=pb2.ReportKind.Value(f"REPORT_KIND_{kind}"),
            format=pb2.ReportFormat.Value(f"REPORT_FORMAT_{form}"),
            **fields,
        )
        parts = [part.data async for part in self._stub.ExportReport(request)]
        assert all(0 < len(part) <= CHUNK_BYTES_MAX for part in parts)
        return parts

    async def rows(self, kind: str = "ENTRIES", **fields: Any) -> list[dict[str, str]]:
        """The rows of a table, by the names of its columns."""
        text = (await self.export("CSV", kind, **fields)).decode()
        return list(csv.DictReader(io.StringIO(text, newline="")))


def as_timestamp(text: str) -> Timestamp:
    """A time of RFC 3339."""
    timestamp = Timestamp()
    timestamp.FromJsonString(text)
    return timestamp
