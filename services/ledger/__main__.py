"""The ledger service: `python -m services.ledger`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from kente.ledger.v1 import (
    ledger_service_pb2,
    ledger_service_pb2_grpc,
    proof_service_pb2,
    proof_service_pb2_grpc,
    report_service_pb2,
    report_service_pb2_grpc,
)

from mesh.clock import utc_now
from mesh.server import Runtime, Servicer, Wiring, run_service
from mesh.tokens import load_private_key
from services.ledger.convert import postings, transfers
from services.ledger.model.checkpoints import CheckpointSigner
from services.ledger.repository.proofs import register_checkpoint_key
from services.ledger.servicer.ledger import LedgerServicer
from services.ledger.servicer.proofs import ProofServicer
from services.ledger.servicer.reports import ReportServicer
from services.ledger.settings import LedgerSettings
from services.ledger.use_cases.booking import Bookkeeper
from services.ledger.use_cases.verify_books import BookVerifier
from services.ledger.use_cases.work import BatchTools, Wording


async def build(runtime: Runtime[LedgerSettings], clock: Callable[[], datetime] = utc_now) -> Wiring:
    """Wires the service.

    Args:
        clock: what the ledger takes for the time.
    """
    settings, database = runtime.settings, runtime.database
    key = load_private_key(settings.checkpoint_key_file, "KENTE_LEDGER_CHECKPOINT_KEY_FILE")
    signer = CheckpointSigner(settings.log_name, key)
    async with database.system_transaction() as connection:
        await register_checkpoint_key(connection, signer.verifier_key)
    wording = Wording(
        booked=postings.booked_to_proto,
        transfer=transfers.transfer_result_to_proto,
        event=postings.transaction_to_json,
        differing_fields=postings.differing_fields,
    )
    bookkeeper = Bookkeeper(
        database,
        BatchTools(clock, signer, wording, timedelta(seconds=settings.effective_skew_seconds)),
        batch_limit=settings.batch_limit,
        queue_limit=settings.queue_limit,
        ahead_postings=settings.ahead_postings,
    )
    return Wiring(
        servicers=[
            Servicer(
                ledger_service_pb2.DESCRIPTOR.services_by_name["LedgerService"].full_name,
                ledger_service_pb2_grpc.add_LedgerServiceServicer_to_server,
                LedgerServicer(database, bookkeeper, clock),
            ),
            Servicer(
                proof_service_pb2.DESCRIPTOR.services_by_name["ProofService"].full_name,
                proof_service_pb2_grpc.add_ProofServiceServicer_to_server,
                ProofServicer(database, BookVerifier(database, processes=settings.verify_processes)),
            ),
            Servicer(
                report_service_pb2.DESCRIPTOR.services_by_name["ReportService"].full_name,
                report_service_pb2_grpc.add_ReportServiceServicer_to_server,
                ReportServicer(database),
            ),
        ],
        background=[bookkeeper.run],
        close=[bookkeeper.close],
    )


if __name__ == "__main__":
    run_service("ledger", LedgerSettings, build)
