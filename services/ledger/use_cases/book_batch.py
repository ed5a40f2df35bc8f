"""One batch of postings of one tenant, in one database transaction.

Lock the tenant's journal, see what happened before, decide about all postings in memory, and write the outcome of all:
balances once per account, transactions, entries, leaves and a signed checkpoint, answers, events and audit rows. Either
all of it is there after a crash or nothing is, and whoever asks again is told which by the id.

A batch can be decided ahead, while the one before is being written. The lock then only has to show that nothing
happened before but what it was decided on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from prometheus_client import Counter

from mesh.database import Connection, Database
from mesh.errors import Problem
from mesh.statements import Statement
from services.ledger.model.postings import Posting
from services.ledger.model.related import Related
from services.ledger.repository import batches
from services.ledger.repository.accounts import find_postable_accounts
from services.ledger.repository.journals import Journal, later
from services.ledger.repository.transactions import find_transactions
from services.ledger.use_cases.decide_batch import NOTHING_BEFORE, Batch, Before, account_names, decide_batch
from services.ledger.use_cases.memory import Memory, RememberedBooks
from services.ledger.use_cases.work import BatchTools, Result, Work
from services.ledger.use_cases.write_batch import steps_of, write_batch

AHEAD = Counter(
    "kente_ledger_batches_ahead_total", "Batches that were decided ahead, and what became of it.", ["outcome"]
)

# What was decided longer ago is decided again: its time of booking would be too far from that of its commit.
_LONGEST_AHEAD = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Decided:
    """A batch that is decided, and what writes it, step by step."""

    batch: Batch
    steps: Iterable[list[Statement]]


async def decide_ahead(
    database: Database, tools: BatchTools, memory: Memory, tenant_id: str, works: Sequence[Work]
) -> Decided | None:
    """Decides a batch on what is remembered, before the journal is locked.

    Returns:
        None: it needs more than is remembered, holds end first, or others book for the tenant too.
    """
    books = memory.take(tenant_id)
    if books is None:
        return None
    decided = None
    now = later(books.journal, tools.clock())
    is_likely = books.is_alone and not books.journal.is_any_due(now)
    if is_likely and await _is_known(database, books, _postings_of(works)):
        batch = await decide_batch(tools, books, works, NOTHING_BEFORE, now)
        # In one step, which needs nobody's attention while others are being decided.
        decided = Decided(batch, list(steps_of(tools.wording, batch, most=len(batch.evaluation.booked) or 1)))
    memory.give_back(tenant_id, books)
    return decided


async def _is_known(database: Database, books: RememberedBooks, postings: Sequence[Posting]) -> bool:
    """Whether all that postings touch is known, or can be read although the batch before is not written yet.

    That batch touches none of the accounts that are read here: it knew all of its own.
    """
    if any(posting.related_id or posting.book_name not in books.books for posting in postings):
        return False
    unknown = books.unknown(account_names(postings, {}))
    if unknown:
        async with database.transaction(books.journal.tenant_id, by_index=True) as connection:
            books.add(await find_postable_accounts(connection, books.book_keys, unknown))
    # One that is not there yet may be by the time of the lock.
    return not books.unknown(unknown)


async def book_batch(
    connection: Connection,
    tools: BatchTools,
    memory: Memory,
    tenant_id: str,
    works: Sequence[Work],
    *,
    ahead: Decided | None = None,
    when_decided: Callable[[], object] = lambda: None,
) -> list[list[Result] | Problem]:
    """Books what can be booked, in a transaction that began with LOCK_FIRST.

    Args:
        ahead: what was decided about the works before.
        when_decided: called when the next batch can be decided ahead.

    Returns:
        For each work, how each of its postings ended; or the problem with the work as a whole.
    """
    postings = _postings_of(works)
    state = await batches.find_state(
        connection,
        tenant_id,
        transaction_ids=[posting.transaction_id for posting in postings],
        request_ids=[work.request.key for work in works],
        book_names={posting.book_name for posting in postings},
    )
    decided = _accepted(ahead, state, tools.clock()) if ahead is not None else None
    if decided is None:
        books = _true_books(memory.take(tenant_id), state.journal)
        batch = await _decide_here(connection, tools, books, state, works)
        memory.give_back(tenant_id, books)
        decided = Decided(batch, steps_of(tools.wording, batch))
    when_decided()
    await write_batch(connection, tools, decided.batch, decided.steps)
    return decided.batch.results


def _accepted(ahead: Decided, state: batches.State, now: datetime) -> Decided | None:
    """What was decided ahead; None when anything happened but what it was decided on."""
    batch = ahead.batch
    is_true = (
        state.journal.has_same_books(batch.journal)
        and not state.journal.is_any_due(batch.now)
        and not state.outcomes
        and not state.request_hashes
        and now - batch.now <= _LONGEST_AHEAD
    )
    AHEAD.labels("written" if is_true else "decided_again").inc()
    return ahead if is_true else None


def _true_books(remembered: RememberedBooks | None, journal: Journal) -> RememberedBooks:
    """The books as the journal that is locked leaves them, as far as they are known."""
    if remembered is None or not journal.has_same_books(remembered.journal):
        return RememberedBooks(journal)
    # When holds expire may have changed.
    remembered.journal = journal
    remembered.is_alone = True
    return remembered


async def _decide_here(
    connection: Connection, tools: BatchTools, books: RememberedBooks, state: batches.State, works: Sequence[Work]
) -> Batch:
    """Reads what the postings touch and is not known, and decides about them."""
    journal, now = state.journal, later(state.journal, tools.clock())
    postings = _postings_of(works)
    due_holds = await batches.find_due_holds(connection, journal, now) if journal.is_any_due(now) else []
    related_ids = {posting.related_id for posting in postings if posting.related_id} | set(due_holds)
    related = await _read_related(connection, journal, related_ids) if related_ids else {}
    books.books |= state.books
    if others := {one.transaction.book_name for one in related.values()} - books.books.keys():
        books.books |= await batches.find_books(connection, journal.tenant_id, others)
    if unknown := books.unknown(account_names(postings, related)):
        books.add(await find_postable_accounts(connection, books.book_keys, unknown))
    before = Before(state.outcomes, state.request_hashes, related, due_holds)
    return await decide_batch(tools, books, works, before, now)


def _postings_of(works: Sequence[Work]) -> list[Posting]:
    return [posting for work in works for posting in work.postings]


async def _read_related(connection: Connection, journal: Journal, ids: set[str]) -> dict[str, Related]:
    found = await find_transactions(connection, journal.tenant_id, list(ids))
    reversed_by = await batches.find_reversed(
        connection, journal, [transaction.leaf_index for transaction in found.values()]
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
