"""Latency against load, and memory over time, as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.ledger.drivers import Load

_DOTS_AN_INCH = 110


def plot_latency(loads: Mapping[str, Sequence[Load]], path: Path) -> None:
    """Draws p50 and p99 against the rate that was answered, a colour for each distribution."""
    # Imported when used: only this needs it, and it takes a second.
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for number, (distribution, measured) in enumerate(loads.items()):
        achieved = [load.achieved for load in measured]
        for share, style in ((0.99, "-"), (0.5, ":")):
            label = f"{distribution}, p{share * 100:.0f}"
            values = [load.milliseconds(share) for load in measured]
            axes.plot(achieved, values, style, marker="o", markersize=3, color=f"C{number}", label=label)
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    axes.set_xlabel("single postings answered a second")
    axes.set_ylabel("milliseconds from the intended start")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=_DOTS_AN_INCH, format="png")


def plot_memory(samples: Sequence[tuple[float, float]], path: Path) -> None:
    """Draws the memory of the ledger's process over time."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([seconds / 60 for seconds, _ in samples], [mebibytes for _, mebibytes in samples])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("minutes")
    axes.set_ylabel("MiB resident")
    axes.grid(visible=True, alpha=0.3)
    figure.savefig(path, dpi=_DOTS_AN_INCH, format="png")
