"""How a batch is written: few statements, on their way while the next are made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby

import asyncpg
from google.protobuf.message import Message

from mesh import outbox
from mesh.database import Connection, after_commit
from mesh.interceptors import audit
from mesh.statements import Statement, WriteBehind
from services.ledger.model.evaluation import Booked
from services.ledger.model.postings import HoldState, Kind
from services.ledger.model.proofs import Checkpoint, InclusionProof
from services.ledger.repository import bookings
from services.ledger.repository.batches import ensure_partition
from services.ledger.use_cases.announcing import Traced, booked_events, expired_events, transfers_event
from services.ledger.use_cases.decide_batch import Batch
from services.ledger.use_cases.settlement import Settled
from services.ledger.use_cases.work import BatchTools, Wording

_ENDS = {Kind.HOLD_POSTING: HoldState.POSTED, Kind.HOLD_VOID: HoldState.VOIDED, Kind.HOLD_EXPIRY: HoldState.EXPIRED}
# A batch of no more transactions is written by one round trip. Of a larger one so many go to the database at once,
# while the next are put into words.
PIECE = 256


class SumsChangedError(Exception):
    """The sums of an account are not what the batch was decided on."""


async def write_batch(
    connection: Connection, tools: BatchTools, batch: Batch, steps: Iterable[list[Statement]]
) -> None:
    """Writes everything that was decided.

    Args:
        steps: what writes it, made beforehand or on the way.

    Raises:
        SumsChangedError: nothing is written.
    """
    if batch.evaluation.booked:
        await _ensure_partition(connection, tools, batch.now)
        outbox.publish_soon()
    try:
        async with WriteBehind(connection) as writing:
            for step in steps:
                await writing.hand_over(step)
    except asyncpg.NotNullViolationError as error:
        if bookings.is_of_changed_sums(error):
            raise SumsChangedError from error
        raise


def steps_of(wording: Wording, batch: Batch, *, most: int = PIECE) -> Iterator[list[Statement]]:
    """What writes a batch, step by step, and makes its answers.

    Args:
        most: how many transactions a step writes.
    """
    settlement = batch.settlement
    refusals = [
        bookings.Refusal(one.posting.transaction_id, one.posting.request, one.problem.to_status().SerializeToString())
        for one in settlement.settled
        if one.problem is not None
    ]
    first = [
        *bookings.moved_accounts(batch.movements),
        *bookings.added_requests(batch.journal.tenant_id, settlement.request_hashes, batch.now),
        *bookings.added_refusals(batch.journal.tenant_id, refusals, batch.now),
        *audit.added(settlement.audit_rows),
    ]
    if batch.evaluation.booked:
        yield from _Books(wording, batch).steps(first, most)
    else:
        yield first


async def _ensure_partition(connection: Connection, tools: BatchTools, now: datetime) -> None:
    month = (now.year, now.month)
    if month not in tools.partitions:
        await ensure_partition(connection, now)
        # Not before: until then no other transaction can book into it.
        after_commit(lambda: tools.partitions.add(month))


class _Books:
    """What writes the transactions of a batch, and what goes with them."""

    def __init__(self, wording: Wording, batch: Batch) -> None:
        self._wording = wording
        self._batch = batch
        self._leaves = batch.leaves
        self._booked = batch.evaluation.booked
        # By transaction id. Nobody asked for a transaction that is not among them.
        self._asked = {one.posting.transaction_id: one for one in batch.settlement.settled if one.booked is not None}
        # Of every transaction that another of the batch may relate to.
        self._leaf_indexes = {id_: one.transaction.leaf_index for id_, one in batch.related.items()}
        self._leaf_indexes |= {one.transaction.transaction_id: one.transaction.leaf_index for one in self._booked}

    def steps(self, first: Sequence[Statement], most: int) -> Iterator[list[Statement]]:
        """What writes all of it.

        Args:
            first: what goes along with the first transactions.
        """
        for start in range(0, len(self._booked), most):
            end = start + most
            statements = bookings.added_bookings(
                self._batch.journal,
                self._batch.now,
                [
                    self._booking(booked, leaf_hash)
                    for booked, leaf_hash in zip(self._booked[start:end], self._leaves.hashes[start:end], strict=True)
                ],
                book_keys=self._batch.book_keys,
                related_leaf_indexes=self._leaf_indexes,
            )
            # The head moves, and the batch is announced, once its last transaction is there.
            last = self._ending() if end >= len(self._booked) else []
            yield [*first, *statements, *last]
            first = []
        ends = {
            self._leaf_indexes[one.transaction.related_id]: (_ENDS[one.transaction.kind], one.transaction.leaf_index)
            for one in self._booked
            if one.transaction.kind in _ENDS
        }
        yield from bookings.moved_holds(self._batch.journal, self._booked, ends)

    def _booking(self, booked: Booked, hash_: bytes) -> bookings.Booking:
        settled = self._asked.get(booked.transaction.transaction_id)
        if settled is None:
            return bookings.Booking(booked, hash_, None, None)
        settled.answer = self._answer(settled, booked).SerializeToString(deterministic=True)
        return bookings.Booking(booked, hash_, settled.posting.request, settled.answer)

    def _answer(self, settled: Settled, booked: Booked) -> Message:
        if settled.work.together:
            return self._wording.transfer(booked)
        proof = self._proof(booked.transaction.leaf_index) if settled.posting.include_proof else None
        return self._wording.booked(booked, proof)

    def _proof(self, leaf_index: int) -> InclusionProof:
        growth = self._leaves.growth
        checkpoint = Checkpoint(growth.size, growth.root, self._leaves.note, self._batch.now)
        record = self._leaves.records[leaf_index - self._batch.journal.tree_size]
        return InclusionProof(leaf_index, record, growth.inclusion_path(leaf_index), checkpoint)

    def _ending(self) -> list[Statement]:
        journal, growth = self._batch.journal, self._leaves.growth
        announced, event_ids = outbox.added(list(self._events()))
        head = bookings.Head(
            last_sequence=self._batch.evaluation.next_sequence - 1,
            tree_size=growth.size,
            frontier=growth.frontier,
            root_hash=growth.root,
            note=self._leaves.note,
            create_time=self._batch.now,
            nodes=growth.nodes,
            event_ids=event_ids,
        )
        reversed_entries = bookings.added_reversed(journal, list(self._reversed()))
        return [*bookings.moved_head(journal, head), *reversed_entries, *announced]

    def _events(self) -> Iterator[outbox.Event]:
        """What announces the transactions of the batch, in their order."""
        tenant_id, describe = self._batch.journal.tenant_id, self._wording.event
        expiries = [one.transaction for one in self._batch.expired]
        yield from expired_events(tenant_id, expiries, describe)
        gathered: list[Traced] = [(expiry, {}) for expiry in expiries]
        for _, of_one_call in groupby(self._batch.settlement.settled, key=lambda one: id(one.work)):
            settled = list(of_one_call)
            work = settled[0].work
            transactions = [one.booked.transaction for one in settled if one.booked is not None]
            if not work.together:
                gathered += [(transaction, work.trace_context) for transaction in transactions]
            elif transactions:
                yield from booked_events(tenant_id, gathered, describe)
                gathered = []
                yield transfers_event(tenant_id, work.request.request_id, transactions, work.trace_context)
        yield from booked_events(tenant_id, gathered, describe)

    def _reversed(self) -> Iterator[tuple[int, int, int]]:
        for settled in self._batch.settlement.settled:
            if settled.posting.kind is Kind.REVERSAL and settled.booked is not None:
                reversal = settled.booked.transaction
                for sequence in self._batch.evaluation.reversed_sequences(reversal):
                    yield sequence, self._leaf_indexes[reversal.related_id], reversal.leaf_index
