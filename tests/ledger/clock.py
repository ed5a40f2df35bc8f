"""A clock that a test sets."""

from __future__ import annotations

from datetime import datetime, timedelta


class SettableClock:
    """Stands still at `now`, which is what it says when it is called, until it is moved."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        """The time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Moves on; back, when that is less than zero."""
        self.now += timedelta(seconds=seconds)
