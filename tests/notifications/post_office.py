"""Notifications as a tenant sees it, with a mail server, and the services around it, in few words."""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable
from typing import Any

import grpc
import httpx
import pytest
from kente.common.v1.money_pb2 import Money
from kente.connections.v1 import connection_pb2, connection_service_pb2, connection_service_pb2_grpc
from kente.notifications.v1 import message_pb2, message_service_pb2, message_service_pb2_grpc
from kente.payments.v1 import (
    payment_pb2,
    payment_service_pb2,
    provider_service_pb2,
    provider_service_pb2_grpc,
)
from nats.aio.client import Client

from mesh.clock import utc_now
from mesh.context import current_tenant_id
from mesh.errors import Problem, Reason
from mesh.ids import new_id
from mesh.provider.registry import Registry
from mesh.sandbox.server import Sandbox
from mesh.server import Runtime, Service, Servicer, Wiring
from mesh.settings import ServiceSettings
from services.notifications.providers.smtp.simulator import Simulator
from tests.harness import Infrastructure, TestMesh, eventually

SCOPES = ("notifications:read", "notifications:write", "connections:read", "connections:write")
VARIABLES = {"amount": "GHS 10.50", "payment_id": "pay_1", "paid_time": "21 November 2026, 10:35 UTC"}

FINAL = {message_pb2.Message.STATE_SENT, message_pb2.Message.STATE_FAILED}


async def refusal(call: Awaitable[object]) -> Problem:
    """The problem that a call is refused with."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return Problem.from_rpc_error(refused.value)


def make_payment(**fields: Any) -> payment_pb2.Payment:
    """A payment that succeeded; what is not given is as it should be."""
    values: dict[str, Any] = {
        "payment_id": new_id("pay"),
        "state": payment_pb2.Payment.STATE_SUCCEEDED,
        "amount": Money(amount_minor=1050, currency="GHS"),
        "captured_amount": Money(amount_minor=1050, currency="GHS"),
        "method": payment_pb2.PaymentMethod(mobile_money=payment_pb2.MobileMoney(msisdn="+233241234567")),
        "payer": payment_pb2.Payer(display_name="Ama Mensah", email=f"ama+{uuid.uuid4().hex}@example.com"),
        "description": "Two tickets",
        "merchant_reference": "order-17",
    }
    return payment_pb2.Payment(**(values | fields))


class PaymentsFarEnd:
    """Stands in for payments: the real server and contract, with payments of the test's own."""

    def __init__(self, infrastructure: Infrastructure) -> None:
        self._infrastructure = infrastructure
        self._payments: dict[tuple[str, str], payment_pb2.Payment] = {}
        self._service: Service[ServiceSettings] | None = None
        self.reads = 0

    def keep(self, tenant_id: str, payment: payment_pb2.Payment) -> None:
        """Makes a payment exist."""
        self._payments[tenant_id, payment.payment_id] = payment

    async def GetPayment(self, request: Any, _context: object) -> payment_service_pb2.GetPaymentResponse:  # noqa: N802 - the contract's name
        """The tenant's payment."""
        self.reads += 1
        payment = self._payments.get((current_tenant_id(), request.payment_id))
        if payment is None:
            raise Problem(Reason.RESOURCE_NOT_FOUND, "the payment does not exist")
        return payment_service_pb2.GetPaymentResponse(payment=payment)

    async def ListProviders(self, _request: Any, _context: object) -> provider_service_pb2.ListProvidersResponse:  # noqa: N802 - the contract's name
        """None."""
        return provider_service_pb2.ListProvidersResponse()

    async def start(self) -> None:
        """Serves at the port of payments."""
        settings = ServiceSettings(
            port=self._infrastructure.ports["payments"], metrics_port=0, workers=1, database_pool_size=2
        )
        self._service = Service("payments", self._infrastructure.settings("payments"), settings, self._build)
        await self._service.start()

    async def stop(self) -> None:
        """Goes away."""
        if self._service is not None:
            await self._service.stop()
            self._service = None

    async def _build(self, _runtime: Runtime[ServiceSettings]) -> Wiring:
        add_providers = provider_service_pb2_grpc.add_ProviderServiceServicer_to_server
        return Wiring(
            servicers=[
                Servicer("kente.payments.v1.PaymentService", _add_get_payment, self),
                Servicer("kente.payments.v1.ProviderService", add_providers, self),
            ]
        )


def _add_get_payment(servicer: Any, server: Any) -> None:
    handler = grpc.unary_unary_rpc_method_handler(
        servicer.GetPayment,
        request_deserializer=payment_service_pb2.GetPaymentRequest.FromString,
        response_serializer=payment_service_pb2.GetPaymentResponse.SerializeToString,
    )
    server.add_registered_method_handlers("kente.payments.v1.PaymentService", {"GetPayment": handler})


