"""Between the contract of exports and the model. Pure functions."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from kente.ledger.v1 import report_service_pb2 as pb2

from mesh.errors import Problem, Reason, Violation
from services.ledger.convert.common import book_name_from_proto, time_from_proto
from services.ledger.convert.reports import presentation_from_proto
from services.ledger.model.exports.requests import ExportRequest, ReportFormat, ReportKind
from services.ledger.model.reading import period_of

_KINDS = {pb2.ReportKind.Value(f"REPORT_KIND_{kind.name}"): kind for kind in ReportKind}
_FORMATS = {pb2.ReportFormat.Value(f"REPORT_FORMAT_{format_.name}"): format_ for format_ in ReportFormat}


def export_request_from_proto(request: pb2.ExportReportRequest) -> ExportRequest:
    """The file that a caller asks for.

    Raises:
        Problem: FIELD_INVALID.
    """
    period = period_of(_time(request, request.start_time, "start_time"), _time(request, request.end_time, "end_time"))
    if period is None:
        description = "is not later than the start of the period: swap them"
        raise Problem(Reason.FIELD_INVALID, violations=[Violation("end_time", description)])
    return ExportRequest(
        book_name=book_name_from_proto(request.book_name),
        kind=_KINDS[request.kind],
        format=_FORMATS[request.format],
        account_name=request.account_name,
        period=period,
        booking_time=_time(request, request.booking_time, "booking_time"),
        presentation=presentation_from_proto(request.presentation_currency, request.rates),
    )


def _time(request: Message, timestamp: Timestamp, field: str) -> datetime | None:
    return time_from_proto(timestamp, field) if request.HasField(field) else None
