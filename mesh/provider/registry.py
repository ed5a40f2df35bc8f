"""Finds a domain's providers by their folders, and makes adapters for connections.

A provider is a folder services/<domain>/providers/<slug>/ with an adapter.py. There is no list to edit.
"""

from __future__ import annotations

import importlib
import inspect
from collections import OrderedDict
from dataclasses import MISSING, dataclass, fields, replace
from types import ModuleType

from limits.aio.strategies import MovingWindowRateLimiter

from mesh.cache import rate_limit_storage
from mesh.provider.adapter import Adapter
from mesh.provider.connection import Connection, Environment
from mesh.provider.errors import BadCredentials
from mesh.provider.facts import faults_of
from mesh.provider.folders import provider_folders
from mesh.provider.guard import ConnectionGuard
from mesh.provider.http import ProviderClient

# Adapters that a process keeps open; the one unused for longest is closed first.
_OPEN_MAX = 1000
_TIMEOUT_RANGE_SECONDS = (0.05, 120.0)


class UnknownProvider(LookupError):  # noqa: N818 - says what is known
    """The domain has no provider of that name."""


class IncompleteProvider(Exception):  # noqa: N818 - says what is known
    """A provider's folder lacks something; the message says what."""


@dataclass(frozen=True, slots=True)
class CredentialField:
    """One credential that a connection needs."""

    name: str
    description: str
    optional: bool


@dataclass(frozen=True, slots=True)
class ProviderFacts:
    """What a provider is and can do. Countries and currencies are sorted; empty means all."""

    slug: str
    display_name: str
    domain: str
    capabilities: tuple[str, ...]
    countries: tuple[str, ...]
    currencies: tuple[str, ...]
    credential_fields: tuple[CredentialField, ...]


@dataclass(slots=True)
class _Open:
    connection: Connection
    adapter: Adapter


