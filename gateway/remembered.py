"""Answers that are slow to get, kept for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Generic, TypeVar

from aiocache import SimpleMemoryCache

from mesh.errors import Problem, Reason

Answer = TypeVar("Answer")


class Remembered(Generic[Answer]):
    """Asks once per key at a time, and keeps the answer as long as the asked says.

    A refusal is kept too, for a few seconds, so that a caller who repeats it does not reach the service each time.
    The memory is this process's own: answers here are credentials, which a shared cache would have to seal.
    """

    def __init__(self, refusals: Collection[Reason], refusal_seconds: float) -> None:
        # aiocache guards each operation with a timer unless told not to; memory needs none.
        self._cache: Any = SimpleMemoryCache(timeout=0)
        self._refusals = frozenset(refusals)
        self._refusal_seconds = refusal_seconds
        self._asking: dict[str, asyncio.Task[Answer]] = {}

    async def get(self, key: str, ask: Callable[[], Awaitable[tuple[Answer, float]]]) -> Answer:
        """The answer for a key.

        Args:
            key: what is asked for; never a secret itself.
            ask: gets the answer, and how many seconds it stays good; not kept when that is not more than zero.

        Raises:
            Problem: what `ask` raised, now or a few seconds ago.
        """
        known: Answer | Problem | None = await self._cache.get(key)
        if isinstance(known, Problem):
            raise _again(known)
        if known is not None:
            return known
        task = self._asking.get(key)
        if task is None:
            task = asyncio.ensure_future(self._ask(key, ask))
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        # A caller that gives up must not end the question for the others.
        return await asyncio.shield(task)

    async def forget(self, key: str) -> None:
        """Drops an answer that turned out to be no longer good."""
        await self._cache.delete(key)

    async def _ask(self, key: str, ask: Callable[[], Awaitable[tuple[Answer, float]]]) -> Answer:
        try:
            answer, good_seconds = await ask()
        except Problem as problem:
            if problem.reason in self._refusals:
                await self._cache.set(key, problem, ttl=self._refusal_seconds)
            raise
        if good_seconds > 0:
            await self._cache.set(key, answer, ttl=good_seconds)
        return answer


def _again(problem: Problem) -> Problem:
    """The same problem anew: an exception that is raised twice collects the tracebacks of both."""
    return Problem(
        problem.reason,
        problem.detail,
        violations=problem.violations,
        retry_after_seconds=problem.retry_after_seconds,
        **problem.metadata,
    )
