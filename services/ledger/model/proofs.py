"""What proves that a transaction is in a tenant's tree. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a tenant's tree, signed.

    Attributes:
        tree_size: number of transactions in it.
        note: the signed note.
    """

    tree_size: int
    root_hash: bytes
    note: str
    create_time: datetime


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """The proof that a transaction is in a tree.

    Attributes:
        record: the leaf's data.
        path: hashes beside the way from the leaf to the root, from the leaf up.
    """

    leaf_index: int
    record: bytes
    path: Sequence[bytes]
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class ConsistencyProof:
    """The proof that a later state of a tree holds all of an earlier one unchanged.

    Attributes:
        path: hashes that lead from the earlier root to the later.
    """

    path: Sequence[bytes]
    first_checkpoint: Checkpoint
    second_checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class CheckpointKey:
    """A public key that checkpoints are signed with, as it is published, and when it was first used."""

    verifier_key: str
    create_time: datetime
