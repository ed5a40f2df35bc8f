"""Conversions of proofs. Pure functions."""

from __future__ import annotations

from kente.ledger.v1 import proof_pb2
from kente.ledger.v1 import proof_service_pb2 as pb2

from services.ledger.convert.common import time_to_proto
from services.ledger.convert.postings import checkpoint_to_proto
from services.ledger.model.proofs import Checkpoint, CheckpointKey, ConsistencyProof
from services.ledger.model.verification import Fault, Progress


def consistency_proof_to_proto(proof: ConsistencyProof) -> pb2.GetConsistencyProofResponse:
    """The answer to whoever asked whether one state continues another."""
    return pb2.GetConsistencyProofResponse(
        path=proof.path,
        first_checkpoint=checkpoint_to_proto(proof.first_checkpoint),
        second_checkpoint=checkpoint_to_proto(proof.second_checkpoint),
    )


def checkpoint_key_to_proto(key: CheckpointKey) -> proof_pb2.CheckpointKey:
    """A public key as callers see it."""
    return proof_pb2.CheckpointKey(verifier_key=key.verifier_key, create_time=time_to_proto(key.create_time))


def records_to_proto(
    first_leaf_index: int, records: list[bytes], checkpoint: Checkpoint | None
) -> pb2.ExportRecordsResponse:
    """Some records of an export."""
    return pb2.ExportRecordsResponse(
        first_leaf_index=first_leaf_index,
        records=records,
        checkpoint=checkpoint_to_proto(checkpoint) if checkpoint else None,
    )


def progress_to_proto(progress: Progress) -> pb2.VerifyBooksResponse:
    """How far a check of the books is."""
    return pb2.VerifyBooksResponse(
        checked_entries=progress.checked_entries,
        total_entries=progress.total_entries,
        checked_transactions=progress.checked_transactions,
        faults=[_fault_to_proto(fault) for fault in progress.faults],
        done=progress.done,
        checkpoint=checkpoint_to_proto(progress.checkpoint) if progress.checkpoint else None,
    )


def _fault_to_proto(fault: Fault) -> pb2.BookFault:
    return pb2.BookFault(
        check=fault.check,
        detail=fault.detail,
        transaction_id=fault.transaction_id,
        account_name=fault.account_name,
    )
