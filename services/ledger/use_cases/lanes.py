"""The calls that wait for a batch: a lane for each tenant."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from opentelemetry import trace

from services.ledger.use_cases.work import Result, Work


@dataclass(slots=True)
class Waiting:
    """A call that waits for its batch."""

    work: Work
    deadline_monotonic: float
    ended: asyncio.Future[list[Result]]
    link: trace.SpanContext

    @property
    def is_wanted(self) -> bool:
        """Whether somebody still waits for it."""
        return not self.ended.done()


@dataclass(slots=True)
class Lane:
    """The calls of one tenant, and the task that books them as long as there are any.

    Attributes:
        ahead_postings: when so many postings wait, the next batch is worth deciding while one is being written.
        postings: those of the calls that wait.
    """

    ahead_postings: int
    waiting: deque[Waiting] = field(default_factory=deque)
    postings: int = 0
    task: asyncio.Task[None] | None = None
    _is_decided: bool = False
    _can_go_ahead: asyncio.Future[None] | None = None

    def add(self, waiting: Waiting) -> None:
        """Lets a call wait."""
        self.waiting.append(waiting)
        self.postings += len(waiting.work.postings)
        self._look()

    def take(self, most: int) -> list[Waiting]:
        """The calls of the next batch: as many as have that many postings, and one in any case."""
        batch: list[Waiting] = []
        postings = 0
        while self.waiting:
            size = len(self.waiting[0].work.postings)
            if batch and postings + size > most:
                break
            waiting = self.waiting.popleft()
            self.postings -= size
            # Who gave up before the batch began is not booked; who gives up later is told when asking again.
            if waiting.is_wanted:
                batch.append(waiting)
                postings += size
        return batch

    def abandon(self) -> None:
        """Lets nobody wait any more."""
        for waiting in self.take(self.postings):
            waiting.ended.cancel()

    def begin(self) -> asyncio.Future[None]:
        """A batch is on its way.

        Returns:
            Done once that batch is decided, and so many wait that the next is worth deciding ahead.
        """
        self._is_decided = False
        self._can_go_ahead = asyncio.get_running_loop().create_future()
        return self._can_go_ahead

    def decided(self) -> None:
        """The batch on its way is decided."""
        self._is_decided = True
        self._look()

    def _look(self) -> None:
        if not self._is_decided or self.postings < self.ahead_postings:
            return
        if self._can_go_ahead is not None and not self._can_go_ahead.done():
            self._can_go_ahead.set_result(None)
