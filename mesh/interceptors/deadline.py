"""Every call has a deadline: the caller's, or the default. Work past it is stopped."""

from __future__ import annotations

import asyncio
import math
import time

from mesh.errors import Problem, Reason
from mesh.interceptors.chain import Answer, Exchange, Proceed


class Deadline:
    """The deadline of calls."""

    def __init__(self, default_seconds: float) -> None:
        self._default_seconds = default_seconds

    async def __call__(self, exchange: Exchange, proceed: Proceed) -> Answer:
        """Refuses a call that is over already, and ends one that takes too long."""
        remaining = exchange.context.time_remaining()
        if remaining is None:
            if exchange.method.is_streaming:
                # A watcher may stay as long as it likes; each call that it makes gets a deadline of its own.
                exchange.call.deadline_monotonic = math.inf
                return await proceed(exchange)
            remaining = self._default_seconds
        if remaining <= 0:
            raise Problem(Reason.DEADLINE_PASSED, "the deadline had passed before the work began")
        exchange.call.deadline_monotonic = time.monotonic() + remaining
        try:
            async with asyncio.timeout(remaining) as limit:
                return await proceed(exchange)
        except TimeoutError:
            if limit.expired():
                raise Problem(Reason.DEADLINE_PASSED, "the deadline passed before the work was done") from None
            raise
