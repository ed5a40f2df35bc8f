"""Options that several commands share."""

import os
from pathlib import Path
from typing import Annotated

import typer

from mesh.cli.output import CommandError
from mesh.embedded import runfile
from mesh.embedded.layout import StateDir
from mesh.embedded.plan import MeshPlan

StateDirOption = Annotated[
    Path, typer.Option("--state-dir", envvar="KENTE_STATE_DIR", help="Folder of everything that the mesh keeps.")
]
PortOffsetOption = Annotated[
    int, typer.Option("--port-offset", help="Added to every port, to run beside another mesh.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON, for machines.")]

DEFAULT_STATE_DIR = Path(".kente")


def state_at(folder: Path) -> StateDir:
    """The state folder, by its absolute path: processes run elsewhere."""
    return StateDir(folder.absolute())


def plan_of(state: StateDir, port_offset: int = 0) -> MeshPlan:
    """The mesh that would be started here."""
    return MeshPlan.from_environment(state, dict(os.environ), port_offset)


def running_plan(state: StateDir) -> tuple[MeshPlan, runfile.RunState]:
    """The mesh that runs here.

    Raises:
        CommandError: none does.
    """
    run = runfile.read_running(state)
    if run is None:
        raise CommandError(f"no mesh runs on {state.path}: start it with `kente up`, or name another with --state-dir")
    ports = {name: port for entry in run.processes for name, port in entry.ports.items()}
    return plan_of(state, run.port_offset if ports else 0), run
