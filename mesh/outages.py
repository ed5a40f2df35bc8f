"""Tells the absence of something we need from a fault: absence is waited out, however long it takes."""

from __future__ import annotations

import asyncio

import grpc

from mesh.database import UNAVAILABLE_ERRORS
from mesh.errors import Problem


def is_outage(error: BaseException) -> bool:
    """Whether the database, or another service, is away or overrun. Then trying again is all there is to do.

    A call that took too long is no outage: what is always too slow must come to light.
    """
    if isinstance(error, grpc.aio.AioRpcError):
        return error.code() in _OUTAGE_CODES
    if isinstance(error, Problem):
        return error.code in _OUTAGE_CODES
    return isinstance(error, UNAVAILABLE_ERRORS)


_OUTAGE_CODES = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}


async def wait_out(seconds: float) -> None:
    """Waits before another try, in a loop that outlives outages.

    Raises:
        asyncio.CancelledError: the task was told to end. When a connection breaks in that very moment, its error takes
            the place of the cancellation, and a loop that waits errors out would go on for ever.
    """
    raise_if_canceled()
    await asyncio.sleep(seconds)


def raise_if_canceled() -> None:
    """Raises CancelledError when the current task was told to end."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
