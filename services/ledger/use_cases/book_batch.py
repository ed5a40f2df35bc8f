"""One batch of postings of one tenant, in one database transaction.

Lock the tenant's journal, read what the postings touch, evaluate all of them in memory, and write the outcome of all:
balances once per account, transactions, entries, leaves and a signed checkpoint, answers, events and audit rows. Either
all of it is there after a crash or nothing is, and whoever asks again is told which by the id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import structlog
from google.rpc import status_pb2

from mesh import outbox
from mesh.database import Connection, after_commit
from mesh.errors import Problem, Reason
from mesh.interceptors.audit import AuditRow, write_rows
from services.ledger.model.evaluation import Booked, Evaluation
from services.ledger.model.merkle import Growth, Tree, leaf_hash
from services.ledger.model.postings import HoldState, Kind, Posting
from services.ledger.model.proofs import Checkpoint, InclusionProof
from services.ledger.model.records import encode_record
from services.ledger.model.related import Related
from services.ledger.repository import batches
from services.ledger.repository.accounts import find_accounts
from services.ledger.repository.journals import Journal, later, lock_journal
from services.ledger.repository.transactions import find_transactions
from services.ledger.use_cases.announcing import Traced, booked_events, expired_events, transfers_event
from services.ledger.use_cases.work import BatchTools, Result, Work

log = structlog.get_logger()

_ENDS = {Kind.HOLD_POSTING: HoldState.POSTED, Kind.HOLD_VOID: HoldState.VOIDED, Kind.HOLD_EXPIRY: HoldState.EXPIRED}
# Others on the event loop get a turn after so many postings.
_TURN = 256


@dataclass(slots=True)
class _Settled:
    """What this batch decides about one posting."""

    posting: Posting
    booked: Booked | None = None
    problem: Problem | None = None
    answer: bytes = b""

    @property
    def result(self) -> Result:
        return self.problem or self.answer


@dataclass(frozen=True, slots=True)
class _Known:
    """What a batch reads under the lock."""

    outcomes: Mapping[str, batches.Outcome]
    request_hashes: Mapping[str, bytes]
    due_holds: Sequence[str]
    related: Mapping[str, Related]
    books: Mapping[str, tuple[int, datetime | None]]


async def book_batch(
    connection: Connection, tools: BatchTools, tenant_id: str, works: Sequence[Work]
) -> list[list[Result] | Problem]:
    """Books what can be booked.

    Returns:
        For each work, how each of its postings ended; or the problem with the work as a whole.
    """
    journal = await lock_journal(connection, tenant_id)
    batch = _Batch(tools, journal, later(journal, tools.clock()))
    await batch.read(connection, works)
    results = [await batch.settle(work) for work in works]
    await batch.write(connection)
    return [
        [item.result if isinstance(item, _Settled) else item for item in result] if isinstance(result, list) else result
        for result in results
    ]


class _Batch:
    def __init__(self, tools: BatchTools, journal: Journal, now: datetime) -> None:
        self._tools = tools
        self._journal = journal
        self._now = now
        self._settled: dict[str, _Settled] = {}
        self._works: list[tuple[Work, list[_Settled]]] = []
        self._expired: list[Booked] = []
        self._hashes: dict[str, bytes] = {}
        self._audit_rows: list[AuditRow] = []

    async def read(self, connection: Connection, works: Sequence[Work]) -> None:
        """Reads what the postings touch, and lets holds expire whose time is over."""
        tenant_id = self._journal.tenant_id
        postings = [posting for work in works for posting in work.postings]
        outcomes = await batches.find_known(connection, tenant_id, [posting.transaction_id for posting in postings])
        hashes = await batches.find_request_hashes(connection, tenant_id, [work.request.key for work in works])
        expire_time = self._journal.next_expire_time
        due = expire_time is not None and expire_time <= self._now
        due_holds = await batches.find_due_holds(connection, self._journal, self._now) if due else []
        related_ids = {posting.related_id for posting in postings if posting.related_id} | set(due_holds)
        related = await self._read_related(connection, related_ids) if related_ids else {}
        keys = {(posting.book_name, leg.account_name) for posting in postings for leg in posting.legs}
        keys |= {(posting.book_name, one.account_name) for posting in postings for one in posting.assertions}
        for one in related.values():
            keys |= {(one.transaction.book_name, entry.account_name) for entry in one.transaction.entries}
        accounts = await find_accounts(connection, tenant_id, keys) if keys else []
        book_names = {book_name for book_name, _ in keys} | {one.transaction.book_name for one in related.values()}
        books = await batches.find_books(connection, tenant_id, book_names)
        self._known = _Known(outcomes, hashes, due_holds, related, books)
        self._evaluation = Evaluation(
            accounts=accounts,
            closed_times={name: closed_time for name, (_, closed_time) in books.items()},
            related=related,
            leaf_index=self._journal.tree_size,
            sequence=self._journal.last_sequence + 1,
            now=self._now,
            latest_time=self._now + self._tools.effective_skew,
        )
        for hold_id in due_holds:
            if related[hold_id].is_archived:
                # What it holds is not known here, so it can't be released.
                log.error("hold_is_archived", transaction_id=hold_id)
            else:
                self._expired.append(self._evaluation.expire(hold_id))

    async def _read_related(self, connection: Connection, ids: set[str]) -> dict[str, Related]:
        found = await find_transactions(connection, self._journal.tenant_id, list(ids))
        reversed_by = await batches.find_reversed(
            connection, self._journal, [transaction.leaf_index for transaction in found.values()]
        )
        return {
            transaction_id: Related(
                transaction,
                transaction.hold_state,
                transaction.later_ids[-1] if transaction.later_ids else "",
                {
                    entry.sequence: reversed_by[entry.sequence]
                    for entry in transaction.entries
                    if entry.sequence in reversed_by
                },
            )
            for transaction_id, transaction in found.items()
        }

    async def settle(self, work: Work) -> list[_Settled | Result] | Problem:
        """Decides about each posting of one call."""
        request = work.request
        before = self._known.request_hashes.get(request.key) or self._hashes.get(request.key)
        if before is not None and before != request.request_hash:
            problem = request.reused()
            self._audit_rows.append(_audit_row(work, problem))
            return problem
        if before is None:
            self._hashes[request.key] = request.request_hash
        new: list[_Settled] = []
        self._works.append((work, new))
        results: list[_Settled | Result] = []
        for number, group in enumerate(_groups(work.postings)):
            results += self._settle_group(group, new) if len(group) > 1 else [self._settle_one(group[0], new)]
            if number % _TURN == _TURN - 1:
                await asyncio.sleep(0)
        # A call for many transfers ends well, however each of them does.
        self._audit_rows.append(_audit_row(work, None if work.together else results[0]))
        return results

    def _settle_one(self, posting: Posting, new: list[_Settled]) -> _Settled | Result:
        earlier = self._earlier(posting)
        if earlier is not None:
            return earlier
        settled = _Settled(posting)
        try:
            settled.booked = self._evaluation.post(posting)
        except Problem as problem:
            settled.problem = problem
        self._settled[posting.transaction_id] = settled
        new.append(settled)
        return settled

    def _settle_group(self, group: Sequence[Posting], new: list[_Settled]) -> list[_Settled | Result]:
        """Postings that are booked together or not at all."""
        earlier = [self._earlier(posting) for posting in group]
        if None not in earlier:
            return [one for one in earlier if one is not None]
        mark, count = self._evaluation.mark(), len(new)
        results: list[_Settled | Result] = []
        culprit: Posting | None = next((posting for posting, one in zip(group, earlier, strict=True) if one), None)
        for posting, one in zip(group, earlier, strict=True):
            result = one or self._settle_one(posting, new)
            results.append(result)
            problem = result.problem if isinstance(result, _Settled) else result
            if isinstance(problem, Problem) and culprit is None:
                culprit = posting
        if culprit is None:
            return results
        self._evaluation.undo(mark)
        for settled in new[count:]:
            if settled.posting is not culprit or settled.problem is None:
                settled.booked = None
                settled.problem = _failed_with(culprit)
        return results

    def _earlier(self, posting: Posting) -> _Settled | Result | None:
        """How a posting with this id ended before: in this batch, or in an earlier one."""
        settled = self._settled.get(posting.transaction_id)
        if settled is not None:
            return settled if settled.posting.request == posting.request else self._id_taken(settled.posting, posting)
        outcome = self._known.outcomes.get(posting.transaction_id)
        if outcome is None:
            return None
        if outcome.request != posting.request:
            return self._id_taken(outcome, posting)
        if outcome.status is not None:
            return Problem.from_status(status_pb2.Status.FromString(outcome.status))
        return outcome.answer or b""

    def _id_taken(self, before: Posting | batches.Outcome, posting: Posting) -> Problem:
        names = self._tools.wording.differing_fields(before.request, posting.request) if before.request else ["rpc"]
        return Problem(
            Reason.RESOURCE_ALREADY_EXISTS,
            f"transaction_id {posting.transaction_id} was used for something else",
            transaction_id=posting.transaction_id,
            differing_fields=",".join(names),
        )

    async def write(self, connection: Connection) -> None:
        """Writes everything that was decided."""
        tenant_id = self._journal.tenant_id
        await batches.write_requests(connection, tenant_id, self._hashes, self._now)
        settled = [one for _, new in self._works for one in new]
        refusals = [
            batches.Refusal(
                one.posting.transaction_id, one.posting.request, one.problem.to_status().SerializeToString()
            )
            for one in settled
            if one.problem is not None
        ]
        await batches.write_refusals(connection, tenant_id, refusals, self._now)
        if self._evaluation.booked:
            await self._write_booked(connection)
        if self._audit_rows:
            await write_rows(connection, self._audit_rows)

    async def _write_booked(self, connection: Connection) -> None:
        journal, booked = self._journal, self._evaluation.booked
        records = []
        for number, one in enumerate(booked):
            records.append(encode_record(journal.tenant_id, one.transaction))
            if number % _TURN == _TURN - 1:
                await asyncio.sleep(0)
        hashes = [leaf_hash(record) for record in records]
        growth = Tree(journal.tree_size, journal.frontier).grow(hashes)
        note = self._tools.signer.sign(self._tools.signer.origin_of(journal.tenant_id), growth.size, growth.root)
        requests = self._put_into_words(growth, note, records)
        event_ids = await outbox.add_all(connection, list(self._events()))
        head = batches.Head(
            last_sequence=self._evaluation.next_sequence - 1,
            tree_size=growth.size,
            frontier=growth.frontier,
            root_hash=growth.root,
            note=note,
            create_time=self._now,
            nodes=growth.nodes,
            event_ids=event_ids,
        )
        bookings = [
            batches.Booking(one, hash_, *requests.get(one.transaction.transaction_id, (None, None)))
            for one, hash_ in zip(booked, hashes, strict=True)
        ]
        leaf_indexes = self._leaf_indexes()
        await self._ensure_partition(connection)
        await batches.write_movements(connection, self._evaluation.movements())
        book_keys = {name: key for name, (key, _) in self._known.books.items()}
        await batches.write_bookings(
            connection, journal, head, bookings, book_keys=book_keys, related_leaf_indexes=leaf_indexes
        )
        ends = {
            leaf_indexes[one.transaction.related_id]: (_ENDS[one.transaction.kind], one.transaction.leaf_index)
            for one in booked
            if one.transaction.kind in _ENDS
        }
        await batches.write_holds(connection, journal, bookings, ends)
        await batches.write_reversed(connection, journal, list(self._reversed(leaf_indexes)))

    async def _ensure_partition(self, connection: Connection) -> None:
        month = (self._now.year, self._now.month)
        if month not in self._tools.partitions:
            await batches.ensure_partition(connection, self._now)
            # Not before: until then no other transaction can book into it.
            after_commit(lambda: self._tools.partitions.add(month))

    def _put_into_words(
        self, growth: Growth, note: str, records: Sequence[bytes]
    ) -> dict[str, tuple[bytes | None, bytes | None]]:
        """Makes the answers. Gives request and answer by transaction id."""
        wording, first_leaf_index = self._tools.wording, self._journal.tree_size
        checkpoint = Checkpoint(growth.size, growth.root, note, self._now)
        kept: dict[str, tuple[bytes | None, bytes | None]] = {}
        for work, new in self._works:
            for settled in new:
                if settled.booked is None:
                    continue
                if work.together:
                    answer = wording.transfer(settled.booked)
                else:
                    proof = None
                    if settled.posting.include_proof:
                        leaf_index = settled.booked.transaction.leaf_index
                        record, path = records[leaf_index - first_leaf_index], growth.inclusion_path(leaf_index)
                        proof = InclusionProof(leaf_index, record, path, checkpoint)
                    answer = wording.booked(settled.booked, proof)
                settled.answer = answer.SerializeToString(deterministic=True)
                kept[settled.posting.transaction_id] = (settled.posting.request, settled.answer)
        return kept

    def _events(self) -> Iterator[outbox.Event]:
        """What announces the transactions of the batch, in their order."""
        tenant_id, describe = self._journal.tenant_id, self._tools.wording.event
        expiries = [one.transaction for one in self._expired]
        yield from expired_events(tenant_id, expiries, describe)
        gathered: list[Traced] = [(expiry, {}) for expiry in expiries]
        for work, new in self._works:
            transactions = [one.booked.transaction for one in new if one.booked is not None]
            if not work.together:
                gathered += [(transaction, work.trace_context) for transaction in transactions]
            elif transactions:
                yield from booked_events(tenant_id, gathered, describe)
                gathered = []
                yield transfers_event(tenant_id, work.request.request_id, transactions, work.trace_context)
        yield from booked_events(tenant_id, gathered, describe)

    def _leaf_indexes(self) -> dict[str, int]:
        """Leaf index by id of every transaction that another of the batch may relate to."""
        found = {id_: one.transaction.leaf_index for id_, one in self._known.related.items()}
        return found | {one.transaction.transaction_id: one.transaction.leaf_index for one in self._evaluation.booked}

    def _reversed(self, leaf_indexes: Mapping[str, int]) -> Iterator[tuple[int, int, int]]:
        for _, new in self._works:
            for settled in new:
                if settled.posting.kind is Kind.REVERSAL and settled.booked is not None:
                    reversal = settled.booked.transaction
                    for sequence in self._evaluation.reversed_sequences(reversal):
                        yield sequence, leaf_indexes[reversal.related_id], reversal.leaf_index


def _groups(postings: Sequence[Posting]) -> Iterator[list[Posting]]:
    group: list[Posting] = []
    for posting in postings:
        group.append(posting)
        if not posting.linked:
            yield group
            group = []


def _failed_with(culprit: Posting) -> Problem:
    return Problem(
        Reason.LINKED_TRANSFER_FAILED,
        f"transfer {culprit.transaction_id} of the same group could not be booked",
        transaction_id=culprit.transaction_id,
    )


def _audit_row(work: Work, result: _Settled | Result | None) -> AuditRow:
    """The row of one call, with what its caller is told."""
    problem = result.problem if isinstance(result, _Settled) else result
    return replace(work.audit_row, outcome=problem.reason_name) if isinstance(problem, Problem) else work.audit_row
