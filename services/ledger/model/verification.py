"""What a check of a tenant's books passes around: parts to check, reports of them, and faults. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from services.ledger.model.proofs import Checkpoint

# Of one part; what is wrong with a hundred transactions is wrong with more.
FAULTS_MAX = 100


class Fault(NamedTuple):
    """Something that is wrong in a book.

    Attributes:
        check: which check failed; docs/ledger-proofs.md lists them.
    """

    check: str
    detail: str
    transaction_id: str = ""
    account_name: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a check is.

    Attributes:
        faults: newly found.
        checkpoint: the state of the tree that is checked; None when nothing was booked yet.
    """

    checked_entries: int
    total_entries: int
    checked_transactions: int
    faults: Sequence[Fault] = ()
    done: bool = False
    checkpoint: Checkpoint | None = None


class CheckpointRow(NamedTuple):
    """A row of a checkpoint.

    Attributes:
        create_time: microseconds since 1970.
        event_count: how many events announce its batch.
    """

    tree_size: int
    last_sequence: int
    root_hash: bytes
    note: str
    create_time: int
    event_count: int


class Span(NamedTuple):
    """Neighbouring transactions, and the entries between them.

    Attributes:
        start_leaf: the first transaction; end_leaf is after the last.
        start_sequence: the first entry; end_sequence is after the last.
    """

    start_leaf: int
    end_leaf: int
    start_sequence: int
    end_sequence: int


@dataclass(frozen=True, slots=True)
class Part:
    """Neighbouring transactions to check.

    Attributes:
        span: which; its first leaf is a multiple of 256.
        checkpoints: those after which the tree ends within the part, in order.
        asked_sizes: other sizes whose root is asked for.
        verifier_keys: those that may have signed.
        transactions: as copied out of the database, with entries likewise.
        accounts: of the entries, when all is in the form for the quick check; None: it is in that for the thorough one.
    """

    tenant_id: str
    span: Span
    checkpoints: list[CheckpointRow]
    asked_sizes: list[int]
    verifier_keys: list[str]
    transactions: bytes = b""
    entries: bytes = b""
    accounts: bytes | None = None


# What a part says of one account: its key and its name; the sequence of its first entry in the part, the balance before
# that entry as the entry implies it, and the balance after its last; then sums of what was posted, debits and credits.
# Not a named tuple: there are so many that the way to another process would take several times as long.
Movement = tuple[int, str, int, int, int, int, int]


class InnerRoot(NamedTuple):
    """The root of those leaves of a tree of some size that are in a part."""

    tree_size: int
    root_hash: bytes


@dataclass(slots=True)
class PartReport:
    """What was found in a part.

    Attributes:
        doubt: what made the quick check doubt, in a word; empty when nothing did. Nothing else is told then.
        transaction_count: rows that there were.
        entry_count: likewise.
        hold_count: transactions among them that hold.
        first_sequence: of its first transaction; 0 when it has none.
        end_sequence: of the next transaction there will be; likewise.
        first_time: create_time of its first transaction, in microseconds since 1970; likewise.
        last_time: of its last.
        inner_roots: for each checkpoint and each size asked for.
        first_checkpoint_time: None when it has no checkpoint.
        open_time: create_time of the transactions after its last checkpoint; None when there are none.
        block_hashes: roots of its full blocks of 256 leaves.
        tail_frontier: frontier of the leaves after those.
    """

    start_leaf: int
    end_leaf: int
    doubt: str = ""
    transaction_count: int = 0
    entry_count: int = 0
    hold_count: int = 0
    first_sequence: int = 0
    end_sequence: int = 0
    first_time: int = 0
    last_time: int = 0
    movements: list[Movement] = field(default_factory=list)
    inner_roots: list[InnerRoot] = field(default_factory=list)
    first_checkpoint_time: int | None = None
    last_checkpoint_size: int | None = None
    open_time: int | None = None
    block_hashes: list[bytes] = field(default_factory=list)
    tail_frontier: bytes = b""
    faults: list[Fault] = field(default_factory=list)

    @property
    def is_doubtful(self) -> bool:
        """Whether there may be a fault, which the quick check does not find out."""
        return bool(self.doubt)
