"""The notifications service: `python -m services.notifications`."""

from __future__ import annotations

from kente.notifications.v1 import (
    message_service_pb2,
    message_service_pb2_grpc,
    provider_service_pb2,
    provider_service_pb2_grpc,
)

from mesh.bus import Consumer
from mesh.provider.registry import Registry
from mesh.server import Runtime, Servicer, Wiring, run_service
from services.notifications import convert
from services.notifications.peers import Payments, Providers
from services.notifications.servicer import MessageServicer, ProviderServicer
from services.notifications.settings import NotificationsSettings
from services.notifications.use_cases.deliver_message import Delivery
from services.notifications.use_cases.queue_message import DELIVER_MESSAGE
from services.notifications.use_cases.queue_receipt import PREPARE_RECEIPT, ReceiptQueue


async def build(runtime: Runtime[NotificationsSettings]) -> Wiring:
    """Wires the service."""
    settings = runtime.settings
    registry = Registry("notifications", sandbox_url=runtime.mesh.sandbox_url, cache_url=runtime.mesh.cache_url)
    connections, payments = runtime.channel("connections"), runtime.channel("payments")
    providers = Providers(
        registry,
        connections,
        public_url=runtime.mesh.public_url,
        sandbox_url=runtime.mesh.sandbox_url,
        connections_cache_seconds=settings.connections_cache_seconds,
    )
    delivery = Delivery(runtime.database, providers, settings, convert.message_to_proto)
    receipts = ReceiptQueue(runtime.database, Payments(payments), settings)

    async def close() -> None:
        await connections.close()
        await payments.close()
        await registry.close()

    return Wiring(
        servicers=[
            Servicer(
                message_service_pb2.DESCRIPTOR.services_by_name["MessageService"].full_name,
                message_service_pb2_grpc.add_MessageServiceServicer_to_server,
                MessageServicer(runtime.database, providers, settings),
            ),
            Servicer(
                provider_service_pb2.DESCRIPTOR.services_by_name["ProviderService"].full_name,
                provider_service_pb2_grpc.add_ProviderServiceServicer_to_server,
                ProviderServicer(providers),
            ),
        ],
        jobs={DELIVER_MESSAGE: delivery.deliver_message, PREPARE_RECEIPT: receipts.prepare_receipt},
        consumers=[
            Consumer("notifications-receipts", ["kente.*.payments.payment.succeeded"], receipts.handle_event),
        ],
        close=[close],
    )


if __name__ == "__main__":
    run_service("notifications", NotificationsSettings, build)
