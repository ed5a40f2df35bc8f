"""What the tests of proofs share: a book with something of every kind in it, and the calls that prove and check it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from kente.ledger.v1 import ledger_pb2, ledger_service_pb2, proof_pb2, proof_service_pb2, proof_service_pb2_grpc

from mesh.ids import new_id
from tests.harness import TestMesh
from tests.ledger.book import BANK, FEES, PAYER, SCOPES, Book, credit, debit, new_request_id

EURO_BANK, EURO_POSITION, POSITION = "assets:bank:eur", "equity:position:eur", "equity:position:ghs"


def timestamp(time: datetime) -> Timestamp:
    """A time of the contract."""
    made = Timestamp()
    made.FromDatetime(time)
    return made


class Auditor:
    """Whoever doubts a tenant's book."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub = proof_service_pb2_grpc.ProofServiceStub(channel)

    @classmethod
    def of(cls, ledger: TestMesh, book: Book) -> Auditor:
        """The auditor of a book."""
        return cls(ledger.client("ledger", book.tenant_id, SCOPES))

    async def checkpoint(self, tree_size: int = 0) -> proof_pb2.Checkpoint:
        """A checkpoint; the newest unless a size is given."""
        request = proof_service_pb2.GetCheckpointRequest(tree_size=tree_size)
        return (await self.stub.GetCheckpoint(request)).checkpoint

    async def keys(self) -> list[str]:
        """The keys that the ledger publishes."""
        answer = await self.stub.ListCheckpointKeys(proof_service_pb2.ListCheckpointKeysRequest(page_size=200))
        return [key.verifier_key for key in answer.keys]

    async def inclusion(self, transaction_id: str, tree_size: int = 0) -> proof_pb2.InclusionProof:
        """The proof that a transaction is in the book."""
        request = proof_service_pb2.GetInclusionProofRequest(transaction_id=transaction_id, tree_size=tree_size)
        return (await self.stub.GetInclusionProof(request)).proof

    async def consistency(self, first: int, second: int = 0) -> proof_service_pb2.GetConsistencyProofResponse:
        """The proof that one state continues another."""
        request = proof_service_pb2.GetConsistencyProofRequest(first_tree_size=first, second_tree_size=second)
        return await self.stub.GetConsistencyProof(request)

    async def records(self, start: int = 0, tree_size: int = 0) -> list[bytes]:
        """The exported records."""
        request = proof_service_pb2.ExportRecordsRequest(start_leaf_index=start, tree_size=tree_size)
        return [record async for part in self.stub.ExportRecords(request) for record in part.records]

    async def verify(self, note: str = "") -> list[proof_service_pb2.VerifyBooksResponse]:
        """All answers of a check of the books."""
        return [answer async for answer in self.stub.VerifyBooks(proof_service_pb2.VerifyBooksRequest(note=note))]

    async def faults(self, note: str = "") -> list[proof_service_pb2.BookFault]:
        """What a check of the books finds wrong."""
        return [fault for answer in await self.verify(note) for fault in answer.faults]


def checks_of(faults: Iterable[proof_service_pb2.BookFault]) -> set[str]:
    """The checks that failed."""
    return {fault.check for fault in faults}


async def fill(book: Book) -> list[ledger_pb2.Transaction]:
    """Books something of every kind. Returns all transactions in their order."""
    await book.open(BANK, PAYER, FEES, POSITION, metadata={"a": "1"})
    await book.open(EURO_BANK, EURO_POSITION, currency="EUR")
    booked = [
        await book.post(debit(BANK, 5_000), credit(PAYER, 5_000), description="cash in", source_id="pay_1"),
        await book.post(
            *(debit(PAYER, 700), credit(FEES, 700)),
            metadata={"z": "last", "a": "first", "m": "\u00e9", "n": "7"},
            effective_time=timestamp(datetime(2026, 1, 5, 8, 0, 0, 250_000, tzinfo=UTC)),
        ),
        await book.post(
            *(debit(POSITION, 130), credit(BANK, 130), debit(EURO_BANK, 9, "EUR"), credit(EURO_POSITION, 9, "EUR")),
            description="exchange",
        ),
    ]
    holds = []
    for amount_minor in (100, 200, 300):
        tomorrow = timestamp(datetime.now(UTC) + timedelta(days=1))
        holds.append(
            await book.post(debit(PAYER, amount_minor), credit(FEES, amount_minor), pending=True, expire_time=tomorrow)
        )
    ids: list[dict[str, Any]] = [{"request_id": new_request_id(), "transaction_id": new_id("txn")} for _ in range(3)]
    part = [debit(PAYER, 40), credit(FEES, 40)]
    posted = await book.stub.PostHold(
        ledger_service_pb2.PostHoldRequest(hold_transaction_id=holds[0].transaction_id, legs=part, **ids[0])
    )
    voided = await book.stub.VoidHold(
        ledger_service_pb2.VoidHoldRequest(hold_transaction_id=holds[1].transaction_id, **ids[1])
    )
    reversed_ = await book.stub.ReverseTransaction(
        ledger_service_pb2.ReverseTransactionRequest(reversed_transaction_id=booked[1].transaction_id, **ids[2])
    )
    return [*booked, *holds, posted.transaction, voided.transaction, reversed_.transaction]


async def fill_many(book: Book, count: int) -> None:
    """Books many transfers in one call."""
    transfers = [
        ledger_pb2.Transfer(
            transaction_id=new_id("txn"),
            action=ledger_pb2.Transfer.ACTION_POST,
            debit_account_name=BANK,
            credit_account_name=PAYER,
            amount=debit(BANK, 1 + number % 7).amount,
        )
        for number in range(count)
    ]
    await book.stub.CreateTransfers(
        ledger_service_pb2.CreateTransfersRequest(request_id=new_request_id(), transfers=transfers)
    )
