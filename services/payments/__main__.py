"""The payments service: python -m services.payments."""

from __future__ import annotations

from functools import partial

from kente.payments.v1 import (
    payment_service_pb2_grpc,
    provider_service_pb2_grpc,
    webhook_service_pb2_grpc,
)

from mesh.provider.registry import Registry
from mesh.server import Runtime, Servicer, Wiring, run_service
from services.payments import convert
from services.payments.peers import Ledger, Providers
from services.payments.repository.changes import PaymentChanges
from services.payments.servicer import PaymentServicer, ProviderServicer, WebhookServicer
from services.payments.settings import PaymentsSettings
from services.payments.use_cases.desk import Desk
from services.payments.use_cases.run_jobs import handlers


async def build(runtime: Runtime[PaymentsSettings]) -> Wiring:
    """Wires the service."""
    settings = runtime.settings
    registry = Registry("payments", sandbox_url=runtime.mesh.sandbox_url, cache_url=runtime.mesh.cache_url)
    connections, ledger = runtime.channel("connections"), runtime.channel("ledger")
    desk = Desk(
        database=runtime.database,
        settings=settings,
        providers=Providers(
            registry,
            connections,
            public_url=runtime.mesh.public_url,
            links_lifetime_seconds=settings.connections_cache_seconds,
            adapter_lifetime_seconds=settings.adapter_cache_seconds,
        ),
        ledger=Ledger(ledger),
        describe_payment=convert.payment_to_proto,
        describe_refund=convert.refund_to_proto,
    )
    fingerprint = partial(convert.fingerprint, runtime.mesh.request_hash_key.get_secret_value().encode())
    changes = PaymentChanges(runtime.mesh.database_url.get_secret_value())
    return Wiring(
        servicers=[
            Servicer(
                "kente.payments.v1.PaymentService",
                payment_service_pb2_grpc.add_PaymentServiceServicer_to_server,
                PaymentServicer(desk, changes, fingerprint),
            ),
            Servicer(
                "kente.payments.v1.ProviderService",
                provider_service_pb2_grpc.add_ProviderServiceServicer_to_server,
                ProviderServicer(desk),
            ),
            Servicer(
                "kente.payments.v1.WebhookService",
                webhook_service_pb2_grpc.add_WebhookServiceServicer_to_server,
                WebhookServicer(desk),
            ),
        ],
        jobs=handlers(desk),
        background=[changes.run],
        close=[registry.close, connections.close, ledger.close],
    )


if __name__ == "__main__":
    run_service("payments", PaymentsSettings, build)
