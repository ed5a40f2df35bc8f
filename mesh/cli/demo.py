"""`kente demo`."""

import asyncio
import time
from pathlib import Path

import httpx

from mesh.cli.demo_client import DemoClient, DemoError
from mesh.cli.demo_report import Report
from mesh.cli.demo_scenarios import Demo
from mesh.cli.demo_view import DemoView, show_report
from mesh.cli.down import stop_mesh
from mesh.cli.options import plan_of, state_at
from mesh.cli.output import CommandError, console, error_console, print_json
from mesh.cli.up import start_detached
from mesh.embedded import runfile
from mesh.embedded.layout import StateDir

_POLL_SECONDS = 0.1


def run(state_dir: Path, port_offset: int, *, as_json: bool) -> None:
    """Run all scenarios; start the mesh before and stop it afterwards if none runs.

    Raises:
        CommandError: the mesh can't be started or reached.
        SystemExit: with status 1, something is not as it should be.
    """
    state = state_at(state_dir)
    started_here = _ensure_mesh(state, port_offset)
    try:
        run_state = runfile.read_running(state)
        offset = run_state.port_offset if run_state else port_offset
        report = asyncio.run(_run(DemoClient(plan_of(state, offset)), DemoView(None if as_json else console())))
    finally:
        if started_here:
            stop_mesh(state)
    if as_json:
        print_json(report.to_json())
    else:
        show_report(console(), report)
    if not report.is_well:
        raise SystemExit(1)


def _ensure_mesh(state: StateDir, port_offset: int) -> bool:
    """Start the mesh unless one runs, or is being started by somebody else. Returns whether it was started here."""
    if runfile.read_running(state) is None:
        start_detached(state, port_offset, error_console())
        return True
    limit_seconds = plan_of(state, port_offset).settings.start_limit_seconds
    deadline = time.monotonic() + limit_seconds
    while (run_state := runfile.read_running(state)) is not None and run_state.state == "starting":
        if time.monotonic() > deadline:
            raise CommandError(f"the mesh is still starting after {limit_seconds:.0f} s: look with `kente status`")
        time.sleep(_POLL_SECONDS)
    if run_state is None or run_state.state != "ready":
        raise CommandError("the mesh is being stopped: try again in a moment")
    return False


async def _run(client: DemoClient, view: DemoView) -> Report:
    async with client:
        demo = Demo(client, view)
        try:
            return await demo.run()
        except DemoError as error:
            return demo.broken_off(str(error))
        except (httpx.HTTPError, TimeoutError) as error:
            return demo.broken_off(f"{type(error).__name__}: look with `kente status`")
