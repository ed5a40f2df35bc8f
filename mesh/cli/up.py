"""`kente up`."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mesh.cli.options import plan_of, state_at
from mesh.cli.output import CommandError, console, error_console
from mesh.embedded import runfile
from mesh.embedded.child import last_lines
from mesh.embedded.layout import GATEWAY, StateDir
from mesh.embedded.logs import console_line
from mesh.embedded.plan import MeshPlan
from mesh.embedded.supervisor import Progress as StartProgress
from mesh.embedded.supervisor import Supervisor

_POLL_SECONDS = 0.05
_STOP_WAIT_SECONDS = 60.0


def run_foreground(state_dir: Path, port_offset: int, *, quiet: bool) -> None:
    """Start the mesh here, show what its processes write, and stop it at Ctrl-C.

    Raises:
        StartError: it can't be started.
    """
    state = state_at(state_dir)
    plan = plan_of(state, port_offset)
    screen = console()
    positions = {name: index for index, name in enumerate(plan.processes)}

    def show_line(name: str, line: bytes) -> None:
        if not quiet and line.strip():
            screen.print(console_line(name, positions.get(name, len(positions)), line), soft_wrap=True)

    with start_bar(screen) as bar:
        task = bar.add_task("starting", total=None)

        def show_progress(progress: StartProgress) -> None:
            bar.update(task, completed=progress.done, total=progress.total, description=progress.step)
            if quiet or not screen.is_terminal:
                screen.print(f"{progress.done}/{progress.total} {progress.step}")

        def show_ready() -> None:
            bar.stop()
            show_addresses(screen, plan, state)
            screen.print("Ctrl-C stops it; its state is kept.\n" if screen.is_terminal else "ready")

        asyncio.run(Supervisor(plan, port_offset, show_line, show_progress).run(show_ready))
    screen.print("stopped")


def run_detached(state_dir: Path, port_offset: int) -> None:
    """Start the mesh in the background and return when it is ready.

    Raises:
        CommandError: it could not be started.
    """
    state = state_at(state_dir)
    start_detached(state, port_offset, error_console())
    show_addresses(console(), plan_of(state, port_offset), state)


def start_detached(state: StateDir, port_offset: int, screen: Console) -> None:
    """Start a supervisor of its own session and wait, with a progress bar, until the mesh is ready.

    Raises:
        CommandError: it could not be started.
    """
    state.create()
    log_file = state.logs / "supervisor.log"
    command = [sys.executable, "-P", "-m", "mesh.cli", "up", "--quiet"]
    command += ["--state-dir", str(state.path), "--port-offset", str(port_offset)]
    log_file.touch(mode=0o600)
    with log_file.open("wb") as output:
        supervisor = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _wait_until_ready(state, supervisor, screen, log_file)
    except KeyboardInterrupt:
        supervisor.terminate()
        supervisor.wait(_STOP_WAIT_SECONDS)
        raise


def _wait_until_ready(state: StateDir, supervisor: subprocess.Popen[bytes], screen: Console, log_file: Path) -> None:
    with start_bar(screen) as bar:
        task = bar.add_task("starting", total=None)
        while supervisor.poll() is None:
            run = runfile.read(state)
            if run is not None and run.supervisor.pid == supervisor.pid:
                bar.update(task, completed=run.steps_done, total=run.steps_total, description=run.step)
                if run.state == "ready":
                    return
            time.sleep(_POLL_SECONDS)
    run = runfile.read(state)
    told_by_it = run is not None and run.supervisor.pid == supervisor.pid and run.error
    line = run.error if run is not None and told_by_it else last_lines(log_file, 1).removeprefix("kente: ")
    raise CommandError(line)


def start_bar(screen: Console) -> Progress:
    """The progress bar of a start; it vanishes when the mesh is ready."""
    return Progress(
        SpinnerColumn(),
        TextColumn("starting the mesh"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=screen,
        transient=True,
    )


def show_addresses(screen: Console, plan: MeshPlan, state: StateDir) -> None:
    """Say where the mesh is, once it is ready."""
    gateway = plan.ports.url(GATEWAY)
    screen.print(f"[bold green]ready[/]  REST {gateway}  docs {gateway}/docs  state {state.path}", soft_wrap=True)
    if state.demo_file.exists():
        screen.print(f"       demo tenant: source {state.demo_file}", soft_wrap=True)
