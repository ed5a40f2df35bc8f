"""Bookkeepers without a service around them, and calls for them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import asyncpg
from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.clock import utc_now
from mesh.database import Database
from mesh.interceptors.audit import AuditRow
from mesh.tokens import load_private_key
from services.ledger.convert import postings, transfers
from services.ledger.model.changes import ChangeRequest
from services.ledger.model.checkpoints import CheckpointSigner
from services.ledger.model.postings import Posting
from services.ledger.use_cases.book_batch import AHEAD
from services.ledger.use_cases.booking import Bookkeeper
from services.ledger.use_cases.work import BatchTools, Result, Wording, Work
from tests.harness import PASSWORD, Infrastructure
from tests.ledger.book import BANK, PAYER, Book, credit, debit, new_request_id, transaction_request

MakeBookkeeper = Callable[..., Awaitable[Bookkeeper]]


def tools_of(infrastructure: Infrastructure, clock: Callable[[], datetime] = utc_now) -> BatchTools:
    """What a ledger books with."""
    signer = CheckpointSigner("kente.test/ledger", load_private_key(infrastructure.checkpoint_key_file, ""))
    wording = Wording(
        booked=postings.booked_to_proto,
        transfer=transfers.transfer_result_to_proto,
        event=postings.transaction_to_json,
        differing_fields=postings.differing_fields,
    )
    return BatchTools(clock, signer, wording, timedelta(seconds=300))


@asynccontextmanager
async def bookkeepers_on(infrastructure: Infrastructure, database_port: int) -> AsyncIterator[MakeBookkeeper]:
    """Makes bookkeepers as a process of its own has one, with a way of their own to the database."""
    made: list[tuple[Bookkeeper, Database]] = []

    async def make(clock: Callable[[], datetime] = utc_now, ahead_postings: int = 256) -> Bookkeeper:
        direct = infrastructure.postgres.url("kente_ledger", PASSWORD)
        database = await Database.connect(direct.replace(str(infrastructure.postgres.port), str(database_port)))
        tools = tools_of(infrastructure, clock)
        bookkeeper = Bookkeeper(database, tools, batch_limit=8192, queue_limit=1_000, ahead_postings=ahead_postings)
        made.append((bookkeeper, database))
        return bookkeeper

    try:
        yield make
    finally:
        for bookkeeper, database in made:
            await bookkeeper.close()
            await database.close()


def posting(amount_minor: int = 5, **fields: Any) -> Posting:
    """A posting of an amount."""
    legs = debit(BANK, amount_minor), credit(PAYER, amount_minor)
    return postings.posting_from_proto(transaction_request(*legs, **fields))


def work(tenant_id: str, *asked: Posting) -> Work:
    """A call that books."""
    hash_ = hashlib.sha256(b"".join(one.request for one in asked)).digest()
    request = ChangeRequest("tests", new_request_id(), hash_)
    row = AuditRow(tenant_id, "tests", request.method, request.request_id, {}, "OK", "")
    return Work(request, asked, len(asked) > 1, row)


def booked(results: list[Result]) -> ledger_pb2.Transaction:
    """The transaction that a call was answered with."""
    (answer,) = results
    assert isinstance(answer, bytes)
    return pb2.CreateTransactionResponse.FromString(answer).transaction


async def batches_of(admin: asyncpg.Connection, book: Book) -> list[int]:
    """Size of the tree after each batch of a tenant."""
    rows = await admin.fetch(
        "SELECT tree_size FROM checkpoints WHERE tenant_id = $1 ORDER BY tree_size", book.tenant_id
    )
    return [row["tree_size"] for row in rows]


def ahead_outcomes() -> tuple[float, ...]:
    """How many batches that were decided ahead were written, and how many were decided again."""
    values = {
        sample.labels["outcome"]: sample.value
        for metric in AHEAD.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }
    return values.get("written", 0.0), values.get("decided_again", 0.0)
