"""Runs the tests in two halves side by side: most of them wait for something, so one alone leaves a processor idle.

    python -m tools.tests [pytest arguments]

Each half has servers of its own, on ports of its own. What is not named here is in the second half.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIRST_HALF = ("connections", "gateway", "identity", "ledger", "mesh", "mesh_provider")
_print = threading.Lock()


def halves() -> list[list[str]]:
    """The folders and files of tests, each in one of the halves."""
    entries = sorted(
        entry.relative_to(ROOT).as_posix()
        for entry in (ROOT / "tests").iterdir()
        if any(entry.glob("test_*.py")) or entry.name.startswith("test_")
    )
    first = [entry for entry in entries if Path(entry).name in FIRST_HALF]
    return [first, [entry for entry in entries if entry not in first]]


def main() -> int:
    """Runs both and waits for both; the status is not zero when one of them failed."""
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "pytest", *paths, *sys.argv[1:]],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for paths in halves()
    ]
    threads = [threading.Thread(target=_show, args=[run]) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return int(any(run.wait() != 0 for run in runs))


def _show(run: subprocess.Popen[str]) -> None:
    """Prints what a run prints, in whole lines."""
    for line in run.stdout or ():
        with _print:
            print(line, end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