class PostOffice:
    """One tenant's messages, its mail server, and the payments it hears of."""

    def __init__(
        self, mesh: TestMesh, sandbox: Sandbox, payments: PaymentsFarEnd, nats: Client, tenant_id: str
    ) -> None:
        self.mesh = mesh
        self.sandbox = sandbox
        self.payments = payments
        self.tenant_id = tenant_id
        self._nats = nats
        self.messages = message_service_pb2_grpc.MessageServiceStub(mesh.client("notifications", tenant_id, SCOPES))
        self._connections = connection_service_pb2_grpc.ConnectionServiceStub(
            mesh.client("connections", tenant_id, SCOPES)
        )

    @property
    def smtp_url(self) -> str:
        """Address of the sandbox's mail server."""
        return smtp_url(self.sandbox)

    async def connect(self, base_url: str = "", *, trace: bool = True, **settings: str) -> connection_pb2.Connection:
        """A connection to a mail server: the sandbox's, unless another is given."""
        adapter = Registry("notifications").adapter_class("smtp")
        values = dict(adapter.sandbox_settings) | {"timeout_seconds": "1", "trace_delay_seconds": "0"} | settings
        if not trace:
            del values["trace_url"]
        request = connection_service_pb2.CreateConnectionRequest(
            request_id=str(uuid.uuid4()),
            provider="smtp",
            display_name="Mail",
            environment=connection_pb2.Connection.ENVIRONMENT_SANDBOX,
            base_url=base_url or self.smtp_url,
            settings=values,
            credentials=dict(adapter.sandbox_credentials),
        )
        return (await self._connections.CreateConnection(request)).connection

    async def delete(self, connection: connection_pb2.Connection) -> None:
        """Deletes a connection."""
        request = connection_service_pb2.DeleteConnectionRequest(
            request_id=str(uuid.uuid4()), connection_id=connection.connection_id
        )
        await self._connections.DeleteConnection(request)

    def request(self, recipient: str, **fields: Any) -> message_service_pb2.SendMessageRequest:
        """A request for a message."""
        values: dict[str, Any] = {
            "request_id": str(uuid.uuid4()),
            "template": "payment_receipt",
            "recipient": recipient,
            "variables": VARIABLES,
        }
        return message_service_pb2.SendMessageRequest(**(values | fields))

    async def send(self, recipient: str, **fields: Any) -> message_pb2.Message:
        """Asks for a message."""
        return (await self.messages.SendMessage(self.request(recipient, **fields))).message

    async def get(self, message_id: str) -> message_pb2.Message:
        """A message as it is now."""
        request = message_service_pb2.GetMessageRequest(message_id=message_id)
        return (await self.messages.GetMessage(request)).message

    async def page(self, **fields: Any) -> message_service_pb2.ListMessagesResponse:
        """A page of messages."""
        return await self.messages.ListMessages(message_service_pb2.ListMessagesRequest(**fields))

    async def until_final(self, message_id: str, timeout_seconds: float = 15.0) -> message_pb2.Message:
        """The message once it is SENT or FAILED."""

        async def final() -> message_pb2.Message | None:
            message = await self.get(message_id)
            return message if message.state in FINAL else None

        found: message_pb2.Message = await eventually(final, timeout_seconds)
        return found

    async def until_failure(self, message_id: str, part: str) -> message_pb2.Message:
        """The message once its failure holds this text."""

        async def failing() -> message_pb2.Message | None:
            message = await self.get(message_id)
            return message if part in message.failure else None

        found: message_pb2.Message = await eventually(failing)
        return found

    async def mailbox(self, recipient: str) -> list[dict[str, Any]]:
        """What was delivered to an address, oldest first."""
        return await mailbox(self.sandbox, recipient)

    async def plan_fault(self, fault: str, operation: str = "send", count: int = 1) -> None:
        """Makes the mail server misbehave."""
        async with httpx.AsyncClient() as client:
            body = {"operation": operation, "fault": fault, "count": count}
            (await client.put(f"{self.sandbox.url}/_faults/smtp", json=body)).raise_for_status()

    async def until_faults_are_taken(self) -> None:
        """Waits until the mail server has met the planned faults."""

        async def taken() -> bool:
            async with httpx.AsyncClient() as client:
                answer = await client.get(f"{self.sandbox.url}/_faults/smtp")
            return not answer.json()["faults"]

        await eventually(taken)

    async def publish_success(self, payment: payment_pb2.Payment, event_id: str = "") -> str:
        """Publishes that a payment succeeded, as the outbox of payments does; the event's id."""
        event_id = event_id or new_id("evt")
        document = {
            "specversion": "1.0",
            "id": event_id,
            "source": "/kente/payments",
            "type": "payments.payment.succeeded",
            "subject": payment.payment_id,
            "time": utc_now().isoformat(),
            "datacontenttype": "application/json",
            "kentetenant": self.tenant_id,
            "data": {"paymentId": payment.payment_id, "payer": {"email": "a***@example.com"}},
        }
        # No Nats-Msg-Id: a second publication of the same event must reach the consumer.
        await self._nats.jetstream().publish(
            f"kente.{self.tenant_id}.payments.payment.succeeded", json.dumps(document).encode()
        )
        return event_id

    async def until_receipt(self, payment: payment_pb2.Payment, timeout_seconds: float = 15.0) -> message_pb2.Message:
        """The receipt of a payment once it is queued."""

        async def queued() -> message_pb2.Message | None:
            found = (await self.page(source_id=payment.payment_id)).messages
            return found[0] if found else None

        message: message_pb2.Message = await eventually(queued, timeout_seconds)
        return message


def smtp_url(sandbox: Sandbox) -> str:
    """Address of the sandbox's mail server."""
    simulator = sandbox.simulators["smtp"]
    assert isinstance(simulator, Simulator)
    return f"smtp://127.0.0.1:{simulator.port}"


async def mailbox(sandbox: Sandbox, recipient: str) -> list[dict[str, Any]]:
    """What was delivered to an address, oldest first."""
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{sandbox.url}/smtp/mailbox", params={"recipient": recipient})
    found: list[dict[str, Any]] = answer.json()
    return found


def new_address(word: str = "ama") -> str:
    """An address that no other test uses; the word can be one of the mail server's magic ones."""
    return f"{word}+{uuid.uuid4().hex}@example.com"
