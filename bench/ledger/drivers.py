"""How calls are made: as fast as answers come, or at a fixed rate whatever the answers do."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import grpc

Call = Callable[[], Awaitable[object]]

# More calls under way than this, and the server is far behind: the rest would only measure how long the queue is.
_MOST_UNDER_WAY = 4_000


@dataclass(frozen=True, slots=True)
class Load:
    """What came of a fixed rate.

    Attributes:
        offered: calls a second that were to be made.
        achieved: calls a second that were answered.
        latencies: seconds from when a call was to begin to its answer, sorted.
        refused: calls that the server was too busy for.
        is_complete: whether every call was made; otherwise the server fell too far behind.
    """

    offered: float
    achieved: float
    latencies: Sequence[float]
    refused: int
    is_complete: bool

    def milliseconds(self, share: float) -> float:
        """The latency that this share of all calls stays below, in milliseconds."""
        return percentile(self.latencies, share) * 1000


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that a share (0 to 1) of sorted values does not exceed; infinite when there is none."""
    if not ordered:
        return math.inf
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


async def closed_loop(call: Call, callers: int, seconds: float) -> float:
    """Calls from so many callers at once, each after its last answer.

    Returns:
        Answers a second.
    """
    end = time.perf_counter() + seconds
    answered = 0

    async def caller() -> None:
        nonlocal answered
        while time.perf_counter() < end:
            await call()
            answered += 1

    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return answered / (time.perf_counter() - begun)


async def open_loop(call: Call, rate: float, seconds: float) -> Load:
    """Calls at evenly spaced times, which answers that are late do not move.

    A latency counts from the time at which the call was to begin, so that a stall of the server, or of this client,
    shows in all calls that it delays.
    """
    latencies: list[float] = []
    refused = 0
    under_way: set[asyncio.Task[None]] = set()
    is_complete = True
    count = round(rate * seconds)
    begun = time.perf_counter() + 0.01

    async def one(due: float) -> None:
        nonlocal refused
        try:
            await call()
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            refused += 1
        else:
            latencies.append(time.perf_counter() - due)

    for number in range(count):
        due = begun + number / rate
        pause = due - time.perf_counter()
        if pause > 0:
            await asyncio.sleep(pause)
        if len(under_way) > _MOST_UNDER_WAY:
            is_complete = False
            break
        task = asyncio.create_task(one(due))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)
    achieved = len(latencies) / (time.perf_counter() - begun)
    return Load(rate, achieved, sorted(latencies), refused, is_complete)
