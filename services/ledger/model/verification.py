"""What a check of a tenant's books passes around: parts to check, reports of them, and faults. No I/O."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from services.ledger.model.proofs import Checkpoint

# Of one part; what is wrong with a hundred transactions is wrong with more.
FAULTS_MAX = 100
_SIZES = struct.Struct(">III")


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
        root_hash: in hexadecimal.
        create_time: microseconds since 1970.
        event_count: how many events announce its batch.
    """

    tree_size: int
    last_sequence: int
    root_hash: str
    note: str
    create_time: int
    event_count: int


@dataclass(frozen=True, slots=True)
class Part:
    """Neighbouring transactions to check.

    Attributes:
        start_leaf: the first of them; a multiple of 256.
        end_leaf: after the last of them.
        checkpoints: those after which the tree ends within the part, in order.
        asked_sizes: other sizes whose root is asked for.
        verifier_keys: those that may have signed.
        transactions: as copied out of the database, with entries likewise.
    """

    tenant_id: str
    start_leaf: int
    end_leaf: int
    checkpoints: list[CheckpointRow]
    asked_sizes: list[int]
    verifier_keys: list[str]
    transactions: bytes
    entries: bytes

    def to_bytes(self) -> bytes:
        """The part for another process."""
        document = {
            "tenant_id": self.tenant_id,
            "start_leaf": self.start_leaf,
            "end_leaf": self.end_leaf,
            "checkpoints": self.checkpoints,
            "asked_sizes": self.asked_sizes,
            "verifier_keys": self.verifier_keys,
        }
        text = json.dumps(document).encode()
        sizes = _SIZES.pack(len(text), len(self.transactions), len(self.entries))
        return b"".join((sizes, text, self.transactions, self.entries))

    @classmethod
    def from_bytes(cls, data: bytes) -> Part:
        """Reads what to_bytes wrote."""
        text_size, transactions_size, _ = _SIZES.unpack_from(data)
        text_end = _SIZES.size + text_size
        document: dict[str, Any] = json.loads(data[_SIZES.size : text_end])
        document["checkpoints"] = [CheckpointRow(*row) for row in document["checkpoints"]]
        entries_start = text_end + transactions_size
        return cls(**document, transactions=data[text_end:entries_start], entries=data[entries_start:])


class Movement(NamedTuple):
    """What a part says of one account.

    Attributes:
        first_sequence: of its first entry in the part.
        before_minor: the balance before that entry, as the entry implies it.
        after_minor: the balance after its last entry.
        debits_minor: sum of what was posted, with credits_minor likewise.
    """

    account_key: int
    account_name: str
    first_sequence: int
    before_minor: int
    after_minor: int
    debits_minor: int
    credits_minor: int


class InnerRoot(NamedTuple):
    """The root of those leaves of a tree of some size that are in a part, in hexadecimal."""

    tree_size: int
    root_hash: str


@dataclass(slots=True)
class PartReport:
    """What was found in a part.

    Attributes:
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
        block_hashes: roots of its full blocks of 256 leaves, in hexadecimal.
        tail_frontier: frontier of the leaves after those, in hexadecimal.
    """

    start_leaf: int
    end_leaf: int
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
    block_hashes: list[str] = field(default_factory=list)
    tail_frontier: str = ""
    faults: list[Fault] = field(default_factory=list)

    def to_bytes(self) -> bytes:
        """The report for another process."""
        return json.dumps({name: getattr(self, name) for name in self.__slots__}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> PartReport:
        """Reads what to_bytes wrote."""
        document: dict[str, Any] = json.loads(data)
        document["movements"] = [Movement(*row) for row in document["movements"]]
        document["inner_roots"] = [InnerRoot(*row) for row in document["inner_roots"]]
        document["faults"] = [Fault(*row) for row in document["faults"]]
        return cls(**document)
