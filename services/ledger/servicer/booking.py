"""The RPCs that book: convert in, let the bookkeeper book, convert out."""

# ruff: noqa: N802 - the contracts name the methods

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.context import current_call, current_tenant_id
from mesh.errors import Problem
from mesh.interceptors.audit import current_row
from mesh.telemetry import current_trace_context
from services.ledger.convert import postings as convert
from services.ledger.convert.transfers import transfers_answer, transfers_from_proto
from services.ledger.model.changes import ChangeRequest
from services.ledger.model.postings import Posting
from services.ledger.use_cases.booking import Bookkeeper
from services.ledger.use_cases.work import Result, Work


class BookingRpcs:
    """Everything that changes balances. Whoever builds the servicer sets the attribute.

    The answers are bytes: those that were stored, and are given again to whoever asks again.
    """

    _bookkeeper: Bookkeeper

    async def CreateTransaction(self, request: pb2.CreateTransactionRequest, _context: object) -> bytes:
        return await self._book_one(convert.posting_from_proto(request))

    async def CreateTransfers(self, request: pb2.CreateTransfersRequest, _context: object) -> bytes:
        postings = transfers_from_proto(request)
        results = await self._book(postings, together=True)
        return transfers_answer([posting.transaction_id for posting in postings], results)

    async def PostHold(self, request: pb2.PostHoldRequest, _context: object) -> bytes:
        return await self._book_one(convert.hold_posting_from_proto(request))

    async def VoidHold(self, request: pb2.VoidHoldRequest, _context: object) -> bytes:
        return await self._book_one(convert.hold_void_from_proto(request))

    async def ReverseTransaction(self, request: pb2.ReverseTransactionRequest, _context: object) -> bytes:
        return await self._book_one(convert.reversal_from_proto(request))

    async def _book_one(self, posting: Posting) -> bytes:
        """The answer to one posting.

        Raises:
            Problem: it was refused.
        """
        (result,) = await self._book([posting], together=False)
        if isinstance(result, Problem):
            raise result
        return result

    async def _book(self, postings: Sequence[Posting], *, together: bool) -> list[Result]:
        tenant_id, call = current_tenant_id(), current_call()
        hash_ = hashlib.sha256()
        for posting in postings:
            hash_.update(posting.request)
        request = ChangeRequest(call.method, call.request_id, hash_.digest())
        resources = {} if together else {"transaction_id": postings[0].transaction_id}
        work = Work(request, postings, together, current_row(resources), current_trace_context())
        return await self._bookkeeper.book(tenant_id, work, call.deadline_monotonic)
