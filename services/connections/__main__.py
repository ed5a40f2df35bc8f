"""The connections service: python -m services.connections."""

from __future__ import annotations

from kente.connections.v1 import connection_service_pb2_grpc, credential_service_pb2_grpc

from mesh.server import Runtime, Servicer, Wiring, run_service
from services.connections import peers
from services.connections.model import KeyRing
from services.connections.servicer import ConnectionServicer, CredentialServicer
from services.connections.settings import ConnectionsSettings
from services.connections.use_cases.resolve_credentials import SealedCache


async def build(runtime: Runtime[ConnectionsSettings]) -> Wiring:
    """Puts the service together."""
    settings = runtime.settings
    keys = KeyRing.parse(settings.encryption_keys.get_secret_value())
    cache = SealedCache(remember_seconds=settings.credential_cache_seconds)
    payments, notifications = runtime.channel("payments"), runtime.channel("notifications")
    # The domains whose providers a connection can be made to.
    asks = {"payments": peers.payments(payments), "notifications": peers.notifications(notifications)}
    catalogue = peers.ProviderCatalogue(asks, remember_seconds=settings.provider_cache_seconds)
    return Wiring(
        servicers=[
            Servicer(
                "kente.connections.v1.ConnectionService",
                connection_service_pb2_grpc.add_ConnectionServiceServicer_to_server,
                ConnectionServicer(runtime.database, keys, catalogue, cache),
            ),
            Servicer(
                "kente.connections.v1.CredentialService",
                credential_service_pb2_grpc.add_CredentialServiceServicer_to_server,
                CredentialServicer(runtime.database, keys, cache),
            ),
        ],
        close=[payments.close, notifications.close],
    )


if __name__ == "__main__":
    run_service("connections", ConnectionsSettings, build)
