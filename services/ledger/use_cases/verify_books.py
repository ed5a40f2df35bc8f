"""Checks a tenant's books from the ground up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace

import structlog

from mesh.database import Connection, Database
from mesh.errors import Problem, Reason, Violation
from services.ledger.model.books_check import BooksCheck, JournalHead, exceeded_side, wrong_nodes
from services.ledger.model.checkpoints import Head, NoteError, verify_note
from services.ledger.model.merkle import STORED_LEVELS
from services.ledger.model.tree_check import BLOCK_LEAVES
from services.ledger.model.verification import Fault, Part, PartReport, Progress, Span
from services.ledger.repository import verification as repository
from services.ledger.repository.copies import copy_entries, copy_quick, copy_transactions, find_first_sequence
from services.ledger.repository.journals import Journal, find_journal
from services.ledger.repository.proofs import find_checkpoint, list_checkpoint_keys
from services.ledger.use_cases.verify_processes import VerifyProcesses

log = structlog.get_logger()

# Transactions of a part whose faults are found out: few, since of each part only some are told.
_PART_LEAVES = 8 * BLOCK_LEAVES
# And of one that is most likely without: what is done once for each account of a part is done less often, and yet there
# are parts for all processes.
_QUICK_PART_LEAVES = 8 * _PART_LEAVES
# Entries of either: some 20 MB for the quick check. There are more in a part only if a block alone has them.
_PART_ENTRIES = 200_000
# What else is wrong follows from these, or is not told.
_FAULTS_MAX = 1_000
# Each takes a connection and all processors that it is given.
_CHECKS_AT_ONCE = 1
_BUSY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Books:
    """What is to be checked, in one snapshot."""

    connection: Connection
    journal: Journal
    verifier_keys: list[str]
    part_entries: int


class BookVerifier:
    """Checks books in processes of their own, so that bookings go on meanwhile.

    Args:
        processes: how many, while a check runs.
        part_entries: about so many are read at once for a process; never less than those of 256 transactions.
    """

    def __init__(self, database: Database, *, processes: int, part_entries: int = _PART_ENTRIES) -> None:
        self._database = database
        self._processes = processes
        self._part_entries = part_entries
        self._running = 0

    async def verify(self, tenant_id: str, note: str) -> AsyncGenerator[Progress, None]:
        """How far the check is, again and again, and what was found.

        Args:
            note: a checkpoint that the caller kept; "" is none.

        Raises:
            Problem: FIELD_INVALID, the note is not one of this tenant's; SERVICE_OVERLOADED, another check runs.
        """
        if self._running >= _CHECKS_AT_ONCE:
            raise Problem(
                Reason.SERVICE_OVERLOADED, "books are being checked already", retry_after_seconds=_BUSY_SECONDS
            )
        self._running += 1
        try:
            async with (
                repository.snapshot(self._database, tenant_id) as connection,
                aclosing(self._verify(connection, tenant_id, note)) as steps,
            ):
                async for progress in steps:
                    yield progress
        finally:
            self._running -= 1

    async def _verify(self, connection: Connection, tenant_id: str, note: str) -> AsyncGenerator[Progress, None]:
        verifier_keys = [key.verifier_key for key in await list_checkpoint_keys(connection)]
        kept = _read_note(note, tenant_id, verifier_keys) if note else None
        journal = await find_journal(connection, tenant_id)
        if journal is None:
            faults = (
                [Fault("kept_note", "nothing is left of what the kept note is of")] if kept and kept.tree_size else []
            )
            yield Progress(0, 0, 0, faults, done=True)
            return
        books = _Books(connection, journal, verifier_keys, self._part_entries)
        last_time = repository.microseconds(journal.last_create_time) if journal.tree_size else 0
        check = BooksCheck(JournalHead(journal.last_sequence, journal.tree_size, journal.frontier, last_time), kept)
        checkpoint = await find_checkpoint(connection, journal, 0)
        told = 0
        async with aclosing(self._found(books, check)) as found:
            async for faults in found:
                shown = faults[: _FAULTS_MAX - told]
                told += len(shown)
                yield Progress(check.entry_count, journal.last_sequence, check.transaction_count, shown)
        yield Progress(
            check.entry_count, journal.last_sequence, check.transaction_count, done=True, checkpoint=checkpoint
        )

    async def _found(self, books: _Books, check: BooksCheck) -> AsyncGenerator[list[Fault], None]:
        """What is wrong, part by part, and then in the whole."""
        async with aclosing(self._reports(books, check)) as reports:
            async for report, part in reports:
                stored = await repository.find_stored_nodes(
                    books.connection,
                    books.journal.journal_key,
                    level=STORED_LEVELS,
                    start_index=part.span.start_leaf // BLOCK_LEAVES,
                    end_index=-(-part.span.end_leaf // BLOCK_LEAVES),
                )
                yield check.add(report, part.checkpoints, stored)
        hold_rows = await repository.count_holds(books.connection, books.journal.journal_key)
        yield [*check.finish(hold_rows), *await _check_rest(books, check)]
        held = await repository.find_held_sums(books.connection, books.journal.journal_key)
        async for accounts in repository.list_all_accounts(books.connection, books.journal.journal_key):
            faults: list[Fault] = []
            for account in accounts:
                faults += check.check_account(account, held.pop(account.account_key, None))
                side = exceeded_side(account)
                if side is not None and await repository.was_moved_since(books.connection, account, side):
                    faults.append(Fault("limit", "is out of its limits", account_name=account.account_name))
            yield faults
        yield list(check.check_strangers())

    async def _reports(self, books: _Books, check: BooksCheck) -> AsyncGenerator[tuple[PartReport, Part], None]:
        """The reports of all parts in order. A part that may have a fault is taken apart to find out which.

        When none is found, one of the two checks has an error, or each check of these books takes longer than it must.
        """
        whole = Span(0, books.journal.tree_size, 1, books.journal.last_sequence + 1)
        is_told = False
        async with (
            VerifyProcesses.running(self._processes) as processes,
            aclosing(self._checked(processes, _parts(books, check, whole, is_quick=True))) as quick,
        ):
            async for quick_report, quick_part in quick:
                if not quick_report.is_doubtful:
                    yield quick_report, quick_part
                    continue
                earlier_faults = check.fault_count
                thorough = self._checked(processes, _parts(books, check, quick_part.span, is_quick=False))
                async with aclosing(thorough) as found:
                    async for report, part in found:
                        yield report, part
                # Whoever took the reports added them to the check.
                if check.fault_count == earlier_faults and not is_told:
                    is_told = True
                    log.warning("books_doubted_without_fault", doubt=quick_report.doubt, **quick_part.span._asdict())

    async def _checked(
        self, processes: VerifyProcesses, parts: AsyncIterator[Part]
    ) -> AsyncGenerator[tuple[PartReport, Part], None]:
        """Parts with their reports, in order; some are read and checked while earlier ones are waited for."""
        under_way: deque[tuple[asyncio.Task[PartReport], Part]] = deque()
        try:
            async for part in parts:
                without_rows = replace(part, transactions=b"", entries=b"", accounts=None)
                under_way.append((asyncio.create_task(processes.check(part)), without_rows))
                # Nothing but the task has its rows now, until they are with a process.
                del part
                if len(under_way) > self._processes:
                    task, earlier = under_way.popleft()
                    yield await task, earlier
            while under_way:
                task, earlier = under_way.popleft()
                yield await task, earlier
        finally:
            for task, _ in under_way:
                task.cancel()


async def _parts(books: _Books, check: BooksCheck, whole: Span, *, is_quick: bool) -> AsyncIterator[Part]:
    """Part by part what a span has, for one of the two checks."""
    connection, journal_key = books.connection, books.journal.journal_key
    async for span in _spans(books, whole, _QUICK_PART_LEAVES if is_quick else _PART_LEAVES):
        start_leaf, end_leaf, start_sequence, end_sequence = span
        # Its rows are not kept here while the next ones are read.
        part = Part(
            tenant_id=books.journal.tenant_id,
            span=span,
            checkpoints=await repository.list_checkpoint_rows(connection, journal_key, start_leaf, end_leaf),
            asked_sizes=check.asked_sizes(start_leaf, end_leaf),
            verifier_keys=books.verifier_keys,
        )
        if is_quick:
            yield replace(part, **(await copy_quick(connection, journal_key, span))._asdict())
        else:
            yield replace(
                part,
                transactions=await copy_transactions(connection, journal_key, start_leaf, end_leaf),
                entries=await copy_entries(connection, journal_key, start_sequence, end_sequence),
            )


async def _spans(books: _Books, whole: Span, leaf_count: int) -> AsyncIterator[Span]:
    """A span, some leaves at a time: fewer where these have many entries."""
    start_leaf, start_sequence = whole.start_leaf, whole.start_sequence
    while start_leaf < whole.end_leaf:
        leaves = leaf_count
        end_leaf, end_sequence = await _find_end(books, whole, start_leaf + leaves)
        while end_sequence - start_sequence > books.part_entries and leaves > BLOCK_LEAVES:
            leaves //= 2
            end_leaf, end_sequence = await _find_end(books, whole, start_leaf + leaves)
        yield Span(start_leaf, end_leaf, start_sequence, end_sequence)
        start_leaf, start_sequence = end_leaf, end_sequence


async def _find_end(books: _Books, whole: Span, end_leaf: int) -> tuple[int, int]:
    """Where the leaves before one end, and their entries; no later than the whole."""
    if end_leaf >= whole.end_leaf:
        return whole.end_leaf, whole.end_sequence
    sequence = await find_first_sequence(books.connection, books.journal.journal_key, end_leaf)
    return end_leaf, books.journal.last_sequence + 1 if sequence is None else sequence


async def _check_rest(books: _Books, check: BooksCheck) -> list[Fault]:
    """What hangs on transactions, and what is beyond the head."""
    connection, journal = books.connection, books.journal
    faults = await repository.find_wrong_links(connection, journal.journal_key)
    beyond = await repository.count_beyond(connection, journal)
    for what, count in zip(("transactions", "entries", "checkpoints"), beyond, strict=True):
        if count:
            faults.append(Fault("sequence", f"{count} {what} lie beyond the head of the journal"))
    higher = await repository.find_higher_nodes(connection, journal.journal_key, STORED_LEVELS)
    faults += wrong_nodes(check.higher_nodes, higher)
    surplus = await repository.count_nodes(connection, journal.journal_key) - check.node_count
    if surplus > 0:
        faults.append(Fault("tree", f"{surplus} nodes are stored that the tree does not have"))
    return faults


def _read_note(note: str, tenant_id: str, verifier_keys: list[str]) -> Head:
    try:
        head = verify_note(note, verifier_keys)
    except NoteError as error:
        description = f"is not a checkpoint of this ledger: {error}"
        raise Problem(Reason.FIELD_INVALID, violations=[Violation("note", description)]) from None
    if not head.origin.endswith(f"/{tenant_id}"):
        raise Problem(Reason.FIELD_INVALID, violations=[Violation("note", "is a checkpoint of another tenant")])
    return head
