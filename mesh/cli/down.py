"""`kente down`."""

import time
from pathlib import Path

import psutil

from mesh.cli.options import state_at
from mesh.cli.output import console, error_console
from mesh.embedded import runfile
from mesh.embedded.layout import StateDir
from mesh.embedded.nats import EmbeddedNats
from mesh.embedded.postgres import EmbeddedPostgres

# Longer than all the grace that a supervisor gives its processes one after another.
_LIMIT_SECONDS = 45.0


def run(state_dir: Path) -> None:
    """Stop the mesh. It is no error when none runs."""
    stop_mesh(state_at(state_dir))
    console().print("stopped")


def stop_mesh(state: StateDir) -> None:
    """Ask the supervisor to stop everything; if it can't, or is gone, end what it left."""
    run_state = runfile.read(state)
    supervisor = run_state.supervisor.process() if run_state else None
    if supervisor is not None:
        supervisor.terminate()
        with error_console().status("stopping"):
            _wait_or_kill(supervisor)
    if not state.path.exists():
        return
    with runfile.supervising(state):
        runfile.end_leftovers(state)
        if state.postgres.exists():
            EmbeddedPostgres(state.postgres, 0).end_leftovers()
        if state.nats.exists():
            EmbeddedNats(state.nats, 0, 0).end_leftovers()
        runfile.forget(state)


def _wait_or_kill(supervisor: psutil.Process) -> None:
    deadline = time.monotonic() + _LIMIT_SECONDS
    while supervisor.is_running() and time.monotonic() < deadline:
        try:
            supervisor.wait(timeout=0.1)
        except psutil.TimeoutExpired:
            continue
    if supervisor.is_running():
        supervisor.kill()
        supervisor.wait(timeout=5)
