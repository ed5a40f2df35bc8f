"""LedgerService."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from kente.ledger.v1 import ledger_service_pb2_grpc as pb2_grpc

from mesh.database import Database
from services.ledger.servicer.accounts import AccountRpcs
from services.ledger.servicer.booking import BookingRpcs
from services.ledger.servicer.reading import ReadingRpcs
from services.ledger.use_cases.booking import Bookkeeper


class LedgerServicer(  # type: ignore[misc]  # the RPCs that book answer with bytes, which the server passes on
    AccountRpcs, BookingRpcs, ReadingRpcs, pb2_grpc.LedgerServiceServicer
):
    """Accounts, the transactions between them, and what the books say."""

    def __init__(self, database: Database, bookkeeper: Bookkeeper, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._bookkeeper = bookkeeper
        self._clock = clock
