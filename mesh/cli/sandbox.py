"""`kente sandbox`."""

import os
import sys
from pathlib import Path

from mesh.cli.options import plan_of, state_at
from mesh.embedded.errors import StartError
from mesh.embedded.layout import SANDBOX


def run(state_dir: Path, port_offset: int) -> None:
    """Become the sandbox process.

    Raises:
        StartError: a port that it needs is taken.
    """
    plan = plan_of(state_at(state_dir), port_offset)
    faults = plan.ports.taken({SANDBOX})
    if faults:
        raise StartError(faults[0])
    ports = plan.ports.of_process(SANDBOX)
    plan.state.create()
    environment = dict(os.environ) | {
        "KENTE_STATE_DIR": str(plan.state.path),
        "KENTE_SANDBOX_PORT": str(ports["http"]),
        "KENTE_SANDBOX_SMTP_PORT": str(ports["smtp"]),
        "KENTE_SANDBOX_URL": plan.ports.url(SANDBOX),
    }
    os.execve(sys.executable, [sys.executable, "-P", "-m", "mesh.sandbox"], environment)  # noqa: S606 - no shell
