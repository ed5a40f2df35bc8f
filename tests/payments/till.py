"""The payments service as a client, an operator and the other services see it, in few words."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import grpc
import httpx
import pytest
from kente.common.v1 import money_pb2
from kente.connections.v1 import connection_pb2, connection_service_pb2, connection_service_pb2_grpc
from kente.ledger.v1 import ledger_pb2, ledger_service_pb2, ledger_service_pb2_grpc
from kente.payments.v1 import (
    payment_pb2,
    payment_service_pb2,
    payment_service_pb2_grpc,
    webhook_service_pb2_grpc,
)

from mesh.errors import Problem
from mesh.ids import derive_uuid
from mesh.provider.registry import Registry
from mesh.sandbox.server import Sandbox
from tests.harness import PASSWORD, TestMesh, eventually

SCOPES = ("payments:read", "payments:write", "connections:read", "connections:write", "ledger:read", "ledger:write")
TERMINAL_STATES = {
    payment_pb2.Payment.STATE_SUCCEEDED,
    payment_pb2.Payment.STATE_FAILED,
    payment_pb2.Payment.STATE_CANCELED,
    payment_pb2.Payment.STATE_EXPIRED,
}
# Numbers of Ghana whose last three digits tell the simulator of MTN what to do.
APPROVES = "+233241234567"
ONGOING = "+233241234453"


def new_request_id() -> str:
    """A caller's key for one request."""
    return str(uuid.uuid4())


def ghana(ending: int) -> str:
    """A number of MTN Ghana with the last three digits that make a scenario of the sandbox."""
    return f"+233241234{ending}"


def money(amount_minor: int, currency: str = "GHS") -> money_pb2.Money:
    """An amount."""
    return money_pb2.Money(amount_minor=amount_minor, currency=currency)


def payment_request(msisdn: str = APPROVES, **fields: Any) -> payment_service_pb2.CreatePaymentRequest:
    """A request for a wallet payment of GHS 10.50; what is not given is as it should be."""
    values: dict[str, Any] = {
        "request_id": new_request_id(),
        "amount": money(1050),
        "method": payment_pb2.PaymentMethod(mobile_money=payment_pb2.MobileMoney(msisdn=msisdn)),
        "description": "Order 1",
    }
    return payment_service_pb2.CreatePaymentRequest(**(values | fields))


def card_request(card: str = "pm_card_visa", **fields: Any) -> payment_service_pb2.CreatePaymentRequest:
    """A request for a card payment of USD 20.00, captured by hand."""
    values: dict[str, Any] = {
        "amount": money(2000, "USD"),
        "method": payment_pb2.PaymentMethod(card=payment_pb2.Card(token=card, return_url="https://shop.test/back")),
        "capture_method": payment_pb2.CAPTURE_METHOD_MANUAL,
    }
    return payment_request(**(values | fields))


