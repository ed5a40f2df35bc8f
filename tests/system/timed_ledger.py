"""The ledger as a process of its own whose clock a test can set wrong. Its settings are in the environment.

KENTE_TEST_CLOCK_FILE names a file with the seconds by which the clock is wrong.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from mesh.clock import utc_now
from mesh.server import run_service
from services.ledger.__main__ import build
from services.ledger.settings import LedgerSettings

CLOCK_FILE = "KENTE_TEST_CLOCK_FILE"


def wrong_clock(file: Path) -> datetime:
    """The time, wrong by what the file says."""
    return utc_now() + timedelta(seconds=float(file.read_text()))


if __name__ == "__main__":
    run_service("ledger", LedgerSettings, partial(build, clock=partial(wrong_clock, Path(os.environ[CLOCK_FILE]))))
