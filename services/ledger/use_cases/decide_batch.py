"""What becomes of a batch of postings: all of it in memory, on the books as they are remembered. No I/O."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from mesh.errors import Problem
from services.ledger.model.evaluation import Booked, Evaluation
from services.ledger.model.merkle import Growth, Tree, leaf_hash
from services.ledger.model.postings import Posting
from services.ledger.model.records import encode_record
from services.ledger.model.related import Related
from services.ledger.model.running import Movement
from services.ledger.repository.batches import Outcome
from services.ledger.repository.journals import Journal
from services.ledger.use_cases.memory import RememberedBooks
from services.ledger.use_cases.settlement import Settled, Settlement
from services.ledger.use_cases.work import BatchTools, Result, Work

log = structlog.get_logger()

# Others on the event loop get a turn after so many transactions.
_TURN = 256


@dataclass(frozen=True, slots=True)
class Leaves:
    """The transactions of a batch as leaves of the tenant's tree.

    Attributes:
        note: the checkpoint after them, signed.
    """

    records: Sequence[bytes]
    hashes: Sequence[bytes]
    growth: Growth
    note: str


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch, decided.

    Attributes:
        journal: what the batch comes after.
        book_keys: by book name.
        related: what its postings relate to, by transaction id.
        movements: what becomes of each account. It was taken then: the next batch goes on with the same accounts.
        expired: holds that ended first.
        decisions: about each call, in their order: about each of its postings, or the problem with it as a whole.
    """

    journal: Journal
    now: datetime
    book_keys: Mapping[str, int]
    related: Mapping[str, Related]
    evaluation: Evaluation
    movements: Sequence[Movement]
    expired: Sequence[Booked]
    settlement: Settlement
    decisions: Sequence[list[Settled | Result] | Problem]
    leaves: Leaves

    @property
    def results(self) -> list[list[Result] | Problem]:
        """How each call ended, once the batch is written."""
        return [
            [item.result if isinstance(item, Settled) else item for item in decision]
            if isinstance(decision, list)
            else decision
            for decision in self.decisions
        ]


@dataclass(frozen=True, slots=True)
class Before:
    """What happened before a batch that concerns it, beside what the accounts are.

    Attributes:
        outcomes: how its postings ended when they were asked for before, by transaction id.
        request_hashes: what its request ids were used for before.
        related: what its postings relate to, by transaction id.
        due_holds: ids of the holds whose time is over, in the order in which they end.
    """

    outcomes: Mapping[str, Outcome]
    request_hashes: Mapping[str, bytes]
    related: Mapping[str, Related]
    due_holds: Sequence[str]


NOTHING_BEFORE = Before({}, {}, {}, ())


async def decide_batch(
    tools: BatchTools, books: RememberedBooks, works: Sequence[Work], before: Before, now: datetime
) -> Batch:
    """Decides about all postings of some calls.

    Args:
        books: they know every book and account that exists of those concerned, and become what the batch leaves.
    """
    journal = books.journal
    evaluation = Evaluation(
        accounts=books.accounts,
        closed_times={name: closed_time for name, (_, closed_time) in books.books.items()},
        related=before.related,
        leaf_index=journal.tree_size,
        sequence=journal.last_sequence + 1,
        now=now,
        latest_time=now + tools.effective_skew,
    )
    expired = [evaluation.expire(hold_id) for hold_id in _known_holds(before)]
    settlement = Settlement(evaluation, tools.wording, outcomes=before.outcomes, request_hashes=before.request_hashes)
    decisions = [await settlement.settle(work) for work in works]
    leaves = await _grown(tools, journal, evaluation.booked)
    if evaluation.booked:
        books.journal = replace(
            journal,
            last_sequence=evaluation.next_sequence - 1,
            tree_size=leaves.growth.size,
            frontier=leaves.growth.frontier,
            last_create_time=now,
        )
    return Batch(
        journal=journal,
        now=now,
        book_keys=books.book_keys,
        related=before.related,
        evaluation=evaluation,
        movements=evaluation.movements(),
        expired=expired,
        settlement=settlement,
        decisions=decisions,
        leaves=leaves,
    )


def account_names(postings: Sequence[Posting], related: Mapping[str, Related]) -> Mapping[str, set[str]]:
    """The accounts that postings touch, by book."""
    names: defaultdict[str, set[str]] = defaultdict(set)
    for posting in postings:
        of_book = names[posting.book_name]
        of_book.update(leg.account_name for leg in posting.legs)
        of_book.update(assertion.account_name for assertion in posting.assertions)
    for one in related.values():
        names[one.transaction.book_name].update(entry.account_name for entry in one.transaction.entries)
    return {book_name: of_book for book_name, of_book in names.items() if of_book}


def _known_holds(before: Before) -> list[str]:
    """The holds that are due and can be released."""
    known = []
    for hold_id in before.due_holds:
        if before.related[hold_id].is_archived:
            # What it holds is not known here.
            log.error("hold_is_archived", transaction_id=hold_id)
        else:
            known.append(hold_id)
    return known


async def _grown(tools: BatchTools, journal: Journal, booked: Sequence[Booked]) -> Leaves:
    """The leaves of a batch, and the tree with them."""
    records = []
    for number, one in enumerate(booked):
        records.append(encode_record(journal.tenant_id, one.transaction))
        if number % _TURN == _TURN - 1:
            await asyncio.sleep(0)
    hashes = [leaf_hash(record) for record in records]
    growth = Tree(journal.tree_size, journal.frontier).grow(hashes)
    note = tools.signer.sign(tools.signer.origin_of(journal.tenant_id), growth.size, growth.root) if booked else ""
    return Leaves(records, hashes, growth, note)
