"""What is running on a state folder: the lock of its one supervisor, and the file that tells others about it."""

import fcntl
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Literal

import psutil

from mesh.embedded import child
from mesh.embedded.errors import StartError
from mesh.embedded.files import write_private
from mesh.embedded.layout import StateDir

_CLOCK_TOLERANCE_SECONDS = 1.0
_LEFTOVER_GRACE_SECONDS = 3.0

MeshState = Literal["starting", "ready", "stopping", "failed"]


@dataclass(frozen=True, slots=True)
class ProcessEntry:
    """One process. The start time tells it from a later process with the same id."""

    name: str
    pid: int
    start_time: float
    ports: dict[str, int] = field(default_factory=dict)
    restarts: int = 0

    def process(self) -> psutil.Process | None:
        """The process itself, while it lives."""
        try:
            process = psutil.Process(self.pid)
            alive = process.status() != psutil.STATUS_ZOMBIE
            same = abs(process.create_time() - self.start_time) < _CLOCK_TOLERANCE_SECONDS
        except psutil.NoSuchProcess:
            return None
        return process if alive and same else None


def entry_of(name: str, pid: int, ports: dict[str, int] | None = None, restarts: int = 0) -> ProcessEntry | None:
    """The entry of a process that runs now."""
    try:
        return ProcessEntry(name, pid, psutil.Process(pid).create_time(), ports or {}, restarts)
    except psutil.NoSuchProcess:
        return None


@dataclass(frozen=True, slots=True)
class RunState:
    """What a supervisor says about its mesh."""

    state: MeshState
    supervisor: ProcessEntry
    port_offset: int
    processes: tuple[ProcessEntry, ...]
    step: str = ""
    steps_done: int = 0
    steps_total: int = 0
    error: str = ""


def write(state: StateDir, run: RunState) -> None:
    """Publish what is running."""
    write_private(state.run_file, json.dumps(asdict(run), indent=2), durable=False)


def read(state: StateDir) -> RunState | None:
    """What was last published; None when nothing was, or when it can't be read."""
    try:
        document = json.loads(state.run_file.read_text())
        return RunState(
            state=document["state"],
            supervisor=ProcessEntry(**document["supervisor"]),
            port_offset=int(document["port_offset"]),
            processes=tuple(ProcessEntry(**entry) for entry in document["processes"]),
            step=str(document["step"]),
            steps_done=int(document["steps_done"]),
            steps_total=int(document["steps_total"]),
            error=str(document["error"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_running(state: StateDir) -> RunState | None:
    """What is running now; None when its supervisor is gone."""
    run = read(state)
    return run if run is not None and run.supervisor.process() is not None else None


def forget(state: StateDir) -> None:
    """Say that nothing runs."""
    state.run_file.unlink(missing_ok=True)


@contextmanager
def supervising(state: StateDir) -> Iterator[None]:
    """Be the one supervisor of a state folder. The kernel lets go of the lock when this process ends, however it ends.

    Raises:
        StartError: another one is.
    """
    descriptor = os.open(state.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            run = read_running(state)
            by = f" (supervisor pid {run.supervisor.pid})" if run else ""
            raise StartError(
                f"a mesh already runs on {state.path}{by}: look with `kente status`, end it with `kente down`, "
                "or start another with --state-dir and --port-offset"
            ) from None
        yield
    finally:
        os.close(descriptor)


def end_leftovers(state: StateDir) -> list[int]:
    """End the processes of a supervisor that is gone. To be called with the lock held. Returns their ids."""
    run = read(state)
    if run is None:
        return []
    left = {process.pid for entry in run.processes if (process := entry.process())}
    if not left:
        return []
    return child.end_leftovers(lambda process: process.pid in left, signal.SIGTERM, _LEFTOVER_GRACE_SECONDS)
