"""How often a tenant may call, by the rate class of the method option."""

from __future__ import annotations

import time
from typing import NamedTuple

import structlog
from kente.options.v1.options_pb2 import Audience, Rate
from redis.exceptions import RedisError

from mesh.cache import rate_limit_storage
from mesh.errors import Problem, Reason
from mesh.interceptors.chain import Answer, Exchange, Proceed
from mesh.settings import MeshSettings

log = structlog.get_logger()

_ANONYMOUS = Audience.AUDIENCE_ANONYMOUS
# Metadata in which a service passes on the address of an anonymous caller. Believed from services only.
CLIENT_ADDRESS = "kente-client-address"


class _Limit(NamedTuple):
    """So many calls of a rate class in so many seconds, which begin with the first of them."""

    rate: str
    calls: int
    seconds: int


class RateLimit:
    """Counts calls by tenant, or by address where there is no tenant yet."""

    def __init__(self, settings: MeshSettings) -> None:
        self._counters = rate_limit_storage(settings.cache_url)
        self._limits: dict[int, _Limit] = {
            Rate.RATE_READ: _Limit("RATE_READ", settings.read_rate_per_second, 1),
            Rate.RATE_WRITE: _Limit("RATE_WRITE", settings.write_rate_per_second, 1),
            Rate.RATE_CREDENTIAL: _Limit("RATE_CREDENTIAL", settings.credential_rate_per_minute, 60),
        }

    async def __call__(self, exchange: Exchange, proceed: Proceed) -> Answer:
        """Refuses a call over the limit, and says when to come back."""
        limit, caller = self._limits.get(exchange.method.policy.rate), _caller(exchange)
        if limit is None or not caller:
            return await proceed(exchange)
        retry_after_seconds = await self._retry_after_seconds(limit, caller)
        if retry_after_seconds is not None:
            raise Problem(
                Reason.RATE_LIMITED,
                f"more than {limit.calls} calls in {limit.seconds} s",
                retry_after_seconds=retry_after_seconds,
                limit=str(limit.calls),
            )
        return await proceed(exchange)

    async def _retry_after_seconds(self, limit: _Limit, caller: str) -> float | None:
        """When to come back, for a call over the limit; None for one within it."""
        counter = f"{limit.rate}/{caller}"
        try:
            if await self._counters.incr(counter, limit.seconds) <= limit.calls:
                return None
            end = await self._counters.get_expiry(counter)
        except (RedisError, OSError) as error:
            # Counting protects us from too much work; it must not become a reason to do none.
            log.warning("rate_limit_not_counted", error=type(error).__name__)
            return None
        return max(0.05, end - time.time())


def _caller(exchange: Exchange) -> str:
    """Whose calls to count: a tenant's, or an address's where there is no tenant yet. Empty for a service's own."""
    principal = exchange.call.principal
    if principal is not None and principal.kind == "service":
        # A service that passes on an anonymous call, as the gateway does, says where it came from.
        is_anonymous = exchange.method.policy.audience == _ANONYMOUS
        return exchange.metadata.get(CLIENT_ADDRESS, "") if is_anonymous else ""
    return exchange.call.tenant_id or _address(exchange)


def _address(exchange: Exchange) -> str:
    # "ipv4:127.0.0.1:51234": the port differs from call to call.
    return (exchange.context.peer() or "").rpartition(":")[0]
