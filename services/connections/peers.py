"""What connections asks of the other services: which providers there are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import grpc
import structlog
from kente.common.v1 import provider_pb2
from kente.notifications.v1 import provider_service_pb2 as notifications_pb2
from kente.notifications.v1 import provider_service_pb2_grpc as notifications_grpc
from kente.payments.v1 import provider_service_pb2 as payments_pb2
from kente.payments.v1 import provider_service_pb2_grpc as payments_grpc

from mesh.cache import open_cache
from services.connections.model import CredentialField, Provider

log = structlog.get_logger()

# One domain that hangs must not use up the caller's patience when another one lists the provider.
_TIMEOUT_SECONDS = 3.0
_PAGE_SIZE = 200

Page = payments_pb2.ListProvidersResponse | notifications_pb2.ListProvidersResponse
# Asks one domain for the page that a page token stands for.
Ask = Callable[[str], Awaitable[Page]]


def payments(channel: grpc.aio.Channel) -> Ask:
    """Asks the payments service."""
    stub = payments_grpc.ProviderServiceStub(channel)

    async def ask(page_token: str) -> Page:
        request = payments_pb2.ListProvidersRequest(page_size=_PAGE_SIZE, page_token=page_token)
        return await stub.ListProviders(request, timeout=_TIMEOUT_SECONDS)

    return ask


def notifications(channel: grpc.aio.Channel) -> Ask:
    """Asks the notifications service."""
    stub = notifications_grpc.ProviderServiceStub(channel)

    async def ask(page_token: str) -> Page:
        request = notifications_pb2.ListProvidersRequest(page_size=_PAGE_SIZE, page_token=page_token)
        return await stub.ListProviders(request, timeout=_TIMEOUT_SECONDS)

    return ask


@dataclass(frozen=True, slots=True)
class Listing:
    """The providers that are known now.

    Attributes:
        providers: by slug.
        domains_away: domains that gave no answer, so that a provider of theirs is missing here.
    """

    providers: Mapping[str, Provider]
    domains_away: tuple[str, ...]


class ProviderCatalogue:
    """The providers of all domains, each domain's remembered for a while."""

    def __init__(self, asks: Mapping[str, Ask], *, remember_seconds: float) -> None:
        """Sets out whom to ask.

        Args:
            asks: by domain. A slug that two domains list is the first one's.
            remember_seconds: how long an answer is used again.
        """
        self._asks = asks
        self._cache = open_cache("", "connections-providers:", ttl_seconds=remember_seconds)

    async def list(self) -> Listing:
        """Everything that the domains list; those that are away are named, and asked again the next time."""
        answers = await asyncio.gather(*(self._of_domain(domain) for domain in self._asks))
        providers: dict[str, Provider] = {}
        for answer in answers:
            for provider in answer or ():
                providers.setdefault(provider.slug, provider)
        away = [domain for domain, answer in zip(self._asks, answers, strict=True) if answer is None]
        return Listing(providers, tuple(away))

    async def _of_domain(self, domain: str) -> tuple[Provider, ...] | None:
        known: tuple[Provider, ...] | None = await self._cache.get(domain)
        if known is not None:
            return known
        try:
            providers = await self._ask(domain)
        except grpc.aio.AioRpcError as error:
            log.warning("providers_not_listed", domain=domain, code=error.code().name)
            return None
        await self._cache.set(domain, providers)
        return providers

    async def _ask(self, domain: str) -> tuple[Provider, ...]:
        providers: list[Provider] = []
        page_token = ""
        while True:
            page = await self._asks[domain](page_token)
            providers.extend(_provider(message, domain) for message in page.providers)
            page_token = page.next_page_token
            if not page_token:
                return tuple(providers)


def _provider(message: provider_pb2.Provider, domain: str) -> Provider:
    fields = tuple(
        CredentialField(field.name, field.description, field.optional) for field in message.credential_fields
    )
    return Provider(message.provider, domain, fields)