async def refusal(call: Awaitable[object]) -> Problem:
    """The problem that a call is refused with."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return Problem.from_rpc_error(refused.value)


@dataclass(frozen=True, slots=True)
class World:
    """The services under test, the sandbox, and where it sends its callbacks."""

    mesh: TestMesh
    sandbox: Sandbox
    gateway_url: str


class Till:
    """One tenant's client, with what the tests look at afterwards."""

    def __init__(self, world: World, tenant_id: str) -> None:
        self.world = world
        self.tenant_id = tenant_id
        mesh = world.mesh
        self.payments = payment_service_pb2_grpc.PaymentServiceStub(mesh.client("payments", tenant_id, SCOPES))
        self.connections = connection_service_pb2_grpc.ConnectionServiceStub(
            mesh.client("connections", tenant_id, SCOPES)
        )
        self.ledger = ledger_service_pb2_grpc.LedgerServiceStub(mesh.client("ledger", tenant_id, SCOPES))
        self.webhooks = webhook_service_pb2_grpc.WebhookServiceStub(mesh.peer("payments", "gateway"))

    async def connect(self, provider: str = "mtn_momo", **fields: Any) -> connection_pb2.Connection:
        """A new connection to a provider of the sandbox, with short patience."""
        adapter = Registry("payments").adapter_class(provider)
        values: dict[str, Any] = {
            "request_id": new_request_id(),
            "provider": provider,
            "environment": connection_pb2.Connection.ENVIRONMENT_SANDBOX,
            "settings": {**adapter.sandbox_settings, "timeout_seconds": "0.4", **fields.pop("settings", {})},
            "credentials": adapter.sandbox_credentials,
        }
        request = connection_service_pb2.CreateConnectionRequest(**(values | fields))
        created: connection_pb2.Connection = (await self.connections.CreateConnection(request)).connection
        return created

    async def listed(self) -> list[connection_pb2.Connection]:
        """The tenant's connections."""
        request = connection_service_pb2.ListConnectionsRequest()
        return list((await self.connections.ListConnections(request)).connections)

    async def disconnect(self, connection_id: str) -> None:
        """Deletes a connection."""
        request = connection_service_pb2.DeleteConnectionRequest(
            request_id=new_request_id(), connection_id=connection_id
        )
        await self.connections.DeleteConnection(request)

    async def create(
        self, request: payment_service_pb2.CreatePaymentRequest | None = None, **fields: Any
    ) -> payment_pb2.Payment:
        """A new payment, as CreatePayment answers."""
        answer = await self.payments.CreatePayment(request or payment_request(**fields))
        return answer.payment

    async def get(self, payment_id: str) -> payment_pb2.Payment:
        """The payment now."""
        request = payment_service_pb2.GetPaymentRequest(payment_id=payment_id)
        return (await self.payments.GetPayment(request)).payment

    async def ended(self, payment_id: str, timeout_seconds: float = 15.0) -> payment_pb2.Payment:
        """The payment once it has ended and, if there is money, is booked."""

        async def check() -> payment_pb2.Payment | None:
            found = await self.get(payment_id)
            booked = found.ledger_state != payment_pb2.Payment.LEDGER_STATE_QUEUED
            return found if found.state in TERMINAL_STATES and booked else None

        done: payment_pb2.Payment = await eventually(check, timeout_seconds)
        return done

    async def capture(
        self, payment_id: str, amount: money_pb2.Money | None = None, request_id: str = ""
    ) -> payment_pb2.Payment:
        """The payment after a capture."""
        request = payment_service_pb2.CapturePaymentRequest(
            request_id=request_id or new_request_id(), payment_id=payment_id, amount=amount
        )
        return (await self.payments.CapturePayment(request)).payment

    async def cancel(self, payment_id: str) -> payment_pb2.Payment:
        """The payment after a cancellation."""
        request = payment_service_pb2.CancelPaymentRequest(request_id=new_request_id(), payment_id=payment_id)
        return (await self.payments.CancelPayment(request)).payment

    async def refund(self, payment_id: str, amount: money_pb2.Money | None = None, **fields: Any) -> payment_pb2.Refund:
        """A new refund, as CreateRefund answers."""
        values: dict[str, Any] = {"request_id": new_request_id(), "payment_id": payment_id, "amount": amount}
        request = payment_service_pb2.CreateRefundRequest(**(values | fields))
        return (await self.payments.CreateRefund(request)).refund

    async def refund_ended(self, refund: payment_pb2.Refund, timeout_seconds: float = 15.0) -> payment_pb2.Refund:
        """The refund once it has ended and, if there is money, is booked."""
        request = payment_service_pb2.GetRefundRequest(payment_id=refund.payment_id, refund_id=refund.refund_id)
        ends = {payment_pb2.Refund.STATE_SUCCEEDED, payment_pb2.Refund.STATE_FAILED}

        async def check() -> payment_pb2.Refund | None:
            found = (await self.payments.GetRefund(request)).refund
            booked = found.ledger_state != payment_pb2.Payment.LEDGER_STATE_QUEUED
            return found if found.state in ends and booked else None

        done: payment_pb2.Refund = await eventually(check, timeout_seconds)
        return done

    async def entries(self, payment_id: str) -> list[ledger_pb2.Entry]:
        """What the ledger holds because of a payment."""
        request = ledger_service_pb2.ListEntriesRequest(source_id=payment_id)
        return list((await self.ledger.ListEntries(request)).entries)

    async def balance(self, account_name: str) -> int:
        """Balance of an account in minor units."""
        request = ledger_service_pb2.GetBalanceRequest(account_name=account_name)
        return int((await self.ledger.GetBalance(request)).balance.amount_minor)

    async def fault(self, operation: str, fault: str, count: int | None = 1, provider: str = "mtn_momo") -> None:
        """Plans a fault of the sandbox."""
        async with httpx.AsyncClient(base_url=self.world.sandbox.url) as http:
            body = {"operation": operation, "fault": fault, "count": count}
            (await http.put(f"/_faults/{provider}", json=body)).raise_for_status()

    async def clear_faults(self, provider: str = "mtn_momo") -> None:
        """Makes the sandbox behave again."""
        async with httpx.AsyncClient(base_url=self.world.sandbox.url) as http:
            (await http.delete(f"/_faults/{provider}")).raise_for_status()

    async def movements(self, keys: Sequence[str], operation: str, provider: str = "mtn_momo") -> list[dict[str, Any]]:
        """How often the provider moved money for some of its keys."""
        async with httpx.AsyncClient(base_url=self.world.sandbox.url) as http:
            state = (await http.get(f"/_state/{provider}")).json()
        return [each for each in state["movements"] if each["operation"] == operation and each["key"] in keys]

    async def collects(self, payment: payment_pb2.Payment) -> int:
        """How often MTN took money for a payment."""
        keys = [derive_uuid("attempt", attempt.attempt_id) for attempt in payment.attempts]
        return len(await self.movements(keys, "collect"))

    async def rows(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Rows of the payments schema, as an operator with the owner's rights sees them."""
        connection = await asyncpg.connect(self.world.mesh.infrastructure.postgres.admin_url)
        try:
            await connection.execute("SET search_path = payments")
            return list(await connection.fetch(query, *arguments))
        finally:
            await connection.close()

    def role_url(self) -> str:
        """DSN of the service's own role."""
        return self.world.mesh.infrastructure.postgres.url("kente_payments", PASSWORD)
