"""The RPCs of proofs: each reads its request, runs its use case, and writes the answer."""

# ruff: noqa: N802 - the contracts name the methods

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from kente.ledger.v1 import proof_service_pb2 as pb2
from kente.ledger.v1 import proof_service_pb2_grpc as pb2_grpc

from mesh.context import current_tenant_id
from mesh.database import Database
from services.ledger.convert import proofs as convert
from services.ledger.convert.postings import checkpoint_to_proto, inclusion_proof_to_proto
from services.ledger.use_cases.export_records import export_records
from services.ledger.use_cases.get_checkpoint import get_checkpoint
from services.ledger.use_cases.get_consistency_proof import get_consistency_proof
from services.ledger.use_cases.get_inclusion_proof import get_inclusion_proof
from services.ledger.use_cases.list_checkpoint_keys import list_checkpoint_keys
from services.ledger.use_cases.verify_books import BookVerifier


class ProofServicer(pb2_grpc.ProofServiceServicer):
    """kente.ledger.v1.ProofService."""

    def __init__(self, database: Database, verifier: BookVerifier) -> None:
        self._database = database
        self._verifier = verifier

    async def GetCheckpoint(self, request: pb2.GetCheckpointRequest, _context: object) -> pb2.GetCheckpointResponse:
        checkpoint = await get_checkpoint(self._database, tenant_id=current_tenant_id(), tree_size=request.tree_size)
        return pb2.GetCheckpointResponse(checkpoint=checkpoint_to_proto(checkpoint))

    async def ListCheckpointKeys(
        self, request: pb2.ListCheckpointKeysRequest, _context: object
    ) -> pb2.ListCheckpointKeysResponse:
        keys, next_page_token = await list_checkpoint_keys(
            self._database,
            tenant_id=current_tenant_id(),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return pb2.ListCheckpointKeysResponse(
            keys=[convert.checkpoint_key_to_proto(key) for key in keys], next_page_token=next_page_token
        )

    async def GetInclusionProof(
        self, request: pb2.GetInclusionProofRequest, _context: object
    ) -> pb2.GetInclusionProofResponse:
        proof = await get_inclusion_proof(
            self._database,
            tenant_id=current_tenant_id(),
            transaction_id=request.transaction_id,
            tree_size=request.tree_size,
        )
        return pb2.GetInclusionProofResponse(proof=inclusion_proof_to_proto(proof))

    async def GetConsistencyProof(
        self, request: pb2.GetConsistencyProofRequest, _context: object
    ) -> pb2.GetConsistencyProofResponse:
        proof = await get_consistency_proof(
            self._database,
            tenant_id=current_tenant_id(),
            first_tree_size=request.first_tree_size,
            second_tree_size=request.second_tree_size,
        )
        return convert.consistency_proof_to_proto(proof)

    async def ExportRecords(
        self, request: pb2.ExportRecordsRequest, _context: object
    ) -> AsyncIterator[pb2.ExportRecordsResponse]:
        parts = export_records(
            self._database,
            tenant_id=current_tenant_id(),
            start_leaf_index=request.start_leaf_index,
            tree_size=request.tree_size,
        )
        async with aclosing(parts):
            async for part in parts:
                yield convert.records_to_proto(part.first_leaf_index, part.records, part.checkpoint)

    async def VerifyBooks(
        self, request: pb2.VerifyBooksRequest, _context: object
    ) -> AsyncIterator[pb2.VerifyBooksResponse]:
        # Closed at once when the caller goes, and with it the processes that check.
        async with aclosing(self._verifier.verify(current_tenant_id(), request.note)) as steps:
            async for progress in steps:
                yield convert.progress_to_proto(progress)
