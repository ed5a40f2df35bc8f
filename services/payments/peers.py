"""What payments asks of other services: connections with their credentials, and postings in the ledger."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import grpc
from kente.common.v1 import money_pb2
from kente.connections.v1 import (
    connection_pb2,
    connection_service_pb2,
    connection_service_pb2_grpc,
    credential_service_pb2,
    credential_service_pb2_grpc,
)
from kente.ledger.v1 import ledger_pb2, ledger_service_pb2, ledger_service_pb2_grpc

from mesh.errors import Problem, Reason
from mesh.ids import derive_uuid
from mesh.money import Money
from mesh.provider.adapter import Adapter
from mesh.provider.connection import Connection, Environment
from mesh.provider.registry import ProviderFacts, Registry
from services.payments.model import Link

_PAGE_SIZE = 200
_REMEMBERED_MAX = 10_000
_ENVIRONMENTS = {
    connection_pb2.Connection.ENVIRONMENT_SANDBOX: Environment.SANDBOX,
    connection_pb2.Connection.ENVIRONMENT_PRODUCTION: Environment.PRODUCTION,
}

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class _Remembered(Generic[Key, Value]):
    """Answers kept in this process for a short while; never outside of it, since they can hold credentials."""

    def __init__(self, lifetime_seconds: float) -> None:
        self._lifetime_seconds = lifetime_seconds
        self._values: dict[Key, tuple[float, Value]] = {}

    async def get(self, key: Key, load: Callable[[], Awaitable[Value]]) -> Value:
        """The remembered value, or a new one."""
        good_until, value = self._values.get(key, (0.0, None))
        if value is not None and time.monotonic() < good_until:
            return value
        loaded = await load()
        if len(self._values) >= _REMEMBERED_MAX:
            self._values.clear()
        self._values[key] = (time.monotonic() + self._lifetime_seconds, loaded)
        return loaded

    def forget(self, key: Key) -> None:
        """Makes the next get load anew."""
        self._values.pop(key, None)


class Providers:
    """A tenant's connections, and adapters for them.

    Raises:
        IncompleteProvider: the facts of a provider are not complete; better at the start than a payment later.
    """

    def __init__(
        self,
        registry: Registry,
        channel: grpc.aio.Channel,
        *,
        public_url: str,
        links_lifetime_seconds: float,
        adapter_lifetime_seconds: float,
    ) -> None:
        self._registry = registry
        self._facts = registry.describe()
        self._adapter_classes = {facts.slug: registry.adapter_class(facts.slug) for facts in self._facts}
        self._connections = connection_service_pb2_grpc.ConnectionServiceStub(channel)
        self._credentials = credential_service_pb2_grpc.CredentialServiceStub(channel)
        self._public_url = public_url.rstrip("/")
        self._links: _Remembered[str, list[Link]] = _Remembered(links_lifetime_seconds)
        self._opened: _Remembered[tuple[str, str], Connection] = _Remembered(adapter_lifetime_seconds)
        self._owners: _Remembered[str, tuple[str, str]] = _Remembered(adapter_lifetime_seconds)

    def adapter_classes(self) -> Mapping[str, type[Adapter]]:
        """Every adapter that there is, by slug."""
        return self._adapter_classes

    def facts(self) -> list[ProviderFacts]:
        """What every provider is and can do, by slug."""
        return self._facts

    async def links(self, tenant_id: str) -> list[Link]:
        """The tenant's connections to payment providers, oldest first. The current call must be the tenant's.

        Raises:
            Problem: SERVICE_UNAVAILABLE and what else a call to connections can meet.
        """
        return await self._links.get(tenant_id, self._list_links)

    async def _list_links(self) -> list[Link]:
        links: list[Link] = []
        page_token = ""
        while True:
            request = connection_service_pb2.ListConnectionsRequest(
                domain="payments", page_size=_PAGE_SIZE, page_token=page_token
            )
            answer = await _called(self._connections.ListConnections(request))
            links.extend(Link(found.connection_id, found.provider) for found in answer.connections)
            page_token = answer.next_page_token
            if not page_token:
                return links

    async def adapter(self, tenant_id: str, connection_id: str) -> Adapter:
        """The adapter of a connection with its credentials. The current call must be the tenant's.

        Raises:
            Problem: RESOURCE_NOT_FOUND when the connection is gone; else what a call to connections can meet.
            BadCredentials: the credentials don't fit the adapter.
            LookupError: there is no such provider any more.
        """

        async def resolve() -> Connection:
            request = credential_service_pb2.ResolveCredentialsRequest(connection_id=connection_id)
            answer = await _called(self._credentials.ResolveCredentials(request))
            return self._connection_of(tenant_id, answer.connection, answer.credentials)

        return self._registry.open(await self._opened.get((tenant_id, connection_id), resolve))

    def forget(self, tenant_id: str, connection_id: str) -> None:
        """Reads the credentials anew the next time: the provider refused those that we have."""
        self._opened.forget((tenant_id, connection_id))

    async def owner_of(self, connection_id: str) -> tuple[str, str]:
        """Tenant and provider of a connection, for a callback that names only the connection.

        Raises:
            Problem: RESOURCE_NOT_FOUND when there is none in payments.
        """

        async def locate() -> tuple[str, str]:
            request = credential_service_pb2.LocateConnectionRequest(connection_id=connection_id)
            answer = await _called(self._credentials.LocateConnection(request))
            if answer.domain != "payments":
                detail = f"connection {connection_id} does not exist"
                raise Problem(Reason.RESOURCE_NOT_FOUND, detail, connection_id=connection_id)
            return answer.tenant_id, answer.provider

        return await self._owners.get(connection_id, locate)

    def _connection_of(
        self, tenant_id: str, found: connection_pb2.Connection, credentials: Mapping[str, str]
    ) -> Connection:
        return Connection(
            connection_id=found.connection_id,
            tenant_id=tenant_id,
            provider=found.provider,
            environment=_ENVIRONMENTS[found.environment],
            base_url=found.base_url or None,
            settings=dict(found.settings),
            credentials=dict(credentials),
            callback_url=f"{self._public_url}{found.webhook_path}",
        )


@dataclass(frozen=True, slots=True)
class Posting:
    """A transaction of two legs: the same amount out of one account and into the other.

    Attributes:
        transaction_id: derived from the cause, so that posting twice is impossible.
    """

    transaction_id: str
    source_id: str
    description: str
    amount: Money
    debit_account: str
    credit_account: str


class Ledger:
    """The tenant's books."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._ledger = ledger_service_pb2_grpc.LedgerServiceStub(channel)
        self._existing: set[tuple[str, str]] = set()

    async def ensure_account(
        self, tenant_id: str, account_name: str, account_type: ledger_pb2.Account.Type.ValueType, currency: str
    ) -> None:
        """Makes sure that an account exists. The current call must be the tenant's."""
        if (tenant_id, account_name) in self._existing:
            return
        request = ledger_service_pb2.CreateAccountRequest(
            request_id=derive_uuid("account", tenant_id, account_name),
            account_name=account_name,
            type=account_type,
            currency=currency,
        )
        try:
            await _called(self._ledger.CreateAccount(request))
        except Problem as problem:
            if problem.reason is not Reason.RESOURCE_ALREADY_EXISTS:
                raise
        if len(self._existing) >= _REMEMBERED_MAX:
            self._existing.clear()
        self._existing.add((tenant_id, account_name))

    async def post(self, tenant_id: str, posting: Posting) -> None:
        """Posts a transaction, or finds it posted. The current call must be the tenant's.

        Raises:
            Problem: it is not known to be booked. The ledger repeats a refusal for ever, by the transaction_id.
        """
        amount = money_pb2.Money(amount_minor=posting.amount.amount_minor, currency=posting.amount.currency)
        legs = [
            ledger_pb2.Leg(account_name=posting.debit_account, side=ledger_pb2.SIDE_DEBIT, amount=amount),
            ledger_pb2.Leg(account_name=posting.credit_account, side=ledger_pb2.SIDE_CREDIT, amount=amount),
        ]
        request = ledger_service_pb2.CreateTransactionRequest(
            # Of all that is asked for, so that the ledger tells what differs, if ever something does.
            request_id=derive_uuid("posting", *map(str, dataclasses.astuple(posting))),
            transaction_id=posting.transaction_id,
            description=posting.description,
            source_id=posting.source_id,
            legs=legs,
        )
        try:
            await _called(self._ledger.CreateTransaction(request))
        except Problem as problem:
            if problem.reason is Reason.ACCOUNT_NOT_FOUND:
                # The ledger was put back to an earlier state, in which the account was not there yet.
                self._existing -= {(tenant_id, posting.debit_account), (tenant_id, posting.credit_account)}
            raise


Response = TypeVar("Response")


async def _called(call: Awaitable[Response]) -> Response:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise Problem.from_rpc_error(error) from error
