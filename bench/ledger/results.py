"""What a run found, and how it is told."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

from bench.ledger.drivers import Load

SHARES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


@dataclass(frozen=True, slots=True)
class Line:
    """One number beside its target.

    Attributes:
        target: what is wanted; empty where the number only explains others.
        is_met: whether it is reached; None where there is no target, or nothing could be measured.
    """

    name: str
    measured: str
    target: str = ""
    is_met: bool | None = None

    @property
    def verdict(self) -> str:
        """As a word."""
        return "" if self.is_met is None else "reached" if self.is_met else "MISSED"


@dataclass(slots=True)
class Results:
    """Everything of one run.

    Attributes:
        facts: about the machine and the servers.
        processor: microseconds of processor time that each process spends on one call or transfer, by kind.
        loads: latencies at fixed rates, by distribution.
        memory: seconds and MiB of the ledger's process.
    """

    facts: dict[str, str] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    rates: dict[str, list[float]] = field(default_factory=dict)
    processor: dict[str, dict[str, float]] = field(default_factory=dict)
    loads: dict[str, list[Load]] = field(default_factory=dict)
    memory: list[tuple[float, float]] = field(default_factory=list)

    def add(self, name: str, measured: str, target: str = "", *, is_met: bool | None = None) -> None:
        """Adds a line."""
        self.lines.append(Line(name, measured, target, is_met))

    def tables(self) -> list[Table]:
        """For the terminal."""
        return [_table(title, columns, rows) for title, columns, rows in self._contents()]

    def write(self, folder: Path) -> None:
        """Writes ledger.md and ledger.json."""
        folder.mkdir(parents=True, exist_ok=True)
        parts = ["# The ledger, measured", "", "Made by `make bench-ledger`. docs/ledger-performance.md tells how."]
        for title, columns, rows in self._contents():
            parts += [
                "",
                f"## {title}",
                "",
                _markdown(columns),
                _markdown(["---"] * len(columns)),
                *map(_markdown, rows),
            ]
        for name in ("latency", "memory"):
            if (folder / f"ledger-{name}.png").exists():
                parts += ["", f"![{name.capitalize()}](ledger-{name}.png)"]
        (folder / "ledger.md").write_text("\n".join([*parts, ""]))
        (folder / "ledger.json").write_text(json.dumps(self._document(), indent=1) + "\n")

    def _contents(self) -> list[tuple[str, list[str], list[list[str]]]]:
        lines = [[line.name, line.measured, line.target, line.verdict] for line in self.lines]
        kinds = sorted({process for costs in self.processor.values() for process in costs})
        processor = [
            [name, f"{self._median(name):,.0f}", *(f"{costs[kind]:,.1f}" for kind in kinds)]
            for name, costs in self.processor.items()
        ]
        latencies = [
            [distribution, f"{load.offered:,.0f}", f"{load.achieved:,.0f}", *_milliseconds(load)]
            for distribution, loads in self.loads.items()
            for load in loads
        ]
        return [
            ("Targets", ["what", "measured", "target", ""], lines),
            ("Rates, and processor time for each", ["what", "a second", *(f"{kind} us" for kind in kinds)], processor),
            ("Latency of single postings at fixed rates", ["accounts", "offered/s", "answered/s", *_HEADS], latencies),
            ("Measured on", ["", ""], [[name, value] for name, value in self.facts.items()]),
        ]

    def _median(self, name: str) -> float:
        rates = sorted(self.rates[name])
        return rates[len(rates) // 2]

    def _document(self) -> Mapping[str, object]:
        return {
            "facts": self.facts,
            "targets": [
                {"name": line.name, "measured": line.measured, "target": line.target, "reached": line.is_met}
                for line in self.lines
            ],
            "rates": self.rates,
            "processor_microseconds": self.processor,
            "latency_milliseconds": {
                distribution: [
                    {
                        "offered": load.offered,
                        "achieved": round(load.achieved, 1),
                        "refused": load.refused,
                        "complete": load.is_complete,
                        **{name: round(load.milliseconds(share), 3) for name, share in SHARES.items()},
                    }
                    for load in loads
                ]
                for distribution, loads in self.loads.items()
            },
            "memory_mebibytes": self.memory,
        }


_HEADS = [f"{name} ms" for name in SHARES]


def _milliseconds(load: Load) -> list[str]:
    return [f"{load.milliseconds(share):,.1f}" for share in SHARES.values()]


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 or not column else "right")
    for row in rows:
        table.add_row(*row)
    return table


def _markdown(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
