"""How commands speak: to people with rich, to machines with JSON."""

import json
import sys
from typing import Any

from rich.console import Console


class CommandError(Exception):
    """The command can't do what was asked; the message says in one line why and what to do about it."""


def console() -> Console:
    """For answers."""
    return Console(highlight=False)


def error_console() -> Console:
    """For what went wrong and for progress, so that an answer can be piped on."""
    return Console(stderr=True, highlight=False)


def print_json(document: Any) -> None:  # noqa: ANN401 - anything that JSON can say
    """Print one JSON document, the same for a terminal and a pipe."""
    sys.stdout.write(json.dumps(document, indent=2, default=str) + "\n")


def duration(seconds: float) -> str:
    """A duration for people: "4 s", "3 min 20 s", "2 h 5 min", "1 d 3 h"."""
    whole = int(seconds)
    for unit_seconds, name, smaller_seconds, smaller_name in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= unit_seconds:
            rest = whole % unit_seconds // smaller_seconds
            return f"{whole // unit_seconds} {name}" + (f" {rest} {smaller_name}" if rest else "")
    return f"{whole} s"


def mebibytes(count: int) -> str:
    """An amount of memory or disk for people."""
    return f"{count / 1_048_576:,.0f} MiB"
