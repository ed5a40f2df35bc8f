"""What stands between a connection and its provider: bulkhead, circuit breaker and quota.

A guard lives as long as its connection is known to the process, so that a breaker outlives one adapter instance.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum

from limits import RateLimitItemPerSecond
from limits.aio.strategies import MovingWindowRateLimiter
from purgatory.domain.model import CLOSED, HALF_OPENED, Context, OpenedState

from mesh.provider.connection import ClientPolicy, RateQuota
from mesh.provider.errors import CircuitOpen, NotSent, RateLimited
from mesh.provider.metrics import BREAKER, BREAKER_VALUES


class Health(Enum):
    """What one call says about the provider's health."""

    NOTHING = "nothing"
    GOOD = "good"
    BAD = "bad"


@dataclass(slots=True)
class Verdict:
    """Filled in by the caller while it is admitted; a call that ended for our own reasons says nothing."""

    health: Health = Health.NOTHING


class ConnectionGuard:
    """Admits calls of one connection to its provider."""

    def __init__(
        self,
        provider: str,
        connection_id: str,
        policy: ClientPolicy,
        quota: RateQuota | None,
        limiter: MovingWindowRateLimiter,
    ) -> None:
        self.provider = provider
        self.connection_id = connection_id
        self._policy = policy
        self._slots = asyncio.Semaphore(policy.concurrent_requests)
        # Only the state machine of purgatory: its own context manager would count a cancelled call as a success.
        self._breaker = Context(connection_id, policy.breaker_failures, policy.breaker_reset_seconds)
        self._probing = False
        self._quota = RateLimitItemPerSecond(quota.requests, quota.per_seconds) if quota else None
        self._limiter = limiter
        self._publish()

    @property
    def breaker_state(self) -> str:
        """State of the breaker: "closed", "half-opened" or "opened"."""
        state: str = self._breaker.state
        return state

    @asynccontextmanager
    async def admit(self, wait_seconds: float) -> AsyncIterator[Verdict]:
        """Lets one try through, and learns from its verdict.

        Args:
            wait_seconds: how long the caller can wait for its turn; the policy's queue_seconds cap it.

        Raises:
            CircuitOpen: the breaker is open, or half-open with its one try under way.
            NotSent: no turn came in time.
            RateLimited: the quota is used up for longer than the wait.
        """
        wait_seconds = min(wait_seconds, self._policy.queue_seconds)
        give_up = time.monotonic() + wait_seconds
        try:
            async with asyncio.timeout(wait_seconds):
                await self._slots.acquire()
        except TimeoutError:
            raise NotSent(f"{self.provider}: too many calls at once on this connection") from None
        try:
            probing = self._enter_breaker()
            verdict = Verdict()
            try:
                await self._take_quota(give_up)
                yield verdict
            finally:
                self._leave_breaker(verdict.health, probing=probing)
        finally:
            self._slots.release()

    def reset_breaker(self) -> None:
        """Closes the breaker, on an operator's word."""
        self._breaker = Context(self.connection_id, self._policy.breaker_failures, self._policy.breaker_reset_seconds)
        self._probing = False
        self._publish()

    def forget(self) -> None:
        """Takes the connection out of the metrics."""
        BREAKER.remove(self.provider, self.connection_id)

    def _enter_breaker(self) -> bool:
        try:
            self._breaker.handle_new_request()
        except OpenedState:
            raise CircuitOpen(f"{self.provider}: the breaker of this connection is open") from None
        self._publish()
        if self._breaker.state != HALF_OPENED:
            return False
        # purgatory lets everybody through when half-open; one try is enough to learn.
        if self._probing:
            raise CircuitOpen(f"{self.provider}: the breaker of this connection is half-open and being tried")
        self._probing = True
        return True

    def _leave_breaker(self, health: Health, *, probing: bool) -> None:
        if probing:
            self._probing = False
        # A slow call that began before the breaker opened must not close it: only the probe may.
        if self._breaker.state == CLOSED or probing:
            if health is Health.BAD:
                self._breaker.handle_exception(NotSent())
            elif health is Health.GOOD:
                self._breaker.handle_end_request()
        self._publish()

    async def _take_quota(self, give_up: float) -> None:
        if self._quota is None:
            return
        while not await self._limiter.hit(self._quota, self.provider, self.connection_id):
            window = await self._limiter.get_window_stats(self._quota, self.provider, self.connection_id)
            # The clock of limits is coarse; a floor keeps this from spinning.
            pause_seconds = max(0.01, window.reset_time - time.time())
            if time.monotonic() + pause_seconds > give_up:
                raise RateLimited(f"{self.provider}: our own quota for this connection is used up", pause_seconds)
            await asyncio.sleep(pause_seconds)

    def _publish(self) -> None:
        # purgatory queues events for listeners; the gauge is the only one.
        self._breaker.messages.clear()
        BREAKER.labels(self.provider, self.connection_id).set(BREAKER_VALUES[self._breaker.state])
