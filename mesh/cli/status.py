"""`kente status`."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.table import Table

from mesh.cli.options import plan_of, state_at
from mesh.cli.output import console, duration, mebibytes, print_json
from mesh.embedded import runfile
from mesh.embedded.layout import StateDir
from mesh.embedded.plan import MeshPlan

_STYLES = {"serving": "green", "not serving": "yellow", "stopped": "red", "running": "green"}


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """One process as it is now.

    Attributes:
        resident_bytes: Resident memory of it and its children, shared pages counted for each.
        memory_bytes: The same with every shared page counted once, where the system tells; else as resident.
    """

    name: str
    pid: int
    ports: dict[str, int]
    health: str
    uptime_seconds: float
    resident_bytes: int
    memory_bytes: int
    restarts: int


def run(state_dir: Path, *, as_json: bool) -> None:
    """Print the status.

    Raises:
        SystemExit: with status 1, something does not serve.
    """
    state = state_at(state_dir)
    run_state = runfile.read_running(state)
    processes = asyncio.run(read_processes(plan_of(state, run_state.port_offset), run_state)) if run_state else []
    if as_json:
        print_json(_document(state, run_state, processes))
    elif run_state is None:
        console().print(f"no mesh runs on {state.path}; start it with `kente up`")
    else:
        console().print(_table(run_state, processes))
    well = run_state is not None and run_state.state == "ready"
    if not well or any(process.health not in {"serving", "running"} for process in processes):
        raise SystemExit(1)


async def read_processes(plan: MeshPlan, run_state: runfile.RunState) -> list[ProcessStatus]:
    """The processes of a running mesh, each asked for its health now."""
    known = {entry.name: entry for entry in run_state.processes}
    rows = await asyncio.gather(*(_read(plan, name, known.get(name)) for name in plan.processes))
    return [_own(run_state), *rows]


async def _read(plan: MeshPlan, name: str, entry: runfile.ProcessEntry | None) -> ProcessStatus:
    process = entry.process() if entry else None
    if entry is None or process is None:
        return ProcessStatus(name, 0, plan.ports.of_process(name), "stopped", 0.0, 0, 0, 0)
    check = plan.health_check(name)
    health = "serving" if await check.serves() else "not serving"
    await check.close()
    return _measured(entry, process, health)


def _own(run_state: runfile.RunState) -> ProcessStatus:
    process = run_state.supervisor.process()
    if process is None:
        return ProcessStatus("supervisor", 0, {}, "stopped", 0.0, 0, 0, 0)
    return _measured(run_state.supervisor, process, "running", children=False)


def _measured(
    entry: runfile.ProcessEntry, process: psutil.Process, health: str, *, children: bool = True
) -> ProcessStatus:
    family = [process]
    try:
        family += process.children(recursive=True) if children else []
    except psutil.NoSuchProcess:
        family = []
    sizes = [_memory(member) for member in family]
    return ProcessStatus(
        name=entry.name,
        pid=entry.pid,
        ports=entry.ports,
        health=health,
        uptime_seconds=time.time() - entry.start_time,
        resident_bytes=sum(resident for resident, _ in sizes),
        memory_bytes=sum(memory for _, memory in sizes),
        restarts=entry.restarts,
    )


def _memory(process: psutil.Process) -> tuple[int, int]:
    try:
        resident = process.memory_info().rss
    except psutil.Error:
        return 0, 0
    try:
        return resident, process.memory_full_info().pss
    except (psutil.Error, AttributeError):
        return resident, resident


def _document(state: StateDir, run_state: runfile.RunState | None, processes: list[ProcessStatus]) -> dict[str, Any]:
    return {
        "state": run_state.state if run_state else "stopped",
        "stateDir": str(state.path),
        "portOffset": run_state.port_offset if run_state else 0,
        "memoryBytes": sum(process.memory_bytes for process in processes),
        "residentBytes": sum(process.resident_bytes for process in processes),
        "processes": [
            {
                "name": process.name,
                "pid": process.pid,
                "ports": process.ports,
                "health": process.health,
                "uptimeSeconds": round(process.uptime_seconds, 1),
                "memoryBytes": process.memory_bytes,
                "residentBytes": process.resident_bytes,
                "restarts": process.restarts,
            }
            for process in processes
        ],
    }


def _table(run_state: runfile.RunState, processes: list[ProcessStatus]) -> Table:
    table = Table(title=f"mesh: {run_state.state}", title_justify="left", show_footer=True)
    total = sum(process.memory_bytes for process in processes)
    for name, justify, footer in (
        ("process", "left", ""),
        ("pid", "right", ""),
        ("ports", "left", ""),
        ("health", "left", ""),
        ("uptime", "right", ""),
        ("memory", "right", mebibytes(total)),
        ("restarts", "right", ""),
    ):
        table.add_column(name, justify=justify, footer=footer)  # type: ignore[arg-type]  # a literal, held in a tuple
    for process in processes:
        table.add_row(
            process.name,
            str(process.pid or ""),
            ", ".join(f"{name} {port}" for name, port in process.ports.items()),
            f"[{_STYLES[process.health]}]{process.health}[/]",
            duration(process.uptime_seconds) if process.pid else "",
            mebibytes(process.memory_bytes) if process.pid else "",
            str(process.restarts),
        )
    return table
