"""What must hold of a tenant's books after whatever broke."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import nats
from kente.ledger.v1 import ledger_pb2, ledger_service_pb2, proof_service_pb2, proof_service_pb2_grpc

from tests.ledger import teller
from tests.ledger.book import SCOPES, Book
from tests.ledger.crowd import HOT, booked_of, claims_of
from tests.ledger.oracle import Oracle
from tests.ledger.serialisability import Checker
from tests.system.ledger_clients import Clients
from tests.system.ledger_world import LedgerWorld

_EVENTS_SECONDS = 60.0
_STREAM_SECONDS = 30.0


@dataclass
class Audit:
    """The books of one tenant, and what its clients know of them."""

    world: LedgerWorld
    book: Book
    clients: Clients

    async def faults(self) -> dict[str, list[str]]:
        """What is wrong, by what it means: lost, doubled, unbalanced, disordered, unannounced."""
        listed = await self._listed()
        found = {
            "lost": [*self.clients.faults, *self._lost(listed)],
            "doubled": self._doubled(listed),
            "unbalanced": await self._unbalanced(),
            "unannounced": [*await self._missing_in_stream(listed), *await self._missing_on_bus(listed)],
        }
        # What is lost or doubled explains itself; else the whole history must be the oracle's.
        found["disordered"] = [] if any(found.values()) else self._disordered(listed)
        return found

    async def _listed(self) -> list[ledger_pb2.Transaction]:
        found: list[ledger_pb2.Transaction] = []
        request = ledger_service_pb2.ListTransactionsRequest(page_size=200)
        while True:
            answer = await self.book.stub.ListTransactions(request)
            found += answer.transactions
            request.page_token = answer.next_page_token
            if not request.page_token:
                return found

    def _lost(self, listed: Sequence[ledger_pb2.Transaction]) -> list[str]:
        """What was acknowledged and is not there, or is there as something else."""
        by_id = {transaction.transaction_id: transaction for transaction in listed}
        lost = []
        for sent in self.clients.sent.values():
            if sent.told.problem is not None:
                continue
            single = sent.asks[0].form == "transaction"
            told = [sent.told.message.transaction] if single else [r for r in sent.told.message.results if not r.reason]
            for one in told:
                there = by_id.get(one.transaction_id)
                if there is None or there.leaf_index != one.leaf_index:
                    lost.append(f"{one.transaction_id} was told leaf {one.leaf_index}; there is {there}")
        return lost

    def _doubled(self, listed: Sequence[ledger_pb2.Transaction]) -> list[str]:
        """What is there twice, or was never asked for."""
        asked = {ask.transaction_id for asks in self.clients.sent for ask in asks}
        counts = Counter(transaction.transaction_id for transaction in listed)
        doubled = [f"{id_} is there {count} times" for id_, count in counts.items() if count > 1]
        return doubled + [
            f"{transaction.transaction_id} was asked for by nobody"
            for transaction in listed
            if transaction.transaction_id not in asked and transaction.kind != ledger_pb2.Transaction.KIND_HOLD_EXPIRY
        ]

    async def _unbalanced(self) -> list[str]:
        """What the ledger finds when it checks its own books from the ground up."""
        channel = self.world.mesh.client("ledger", self.book.tenant_id, SCOPES)
        stub = proof_service_pb2_grpc.ProofServiceStub(channel)
        faults: list[str] = []
        is_done = False
        async for answer in stub.VerifyBooks(proof_service_pb2.VerifyBooksRequest()):
            faults += [f"{fault.check}: {fault.detail}" for fault in answer.faults]
            is_done = answer.done
        return faults if is_done else [*faults, "the check of the books did not end"]

    def _disordered(self, listed: Sequence[ledger_pb2.Transaction]) -> list[str]:
        """What could not have happened one after the other in the order of the leaves."""
        booked = [booked_of(transaction) for transaction in listed]
        expiry_ids = {made.related_id: made.transaction_id for made in booked if made.kind == "hold_expiry"}

        def expiry_id(hold_id: str) -> str:
            return expiry_ids.get(hold_id, "not expired")

        claims = [claim for sent in self.clients.sent.values() for claim in claims_of(sent)]
        faults = Checker(HOT, booked, claims, [], [], expiry_id).check()
        oracle = Oracle(expiry_id)
        oracle.accounts, oracle.booked = dict(HOT), booked
        return faults + [
            f"{transaction.transaction_id} is listed as {transaction}"
            for transaction, made in zip(listed, booked, strict=True)
            if transaction != teller.transaction_message(made, oracle)
        ]

    async def _missing_in_stream(self, listed: Sequence[ledger_pb2.Transaction]) -> list[str]:
        """What WatchEntries tells otherwise than in the order of the leaves, without a gap."""
        call = self.book.stub.WatchEntries(ledger_service_pb2.WatchEntriesRequest())
        told: list[str] = []
        try:
            async with asyncio.timeout(_STREAM_SECONDS):
                async for answer in call:
                    told.append(answer.transaction.transaction_id)
                    if len(told) == len(listed):
                        break
        except TimeoutError:
            return [f"the stream told {len(told)} of {len(listed)} transactions"]
        finally:
            call.cancel()
        in_order = [transaction.transaction_id for transaction in listed]
        return [] if told == in_order else ["the stream told the transactions in another order"]

    async def _missing_on_bus(self, listed: Sequence[ledger_pb2.Transaction]) -> list[str]:
        """What the event bus never told."""
        missing = {transaction.leaf_index for transaction in listed}
        connection = await nats.connect(self.world.infrastructure.nats.url)
        try:
            subject = f"kente.{self.book.tenant_id}.ledger.>"
            subscription = await connection.jetstream().subscribe(subject, ordered_consumer=True)
            async with asyncio.timeout(_EVENTS_SECONDS):
                while missing:
                    message = await subscription.next_msg(timeout=_EVENTS_SECONDS)
                    missing -= leaves_of(json.loads(message.data))
        except (TimeoutError, nats.errors.TimeoutError):
            return [f"the bus never told leaf {leaf}" for leaf in sorted(missing)]
        finally:
            await connection.close()
        return []


def leaves_of(event: dict[str, object]) -> set[int]:
    """The leaves that an event announces."""
    data = event["data"]
    assert isinstance(data, dict)
    if "firstLeafIndex" in data:
        return set(range(int(data["firstLeafIndex"]), int(data["lastLeafIndex"]) + 1))
    kind = str(event["type"]).split(".")[1]
    # The first leaf is 0, which JSON leaves out.
    return {int(data.get("leafIndex", 0))} if kind in {"transaction", "hold"} else set()
