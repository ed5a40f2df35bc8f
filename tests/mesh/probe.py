"""A service on the mesh whose handlers are whatever a test needs. Everything around them is the real thing."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
import pytest
from kente.identity.v1.tenant_service_pb2_grpc import add_TenantServiceServicer_to_server
from kente.identity.v1.token_service_pb2_grpc import add_TokenServiceServicer_to_server
from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1.ledger_service_pb2 import CreateAccountRequest, CreateAccountResponse
from kente.ledger.v1.ledger_service_pb2_grpc import LedgerServiceStub, add_LedgerServiceServicer_to_server
from kente.payments.v1.payment_service_pb2_grpc import add_PaymentServiceServicer_to_server

from mesh.errors import Problem
from mesh.server import Runtime, Service, Servicer, Wiring
from mesh.settings import ServiceSettings
from tests.harness import Infrastructure

if TYPE_CHECKING:
    from kente.identity.v1.token_service_pb2_grpc import TokenServiceAsyncStub
    from kente.ledger.v1.ledger_service_pb2_grpc import LedgerServiceAsyncStub
    from kente.payments.v1.payment_service_pb2_grpc import PaymentServiceAsyncStub

    LedgerClient: TypeAlias = LedgerServiceAsyncStub
    PaymentClient: TypeAlias = PaymentServiceAsyncStub
    TokenClient: TypeAlias = TokenServiceAsyncStub
else:
    # The types of asynchronous clients exist for the type checker only.
    LedgerClient = PaymentClient = TokenClient = object

SCOPES = ("ledger:read", "ledger:write", "payments:read", "payments:write")
LEDGER, TOKENS = "kente.ledger.v1.LedgerService", "kente.identity.v1.TokenService"
TENANTS, PAYMENTS = "kente.identity.v1.TenantService", "kente.payments.v1.PaymentService"
CREATE_ACCOUNT = f"/{LEDGER}/CreateAccount"

Handler = Callable[[Any, Any], Any]


class Probe:
    """Handlers by the name of the RPC. What a test puts in is gone after it."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        self.wiring = Wiring(
            servicers=[
                Servicer(LEDGER, add_LedgerServiceServicer_to_server, self),
                Servicer(TOKENS, add_TokenServiceServicer_to_server, self),
                Servicer(TENANTS, add_TenantServiceServicer_to_server, self),
                Servicer(PAYMENTS, add_PaymentServiceServicer_to_server, self),
            ]
        )
        self.runtime: Runtime | None = None

    def __getattr__(self, name: str) -> Handler:
        """The servicer's method of that name: the handler that is there when it is called."""
        if not name[0].isupper():
            raise AttributeError(name)

        def answer(request: object, context: object) -> Any:
            return self.handlers[name](request, context)

        return answer

    async def build(self, runtime: Runtime) -> Wiring:
        """Wires the service, as services.<domain>.__main__ does."""
        self.runtime = runtime
        return self.wiring

    async def start(
        self,
        infrastructure: Infrastructure,
        name: str = "ledger",
        *,
        pool_size: int = 6,
        **overrides: Any,
    ) -> Service:
        """Serves in the name and at the address of one of the services.

        Args:
            infrastructure: what it runs on.
            name: which service.
            pool_size: most database connections.
            overrides: parts of the wiring, and shared settings.
        """
        parts = {part: overrides.pop(part) for part in ("jobs", "background", "close") if part in overrides}
        self.wiring = replace(self.wiring, **parts)
        limits = {"read_rate_per_second": 100_000, "write_rate_per_second": 100_000}
        mesh = infrastructure.settings(name, **(limits | overrides))
        own = {"port": infrastructure.ports[name], "metrics_port": 0, "database_pool_size": pool_size}
        settings = ServiceSettings(**own)
        service = Service(name, mesh, settings, self.build)
        await service.start()
        return service


class Counted:
    """A handler of CreateAccount that counts its runs, and answers with its count."""

    def __init__(self, before: Callable[[int], Awaitable[None]] | None = None) -> None:
        self.runs = 0
        self._before = before

    async def __call__(self, request: CreateAccountRequest, _context: object) -> CreateAccountResponse:
        """Answers, after what the test wants to happen in this run."""
        self.runs += 1
        run = self.runs
        if self._before is not None:
            await self._before(run)
        return CreateAccountResponse(account=account(request.account_name, f"run {run}"))


def account(name: str, display_name: str = "") -> ledger_pb2.Account:
    """An account to answer with."""
    return ledger_pb2.Account(account_name=name, display_name=display_name)


def create_request(request_id: str | None = None, **fields: Any) -> CreateAccountRequest:
    """A valid request, with a request_id of its own unless one is given."""
    values: dict[str, Any] = {
        "account_name": "assets:bank",
        "type": ledger_pb2.Account.TYPE_ASSET,
        "currency": "GHS",
    } | fields
    return CreateAccountRequest(request_id=request_id or str(uuid.uuid4()), **values)


async def refused(call: Awaitable[Any]) -> Problem:
    """The problem that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return Problem.from_rpc_error(raised.value)


async def reason_of(call: Awaitable[Any]) -> str:
    """How a call ends: "OK", or the name of the reason."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return Problem.from_rpc_error(error).reason_name
    return "OK"


def ledger_stub(channel: grpc.aio.Channel) -> LedgerClient:
    """A typed client."""
    return LedgerServiceStub(channel)


def counts(reasons: Iterable[str]) -> dict[str, int]:
    """How often each reason occurs."""
    found: dict[str, int] = {}
    for reason in reasons:
        found[reason] = found.get(reason, 0) + 1
    return found