class Registry:
    """The providers of one domain.

    Args:
        domain: name of the service, such as "payments".
        sandbox_url: address of the mesh's own provider sandbox. Connections in the sandbox environment that have no
            base_url of their own use it; without it they use the provider's own sandbox.
        cache_url: Valkey address where replicas share quotas; in memory when empty.
    """

    def __init__(self, domain: str, *, sandbox_url: str = "", cache_url: str = "") -> None:
        self.domain = domain
        self._sandbox_url = sandbox_url.rstrip("/")
        self._cache_url = cache_url
        self._port = importlib.import_module(f"services.{domain}.provider")
        self._classes: dict[str, type[Adapter]] = {}
        self._guards: dict[str, ConnectionGuard] = {}
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._limiter: MovingWindowRateLimiter | None = None

    @property
    def capabilities(self) -> tuple[type, ...]:
        """The capability interfaces of the domain."""
        found: tuple[type, ...] = self._port.CAPABILITIES
        return found

    def slugs(self) -> list[str]:
        """Names of all providers, sorted."""
        return sorted(folder.name for folder in provider_folders(self.domain))

    def adapter_class(self, slug: str) -> type[Adapter]:
        """The adapter of a provider, its facts checked.

        Raises:
            UnknownProvider: there is no such folder.
            IncompleteProvider: its facts are not complete.
        """
        found = self._classes.get(slug)
        if found is None:
            found = self._classes[slug] = self._load(slug)
        return found

    def capabilities_of(self, slug: str) -> tuple[str, ...]:
        """Names of the capability interfaces that a provider's adapter implements, in the order of the port."""
        adapter = self.adapter_class(slug)
        return tuple(capability.__name__ for capability in self.capabilities if issubclass(adapter, capability))

    def describe(self) -> list[ProviderFacts]:
        """The facts of all providers, by slug.

        Raises:
            IncompleteProvider: the facts of one are not complete.
        """
        return [self.facts(slug) for slug in self.slugs()]

    def facts(self, slug: str) -> ProviderFacts:
        """The facts of one provider.

        Raises:
            UnknownProvider, IncompleteProvider: as adapter_class.
        """
        adapter = self.adapter_class(slug)
        return ProviderFacts(
            slug=slug,
            display_name=adapter.display_name,
            domain=self.domain,
            capabilities=self.capabilities_of(slug),
            countries=tuple(sorted(adapter.countries)),
            currencies=tuple(sorted(adapter.currencies)),
            credential_fields=tuple(
                CredentialField(field.name, str(field.metadata["description"]), field.default is not MISSING)
                for field in fields(adapter.Credentials)
            ),
        )

    def open(self, connection: Connection) -> Adapter:
        """The adapter of a connection, ready to use. Kept: opening the same connection again costs nothing.

        A connection that changed (its credentials, say) gets a new adapter; breaker, bulkhead and quota stay.

        Raises:
            UnknownProvider, IncompleteProvider: as adapter_class.
            BadCredentials: credentials or settings of the connection don't fit.
        """
        known = self._open.get(connection.connection_id)
        if known is not None and known.connection == connection:
            self._open.move_to_end(connection.connection_id)
            return known.adapter
        adapter = self._build(connection)
        self._open[connection.connection_id] = _Open(connection, adapter)
        self._open.move_to_end(connection.connection_id)
        # The adapter that is replaced is not closed: a call may be using it, and its sockets end when it is collected.
        while len(self._open) > _OPEN_MAX:
            forgotten, _ = self._open.popitem(last=False)
            self._guards.pop(forgotten).forget()
        return adapter

    def guard_of(self, connection_id: str) -> ConnectionGuard | None:
        """Breaker, bulkhead and quota of a connection, if this process has opened it."""
        return self._guards.get(connection_id)

    async def close(self) -> None:
        """Closes every adapter."""
        while self._open:
            _, opened = self._open.popitem()
            await opened.adapter.http.close()
        self._guards.clear()

    def _build(self, connection: Connection) -> Adapter:
        adapter_class = self.adapter_class(connection.provider)
        guard = self._guards.get(connection.connection_id)
        if guard is None:
            guard = self._guards[connection.connection_id] = ConnectionGuard(
                connection.provider,
                connection.connection_id,
                adapter_class.client_policy,
                adapter_class.rate_quota,
                self._shared_limiter(),
            )
        client = ProviderClient(
            connection,
            timeout_seconds=_timeout_seconds(connection, adapter_class.timeout_seconds),
            policy=adapter_class.client_policy,
            guard=guard,
        )
        return adapter_class(self._with_address(connection, adapter_class), client)

    def _with_address(self, connection: Connection, adapter_class: type[Adapter]) -> Connection:
        own_sandbox_is_http = adapter_class.base_urls[Environment.SANDBOX].startswith("http")
        if connection.base_url or connection.environment is not Environment.SANDBOX or not self._sandbox_url:
            return connection
        if not own_sandbox_is_http:
            return connection
        return replace(connection, base_url=f"{self._sandbox_url}/{connection.provider}")

    def _shared_limiter(self) -> MovingWindowRateLimiter:
        if self._limiter is None:
            self._limiter = MovingWindowRateLimiter(rate_limit_storage(self._cache_url))
        return self._limiter

    def _load(self, slug: str) -> type[Adapter]:
        folder = next((folder for folder in provider_folders(self.domain) if folder.name == slug), None)
        if folder is None:
            raise UnknownProvider(f"{self.domain} has no provider {slug!r}: it has {', '.join(self.slugs()) or 'none'}")
        missing = [name for name in ("__init__.py", "adapter.py", "simulator.py") if not (folder / name).is_file()]
        if missing:
            raise IncompleteProvider(f"provider {slug} of {self.domain}: {', '.join(missing)} is missing")
        module = importlib.import_module(f"services.{self.domain}.providers.{slug}.adapter")
        adapter = _adapter_in(module, f"provider {slug} of {self.domain}")
        faults = faults_of(adapter, slug, self.capabilities)
        if faults:
            raise IncompleteProvider(f"provider {slug} of {self.domain}: {'; '.join(faults)}")
        return adapter


def _adapter_in(module: ModuleType, where: str) -> type[Adapter]:
    found = [
        candidate
        for _, candidate in inspect.getmembers(module, inspect.isclass)
        if issubclass(candidate, Adapter) and candidate.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise IncompleteProvider(f"{where}: adapter.py defines {len(found)} adapter classes, not one")
    return found[0]


def _timeout_seconds(connection: Connection, default: float) -> float:
    text = connection.settings.get("timeout_seconds", "")
    if not text:
        return default
    low, high = _TIMEOUT_RANGE_SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not low <= seconds <= high:
        raise BadCredentials(f"setting timeout_seconds of {connection.provider} is not between {low} and {high}")
    return seconds
