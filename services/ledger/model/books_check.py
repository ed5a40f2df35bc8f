"""Puts the reports of all parts of a tenant's books together, and compares the whole with what is kept. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from services.ledger.model.accounts import Account, Side
from services.ledger.model.checkpoints import Head
from services.ledger.model.merkle import STORED_LEVELS, Node, Tree, node_hash, split_hashes
from services.ledger.model.tree_check import BLOCK_LEAVES
from services.ledger.model.verification import CheckpointRow, Fault, PartReport


class JournalHead(NamedTuple):
    """What a journal says of itself.

    Attributes:
        last_time: create_time of the newest transaction, in microseconds since 1970; 0 when there is none.
    """

    last_sequence: int
    tree_size: int
    frontier: bytes
    last_time: int


class HeldSums(NamedTuple):
    """What is held on an account, in minor units."""

    debits_minor: int
    credits_minor: int


_NOTHING_HELD = HeldSums(0, 0)


class BooksCheck:
    """The whole of a tenant's books, as far as it was checked.

    Args:
        kept: a state of the tree that somebody kept; None when nobody did.
    """

    def __init__(self, head: JournalHead, kept: Head | None) -> None:
        self._head = head
        self._kept = kept
        # In parts, and between them.
        self.fault_count = 0
        self.transaction_count = 0
        self._hold_count = 0
        self.entry_count = 0
        # Of the roots of all full blocks of 256 leaves.
        self._blocks = Tree()
        # What must be stored above level 8.
        self.higher_nodes: list[Node] = []
        self._frontier = b""
        self._end_sequence = 1
        self._last_time = 0
        self._open_time: int | None = None
        self._checkpoint_size = 0
        # Of each account: balance on its normal side, debits and credits.
        self._accounts: dict[int, tuple[int, int, int]] = {}
        self._wrong_root_told = False

    def asked_sizes(self, start_leaf: int, end_leaf: int) -> list[int]:
        """The sizes that a part is to give roots of, beside those of its checkpoints."""
        return [self._kept.tree_size] if self._kept and start_leaf < self._kept.tree_size <= end_leaf else []

    def add(
        self, report: PartReport, checkpoints: Sequence[CheckpointRow], stored: Mapping[tuple[int, int], bytes]
    ) -> list[Fault]:
        """Adds the report of the next part.

        Args:
            checkpoints: the rows of the part.
            stored: stored nodes of level 8 that lie over the part, by level and index.

        Returns:
            What is wrong in the part, and between it and those before.
        """
        self.transaction_count += report.transaction_count
        self._hold_count += report.hold_count
        self.entry_count += report.entry_count
        faults = [*report.faults, *self._check_seams(report), *self._add_movements(report)]
        faults += self._check_roots(report, checkpoints)
        first_block = report.start_leaf // BLOCK_LEAVES
        nodes = [Node(STORED_LEVELS, first_block + offset, hash_) for offset, hash_ in enumerate(report.block_hashes)]
        faults += wrong_nodes(nodes, stored)
        growth = self._blocks.grow(report.block_hashes)
        self.higher_nodes += (node._replace(level=node.level + STORED_LEVELS) for node in growth.nodes)
        self._blocks = Tree(growth.size, growth.frontier)
        self._frontier = growth.frontier + report.tail_frontier
        self.fault_count += len(faults)
        return faults

    def _check_seams(self, report: PartReport) -> Iterator[Fault]:
        """What connects a part with the one before."""
        if report.transaction_count:
            if report.first_sequence != self._end_sequence:
                detail = f"the transactions from leaf {report.start_leaf} on begin at entry {report.first_sequence}"
                yield Fault("sequence", f"{detail} instead of {self._end_sequence}")
            if report.first_time < self._last_time:
                yield Fault("time", f"the transaction at leaf {report.start_leaf} was booked before the one before it")
            self._end_sequence, self._last_time = report.end_sequence, report.last_time
        # A batch may go on over the end of a part; it is of one time.
        next_time = report.open_time if report.first_checkpoint_time is None else report.first_checkpoint_time
        if self._open_time is not None and next_time != self._open_time:
            yield Fault("checkpoint", f"none ends the batch before leaf {report.start_leaf}")
        if report.last_checkpoint_size is not None:
            self._checkpoint_size = report.last_checkpoint_size
        self._open_time = report.open_time

    def _add_movements(self, report: PartReport) -> Iterator[Fault]:
        accounts = self._accounts
        for account_key, account_name, first_sequence, before_minor, after_minor, debits, credits_ in report.movements:
            balance_minor, debits_minor, credits_minor = accounts.get(account_key, (0, 0, 0))
            if before_minor != balance_minor:
                detail = f"entry {first_sequence} follows {before_minor} instead of {balance_minor}"
                yield Fault("balance", detail, account_name=account_name)
            accounts[account_key] = (after_minor, debits_minor + debits, credits_minor + credits_)

    def _check_roots(self, report: PartReport, checkpoints: Sequence[CheckpointRow]) -> Iterator[Fault]:
        wanted = {row.tree_size: row.root_hash for row in checkpoints}
        peaks = split_hashes(self._blocks.frontier)
        for tree_size, inner_root in report.inner_roots:
            root = inner_root
            for peak in reversed(peaks):
                root = node_hash(peak, root)
            # All later roots differ too: once told is enough.
            if not self._wrong_root_told and root != wanted.get(tree_size, root):
                self._wrong_root_told = True
                yield Fault("tree", f"the first {tree_size} leaves have another root than their checkpoint says")
            if self._kept and self._kept.tree_size == tree_size and self._kept.root_hash != root:
                yield Fault("kept_note", f"the first {tree_size} leaves are not those of the note that was kept")

    def finish(self, hold_rows: int) -> Iterator[Fault]:
        """What the journal says against what was found, once all parts were added.

        Args:
            hold_rows: of how many holds it is kept what became of them.
        """
        head = self._head
        if hold_rows != self._hold_count:
            yield Fault("hold", f"{self._hold_count} were booked, of {hold_rows} it is kept what became of them")
        if self._end_sequence - 1 != head.last_sequence:
            yield Fault(
                "sequence", f"the journal says {head.last_sequence} entries, there are {self._end_sequence - 1}"
            )
        if self._last_time != head.last_time:
            yield Fault("time", "the journal's newest transaction is of another time than the last")
        if self._frontier != head.frontier:
            yield Fault("tree", "the journal's frontier is not that of its leaves")
        if self._checkpoint_size != head.tree_size:
            detail = f"the newest is of size {self._checkpoint_size}, the tree has {head.tree_size} leaves"
            yield Fault("checkpoint", detail)
        if self._kept and self._kept.tree_size > head.tree_size:
            detail = f"the note that was kept is of {self._kept.tree_size} leaves, {head.tree_size} are left"
            yield Fault("kept_note", detail)

    @property
    def node_count(self) -> int:
        """How many nodes must be stored."""
        count, blocks = 0, self._blocks.size
        while blocks:
            count += blocks
            blocks >>= STORED_LEVELS
        return count

    def check_account(self, account: Account, held: HeldSums | None) -> Iterator[Fault]:
        """An account's row against its entries."""
        found = self._accounts.pop(account.account_key, (0, 0, 0))
        balance_minor, debits_minor, credits_minor = found
        pairs = (
            ("posted debits", account.debits_minor, debits_minor),
            ("posted credits", account.credits_minor, credits_minor),
            ("balance", account.balance_minor, balance_minor),
            ("held debits", account.pending_debits_minor, (held or _NOTHING_HELD).debits_minor),
            ("held credits", account.pending_credits_minor, (held or _NOTHING_HELD).credits_minor),
        )
        for what, said_minor, found_minor in pairs:
            if said_minor != found_minor:
                detail = f"{what} of {said_minor} are kept, the entries make {found_minor}"
                yield Fault("account", detail, account_name=account.account_name)

    def check_strangers(self) -> Iterator[Fault]:
        """Accounts that have entries and no row, once all that have one were checked."""
        for account_key in self._accounts:
            yield Fault("account", f"the account with key {account_key} is missing")


def wrong_nodes(nodes: Sequence[Node], stored: Mapping[tuple[int, int], bytes]) -> Iterator[Fault]:
    """Nodes that are not stored as they must be."""
    for level, node_index, hash_ in nodes:
        if stored.get((level, node_index)) != hash_:
            yield Fault("tree", f"the stored node {node_index} of level {level} is not that of its leaves")


def exceeded_side(account: Account) -> Side | None:
    """The side on which too much was booked for the limits of an account; None when it is within them."""
    normal_side = account.type.normal_side
    is_debit = normal_side is Side.DEBIT
    taken_minor = account.pending_credits_minor if is_debit else account.pending_debits_minor
    given_minor = account.pending_debits_minor if is_debit else account.pending_credits_minor
    lowest_minor, highest_minor = account.limits.lowest_minor, account.limits.max_balance_minor
    if lowest_minor is not None and account.balance_minor - taken_minor < lowest_minor:
        return normal_side.opposite
    if highest_minor is not None and account.balance_minor + given_minor > highest_minor:
        return normal_side
    return None
