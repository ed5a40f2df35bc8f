"""Stand-ins for the services that list providers: the real server and contract, with a list of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from kente.common.v1.provider_pb2 import CredentialField, Provider
from kente.notifications.v1 import provider_service_pb2 as notifications_pb2
from kente.notifications.v1 import provider_service_pb2_grpc as notifications_grpc
from kente.payments.v1 import provider_service_pb2 as payments_pb2
from kente.payments.v1 import provider_service_pb2_grpc as payments_grpc

from mesh.server import Runtime, Service, Servicer, Wiring
from mesh.settings import ServiceSettings
from tests.harness import Infrastructure

MTN_MOMO = Provider(
    provider="mtn_momo",
    domain="payments",
    credential_fields=[
        CredentialField(name="api_user", description="User of the API, from the partner portal"),
        CredentialField(name="api_key", description="Key of the API user"),
        CredentialField(name="callback_key", description="Key of callbacks", optional=True),
    ],
)
STRIPE = Provider(
    provider="stripe", domain="payments", credential_fields=[CredentialField(name="secret_key", description="Secret")]
)
SMTP = Provider(
    provider="smtp", domain="notifications", credential_fields=[CredentialField(name="password", optional=True)]
)

_RESPONSES = {"payments": payments_pb2.ListProvidersResponse, "notifications": notifications_pb2.ListProvidersResponse}
_ADD: dict[str, Callable[[Any, Any], None]] = {
    "payments": payments_grpc.add_ProviderServiceServicer_to_server,
    "notifications": notifications_grpc.add_ProviderServiceServicer_to_server,
}


class Lister:
    """One domain that lists providers.

    Attributes:
        asked: how often it was asked.
        answers: cleared to let callers wait.
    """

    def __init__(self, infrastructure: Infrastructure, domain: str, providers: Sequence[Provider]) -> None:
        self.domain = domain
        self.providers = providers
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self._infrastructure = infrastructure
        self._service: Service | None = None

    async def ListProviders(self, request: Any, _context: object) -> Any:  # noqa: N802 - the contract's name
        """One provider a page, so that whoever reads only the first page misses most."""
        self.asked += 1
        await self.answers.wait()
        index = int(request.page_token or 0)
        following = str(index + 1) if index + 1 < len(self.providers) else ""
        return _RESPONSES[self.domain](providers=self.providers[index : index + 1], next_page_token=following)

    async def start(self) -> None:
        """Serves at the domain's port."""
        settings = ServiceSettings(
            port=self._infrastructure.ports[self.domain], metrics_port=0, workers=1, database_pool_size=2
        )
        mesh = self._infrastructure.settings(self.domain)
        self._service = Service(self.domain, mesh, settings, self._build)
        await self._service.start()

    async def stop(self) -> None:
        """Goes away."""
        if self._service is not None:
            await self._service.stop()
            self._service = None

    async def _build(self, _runtime: Runtime) -> Wiring:
        name = f"kente.{self.domain}.v1.ProviderService"
        return Wiring(servicers=[Servicer(name, _ADD[self.domain], self)])
