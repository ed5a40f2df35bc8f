"""The ledger service: `python -m services.ledger`."""

from __future__ import annotations

from kente.ledger.v1 import ledger_service_pb2, ledger_service_pb2_grpc

from mesh.server import Runtime, Servicer, Wiring, run_service
from services.ledger.servicer import LedgerServicer
from services.ledger.settings import LedgerSettings


async def build(runtime: Runtime[LedgerSettings]) -> Wiring:
    """Wires the service."""
    return Wiring(
        servicers=[
            Servicer(
                ledger_service_pb2.DESCRIPTOR.services_by_name["LedgerService"].full_name,
                ledger_service_pb2_grpc.add_LedgerServiceServicer_to_server,
                LedgerServicer(runtime.database),
            )
        ]
    )


if __name__ == "__main__":
    run_service("ledger", LedgerSettings, build)
