"""What notifications asks of other services: the tenant's connections with their credentials, and payments."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar, cast

import grpc
from aiocache import SimpleMemoryCache
from kente.connections.v1 import (
    connection_pb2,
    connection_service_pb2,
    connection_service_pb2_grpc,
    credential_service_pb2,
    credential_service_pb2_grpc,
)
from kente.payments.v1 import payment_pb2, payment_service_pb2, payment_service_pb2_grpc

from mesh.errors import Problem
from mesh.money import Money
from mesh.provider.adapter import Adapter
from mesh.provider.connection import Connection, Environment
from mesh.provider.registry import ProviderFacts, Registry
from services.notifications.model import ConnectionSummary, PaidPayment
from services.notifications.provider import Email

_PAGE_SIZE = 200
_ENVIRONMENTS = {
    connection_pb2.Connection.ENVIRONMENT_SANDBOX: Environment.SANDBOX,
    connection_pb2.Connection.ENVIRONMENT_PRODUCTION: Environment.PRODUCTION,
}

Response = TypeVar("Response")


class Providers:
    """A tenant's connections to message providers, and adapters for them. The current call must be the tenant's."""

    def __init__(
        self,
        registry: Registry,
        channel: grpc.aio.Channel,
        *,
        public_url: str,
        sandbox_url: str,
        connections_cache_seconds: float,
    ) -> None:
        self._registry = registry
        self._connections = connection_service_pb2_grpc.ConnectionServiceStub(channel)
        self._credentials = credential_service_pb2_grpc.CredentialServiceStub(channel)
        self._public_url = public_url.rstrip("/")
        self._sandbox_url = sandbox_url.rstrip("/")
        self._remembered = SimpleMemoryCache(ttl=connections_cache_seconds)

    def facts(self) -> list[ProviderFacts]:
        """What every provider is and can do, by slug."""
        return self._registry.describe()

    async def email_connections(self, tenant_id: str) -> list[ConnectionSummary]:
        """The tenant's connections that can carry e-mail, oldest first.

        Raises:
            Problem: what a call to connections can meet.
        """
        remembered = await self._remembered.get(tenant_id)
        if remembered:
            return cast("list[ConnectionSummary]", remembered)
        carriers = {facts.slug for facts in self.facts() if Email.__name__ in facts.capabilities}
        found = [summary for summary in await self._list_connections() if summary.provider in carriers]
        if found:
            # That there is none is not remembered: the first one made is used at once.
            await self._remembered.set(tenant_id, found)
        return found

    async def forget(self, tenant_id: str) -> None:
        """Lists the tenant's connections anew the next time: one of them was not as remembered."""
        await self._remembered.delete(tenant_id)

    async def open(self, tenant_id: str, connection_id: str) -> Adapter:
        """The adapter of a connection with its credentials.

        Raises:
            Problem: RESOURCE_NOT_FOUND when the connection is gone; else what a call to connections can meet.
            BadCredentials: credentials or settings don't fit the adapter.
            LookupError: there is no such provider any more.
        """
        request = credential_service_pb2.ResolveCredentialsRequest(connection_id=connection_id)
        answer = await _called(self._credentials.ResolveCredentials(request))
        found = answer.connection
        return self._registry.open(
            Connection(
                connection_id=found.connection_id,
                tenant_id=tenant_id,
                provider=found.provider,
                environment=_ENVIRONMENTS[found.environment],
                base_url=found.base_url or None,
                settings=self._settings_of(found),
                credentials=dict(answer.credentials),
                callback_url=f"{self._public_url}{found.webhook_path}",
            )
        )

    def _settings_of(self, connection: connection_pb2.Connection) -> dict[str, str]:
        """The settings, with the address of our own sandbox in place of {sandbox_url}."""
        if connection.environment != connection_pb2.Connection.ENVIRONMENT_SANDBOX:
            return dict(connection.settings)
        return {name: value.replace("{sandbox_url}", self._sandbox_url) for name, value in connection.settings.items()}

    async def _list_connections(self) -> list[ConnectionSummary]:
        found: list[ConnectionSummary] = []
        page_token = ""
        while True:
            request = connection_service_pb2.ListConnectionsRequest(
                domain="notifications", page_size=_PAGE_SIZE, page_token=page_token
            )
            answer = await _called(self._connections.ListConnections(request))
            found.extend(ConnectionSummary(each.connection_id, each.provider) for each in answer.connections)
            page_token = answer.next_page_token
            if not page_token:
                return found


class Payments:
    """Payments that receipts are about. The current call must be the tenant's."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._payments = payment_service_pb2_grpc.PaymentServiceStub(channel)

    async def read(self, payment_id: str) -> PaidPayment:
        """A payment with its payer in the clear, which its events don't hold.

        Raises:
            Problem: RESOURCE_NOT_FOUND; else what a call to payments can meet.
        """
        request = payment_service_pb2.GetPaymentRequest(payment_id=payment_id)
        payment = (await _called(self._payments.GetPayment(request))).payment
        return PaidPayment(
            payment_id=payment.payment_id,
            amount=Money(payment.captured_amount.amount_minor, payment.captured_amount.currency),
            payer_email=payment.payer.email,
            payer_name=payment.payer.display_name,
            description=payment.description,
            merchant_reference=payment.merchant_reference,
            method=_describe_method(payment.method),
        )


def _describe_method(method: payment_pb2.PaymentMethod) -> str:
    kind = method.WhichOneof("kind")
    if kind == "mobile_money":
        # Enough for a payer with two wallets to know which.
        return f"Mobile money, number ending in {method.mobile_money.msisdn[-3:]}"
    return "Card" if kind == "card" else ""


async def _called(call: Awaitable[Response]) -> Response:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise Problem.from_rpc_error(error) from None
