"""Rates of several kinds of calls, measured in turn, with the processor time that each process spends on a call."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

# Measures for so many seconds, and gives the rate a second.
Measure = Callable[[float], Awaitable[float]]


@dataclass(slots=True)
class Rates:
    """What was measured of one kind, a number a round.

    Attributes:
        rates: a second.
        processor_seconds: by process, for one of them.
    """

    rates: list[float] = field(default_factory=list)
    processor_seconds: dict[str, list[float]] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """The median."""
        return statistics.median(self.rates)

    def microseconds(self, process: str) -> float:
        """Processor time that a process spent on one, in microseconds; the least of all rounds."""
        return min(self.processor_seconds[process]) * 1e6


class Meter:
    """Knows the processes that take part: this one, which is the client, and the servers with their children."""

    def __init__(self, servers: Mapping[str, Sequence[psutil.Process]]) -> None:
        self._servers = servers

    def _spent_seconds(self) -> dict[str, float]:
        spent = {name: sum(map(processor_seconds, roots)) for name, roots in self._servers.items()}
        return {"client": processor_seconds(psutil.Process(), with_children=False)} | spent

    async def measure(self, measures: Mapping[str, Measure], seconds: float, rounds: int) -> dict[str, Rates]:
        """Measures all in turn, round by round, so that the moods of the machine fall on all of them.

        Args:
            measures: by name.
            seconds: length of one measurement.
            rounds: how often each is measured.
        """
        found = {name: Rates() for name in measures}
        for measure in measures.values():
            await measure(seconds / 4)
        for _ in range(rounds):
            for name, measure in measures.items():
                before = self._spent_seconds()
                rate = await measure(seconds)
                after = self._spent_seconds()
                found[name].rates.append(rate)
                for process, spent in after.items():
                    cost = (spent - before[process]) / (rate * seconds)
                    found[name].processor_seconds.setdefault(process, []).append(cost)
        return found


def processor_seconds(root: psutil.Process, *, with_children: bool = True) -> float:
    """What a process, and its children, have used."""
    total = 0.0
    with suppress(psutil.NoSuchProcess):
        for process in (root, *(root.children(recursive=True) if with_children else ())):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
    return total


class Bystanders:
    """What other processes take of the machine meanwhile: the more, the less the numbers say."""

    def __init__(self) -> None:
        self._busy_seconds = _busy_seconds()
        self._own_seconds = processor_seconds(psutil.Process())
        self._begun = time.monotonic()

    def share(self) -> float:
        """Share of all processors that others used since the beginning."""
        busy = _busy_seconds() - self._busy_seconds
        own = processor_seconds(psutil.Process()) - self._own_seconds
        processors = psutil.cpu_count() or 1
        return max(0.0, busy - own) / ((time.monotonic() - self._begun) * processors)


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - times.guest - times.guest_nice)
