"""How often a tenant may call, by the rate class of the method option."""

from __future__ import annotations

import time

from kente.options.v1.options_pb2 import Rate
from limits import RateLimitItem, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.aio.strategies import FixedWindowRateLimiter

from mesh.cache import rate_limit_storage
from mesh.errors import Problem, Reason
from mesh.interceptors.chain import Answer, Exchange, Proceed
from mesh.settings import MeshSettings


class RateLimit:
    """Counts calls by tenant, or by address where there is no tenant yet."""

    def __init__(self, settings: MeshSettings) -> None:
        self._limiter = FixedWindowRateLimiter(rate_limit_storage(settings.cache_url))
        self._limits: dict[int, RateLimitItem] = {
            Rate.RATE_READ: RateLimitItemPerSecond(settings.read_rate_per_second),
            Rate.RATE_WRITE: RateLimitItemPerSecond(settings.write_rate_per_second),
            Rate.RATE_CREDENTIAL: RateLimitItemPerMinute(settings.credential_rate_per_minute),
        }

    async def __call__(self, exchange: Exchange, proceed: Proceed) -> Answer:
        """Refuses a call over the limit, and says when to come back."""
        rate, principal = exchange.method.policy.rate, exchange.call.principal
        limit = self._limits.get(rate)
        if limit is None or (principal is not None and principal.kind == "service"):
            return await proceed(exchange)
        caller = exchange.call.tenant_id or exchange.metadata.get("kente-client-address") or _address(exchange)
        if not await self._limiter.hit(limit, Rate.Name(rate), caller):
            window = await self._limiter.get_window_stats(limit, Rate.Name(rate), caller)
            raise Problem(
                Reason.RATE_LIMITED,
                f"more than {limit.amount} calls in {limit.get_expiry()} s",
                retry_after_seconds=max(0.05, window.reset_time - time.time()),
                limit=str(limit.amount),
            )
        return await proceed(exchange)


def _address(exchange: Exchange) -> str:
    # "ipv4:127.0.0.1:51234": the port differs from call to call.
    return (exchange.context.peer() or "").rpartition(":")[0]
