"""Checks the tree over neighbouring transactions, and the checkpoints of their batches. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from services.ledger.model.checkpoints import NoteError, VerifierKey, verify_note
from services.ledger.model.levels import Levels
from services.ledger.model.merkle import STORED_LEVELS
from services.ledger.model.verification import FAULTS_MAX, CheckpointRow, Fault, InnerRoot, Part, PartReport

BLOCK_LEAVES = 1 << STORED_LEVELS


@dataclass(slots=True)
class Leaves:
    """What the tree and the checkpoints hang on: of each leaf of a part, in order.

    Attributes:
        times: create_time, in microseconds since 1970.
        end_sequences: after its last entry.
    """

    hashes: list[bytes] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    end_sequences: list[int] = field(default_factory=list)

    def add(self, hash_: bytes, time: int, end_sequence: int) -> None:
        """Adds the next leaf."""
        self.hashes.append(hash_)
        self.times.append(time)
        self.end_sequences.append(end_sequence)


def check_tree(part: Part, leaves: Leaves, report: PartReport) -> None:
    """Adds to the report of a part what its tree is, and what is wrong with its checkpoints."""
    levels = Levels(leaves.hashes)
    sizes = {*(row.tree_size for row in part.checkpoints), *part.asked_sizes}
    report.inner_roots = [InnerRoot(size, levels.root(size - part.span.start_leaf)) for size in sorted(sizes)]
    report.block_hashes = levels.nodes(STORED_LEVELS)
    # Full subtrees of the tree as it is after the last full block.
    tail_peaks = (len(leaves.hashes) % BLOCK_LEAVES).bit_count()
    frontier = levels.frontier(len(leaves.hashes))
    report.tail_frontier = b"".join(frontier[len(frontier) - tail_peaks :])
    keys = list(dict.fromkeys(map(VerifierKey.parse, part.verifier_keys)))
    start = 0
    for row in part.checkpoints:
        for check, detail in _checkpoint_faults(part, row, leaves, start, keys):
            add_fault(report, Fault(check, detail))
        start = row.tree_size - part.span.start_leaf
        report.last_checkpoint_size = row.tree_size
    if part.checkpoints:
        report.first_checkpoint_time = part.checkpoints[0].create_time
    open_times = leaves.times[start:]
    if open_times:
        report.open_time = open_times[0]
        if len(set(open_times)) > 1:
            add_fault(report, Fault("checkpoint", f"none ends the batch after leaf {part.span.start_leaf + start}"))


def add_fault(report: PartReport, fault: Fault) -> None:
    """Adds a fault, unless there are many already."""
    if len(report.faults) < FAULTS_MAX:
        report.faults.append(fault)


def _checkpoint_faults(
    part: Part, row: CheckpointRow, leaves: Leaves, start: int, keys: Sequence[VerifierKey]
) -> list[tuple[str, str]]:
    """What is wrong between a row, its note, and the transactions of its batch that are in this part."""
    count = row.tree_size - part.span.start_leaf
    place = f"of size {row.tree_size}"
    faults: list[tuple[str, str]] = []
    try:
        head = verify_note(row.note, keys)
    except NoteError as error:
        faults.append(("signature", f"the checkpoint {place}: {error}"))
    else:
        origins = {f"{key.name}/{part.tenant_id}" for key in keys}
        if head.origin not in origins or (head.tree_size, head.root_hash) != (row.tree_size, row.root_hash):
            faults.append(("checkpoint", f"the row {place} and its note say different things"))
    if row.last_sequence != leaves.end_sequences[count - 1] - 1:
        detail = f"the one {place} ends at entry {row.last_sequence}, its last transaction does not"
        faults.append(("checkpoint", detail))
    if set(leaves.times[start:count]) != {row.create_time}:
        faults.append(("checkpoint", f"the one {place} is not of the time of its transactions"))
    if not row.event_count:
        faults.append(("announcement", f"the batch {place} was announced by no event"))
    return faults
