"""One batch of postings of one tenant, in one database transaction.

Lock the tenant's journal, read what the postings touch, evaluate all of them in memory, and write the outcome of all:
balances once per account, transactions, entries, leaves and a signed checkpoint, answers, events and audit rows. Either
all of it is there after a crash or nothing is, and whoever asks again is told which by the id.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import structlog

from mesh.database import Connection
from mesh.errors import Problem
from services.ledger.model.evaluation import Evaluation
from services.ledger.model.postings import Posting
from services.ledger.model.related import Related
from services.ledger.repository import batches
from services.ledger.repository.accounts import find_postable_accounts
from services.ledger.repository.journals import Journal, later
from services.ledger.repository.transactions import find_transactions
from services.ledger.use_cases.settlement import Settled, Settlement
from services.ledger.use_cases.work import BatchTools, Result, Work
from services.ledger.use_cases.write_batch import Batch, write_batch

log = structlog.get_logger()


async def book_batch(
    connection: Connection, tools: BatchTools, tenant_id: str, works: Sequence[Work]
) -> list[list[Result] | Problem]:
    """Books what can be booked, in a transaction that began with LOCK_FIRST.

    Returns:
        For each work, how each of its postings ended; or the problem with the work as a whole.
    """
    postings = [posting for work in works for posting in work.postings]
    state = await batches.find_state(
        connection,
        tenant_id,
        transaction_ids=[posting.transaction_id for posting in postings],
        request_ids=[work.request.key for work in works],
        book_names={posting.book_name for posting in postings},
    )
    batch = await _read(connection, tools, state, postings)
    results = [await batch.settlement.settle(work) for work in works]
    await write_batch(connection, tools, batch)
    return [
        [item.result if isinstance(item, Settled) else item for item in result] if isinstance(result, list) else result
        for result in results
    ]


async def _read(connection: Connection, tools: BatchTools, state: batches.State, postings: Sequence[Posting]) -> Batch:
    """Reads what the postings touch, and lets holds expire whose time is over."""
    journal, now = state.journal, later(state.journal, tools.clock())
    due = journal.next_expire_time is not None and journal.next_expire_time <= now
    due_holds = await batches.find_due_holds(connection, journal, now) if due else []
    related_ids = {posting.related_id for posting in postings if posting.related_id} | set(due_holds)
    related = await _read_related(connection, journal, related_ids) if related_ids else {}
    books = dict(state.books)
    if others := {one.transaction.book_name for one in related.values()} - books.keys():
        books |= await batches.find_books(connection, journal.tenant_id, others)
    book_keys = {name: key for name, (key, _) in books.items()}
    evaluation = Evaluation(
        accounts=await find_postable_accounts(connection, book_keys, _account_names(postings, related)),
        closed_times={name: closed_time for name, (_, closed_time) in books.items()},
        related=related,
        leaf_index=journal.tree_size,
        sequence=journal.last_sequence + 1,
        now=now,
        latest_time=now + tools.effective_skew,
    )
    expired = []
    for hold_id in due_holds:
        if related[hold_id].is_archived:
            # What it holds is not known here, so it can't be released.
            log.error("hold_is_archived", transaction_id=hold_id)
        else:
            expired.append(evaluation.expire(hold_id))
    return Batch(
        journal=journal,
        now=now,
        book_keys=book_keys,
        related=related,
        evaluation=evaluation,
        expired=expired,
        settlement=Settlement(evaluation, tools.wording, outcomes=state.outcomes, request_hashes=state.request_hashes),
    )


def _account_names(postings: Sequence[Posting], related: Mapping[str, Related]) -> Mapping[str, set[str]]:
    """The accounts that postings touch, by book."""
    names: defaultdict[str, set[str]] = defaultdict(set)
    for posting in postings:
        of_book = names[posting.book_name]
        of_book.update(leg.account_name for leg in posting.legs)
        of_book.update(assertion.account_name for assertion in posting.assertions)
    for one in related.values():
        names[one.transaction.book_name].update(entry.account_name for entry in one.transaction.entries)
    return {book_name: of_book for book_name, of_book in names.items() if of_book}


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
