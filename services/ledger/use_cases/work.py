"""What the calls that book are made of, on their way through a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from google.protobuf.message import Message

from mesh.errors import Problem
from mesh.interceptors.audit import AuditRow
from services.ledger.model.changes import ChangeRequest
from services.ledger.model.checkpoints import CheckpointSigner
from services.ledger.model.evaluation import Booked
from services.ledger.model.postings import Posting, Transaction
from services.ledger.model.proofs import InclusionProof

# How a posting ended: the bytes of the answer, or the refusal.
Result = bytes | Problem


@dataclass(frozen=True, slots=True)
class Wording:
    """How outcomes are put into the words of the contract.

    Attributes:
        booked: the answer to whoever asked for one transaction.
        transfer: the answer to whoever asked for one transfer of several.
        event: a transaction as its event carries it.
        differing_fields: names of the fields in which two stored requests differ.
    """

    booked: Callable[[Booked, InclusionProof | None], Message]
    transfer: Callable[[Booked], Message]
    event: Callable[[Transaction], Mapping[str, Any]]
    differing_fields: Callable[[bytes, bytes], list[str]]


@dataclass(frozen=True, slots=True)
class Work:
    """One call that books.

    Attributes:
        request: to recognise the same call again.
        together: the postings are transfers of one call, announced by one event.
        audit_row: of the call, as if it ended well.
        trace_context: of the call, for its events.
    """

    request: ChangeRequest
    postings: Sequence[Posting]
    together: bool
    audit_row: AuditRow
    trace_context: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BatchTools:
    """What does not change from batch to batch.

    Attributes:
        effective_skew: how far in the future something may take effect.
        partitions: months (year, month) whose partition of entries is known to be there.
    """

    clock: Callable[[], datetime]
    signer: CheckpointSigner
    wording: Wording
    effective_skew: timedelta
    partitions: set[tuple[int, int]] = field(default_factory=set)
