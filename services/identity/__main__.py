"""The identity service: python -m services.identity."""

from __future__ import annotations

from kente.identity.v1 import api_key_service_pb2_grpc, tenant_service_pb2_grpc, token_service_pb2_grpc

from mesh.server import Runtime, Servicer, Wiring, run_service
from services.identity.servicer import ApiKeyServicer, TenantServicer, TokenServicer
from services.identity.settings import IdentitySettings


async def build(runtime: Runtime[IdentitySettings]) -> Wiring:
    """Puts the service together."""
    settings = runtime.settings
    return Wiring(
        servicers=[
            Servicer(
                "kente.identity.v1.TenantService",
                tenant_service_pb2_grpc.add_TenantServiceServicer_to_server,
                TenantServicer(runtime.database),
            ),
            Servicer(
                "kente.identity.v1.ApiKeyService",
                api_key_service_pb2_grpc.add_ApiKeyServiceServicer_to_server,
                ApiKeyServicer(runtime.database),
            ),
            Servicer(
                "kente.identity.v1.TokenService",
                token_service_pb2_grpc.add_TokenServiceServicer_to_server,
                TokenServicer(runtime.database, runtime.identity, runtime.bundle, settings.token_lifetime_seconds),
            ),
        ]
    )


if __name__ == "__main__":
    run_service("identity", IdentitySettings, build)
