"""Starts the whole mesh on one machine, keeps it running, and stops it."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from mesh.embedded import child, demo_env, outside, runfile
from mesh.embedded.errors import StartError
from mesh.embedded.health import http_status
from mesh.embedded.keys import InstallationKeys, load_or_create
from mesh.embedded.layout import GATEWAY, NATS, OPERATOR, POSTGRES, SANDBOX, SERVICES
from mesh.embedded.logs import LogFile
from mesh.embedded.plan import MeshPlan
from mesh.embedded.process import Supervised

_SETUP = ("mesh.embedded.setup",)
_SEED = ("mesh.cli", "seed")
_KEY_CHECK_PATH = "/v1/payments?pageSize=1"

OnLine = Callable[[str, bytes], None]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the start is."""

    done: int
    total: int
    step: str


class Supervisor:
    """One mesh on one state folder."""

    def __init__(
        self, plan: MeshPlan, port_offset: int, on_line: OnLine, on_progress: Callable[[Progress], None]
    ) -> None:
        """Describe the mesh; nothing is touched yet.

        Args:
            plan: What to run.
            port_offset: Told to `kente status` and its like.
            on_line: Gets each line that a process writes, with the process's name.
            on_progress: Called at each step of the start.
        """
        self.plan = plan
        self._port_offset = port_offset
        self._on_line = on_line
        self._on_progress = on_progress
        self._processes: dict[str, Supervised] = {}
        self._logs: dict[str, LogFile] = {}
        self._stop = asyncio.Event()
        self._state: runfile.MeshState = "starting"
        self._step = ""
        self._done = 0
        # Each process, the set-up, the demo tenant.
        self._total = len(plan.processes) + 2

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Run the mesh until SIGINT or SIGTERM, then stop it.

        Raises:
            StartError: it can't be started; whatever had started is stopped again.
        """
        self.plan.state.create()
        with runfile.supervising(self.plan.state):
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, self._stop.set)
            # First of all: what is published from here on no longer tells of them.
            await asyncio.to_thread(self._end_leftovers)
            try:
                if await self._until_stopped(self._start()):
                    self._publish("ready")
                    on_ready()
                    await self._stop.wait()
                self._publish("stopping")
                self._on_line("supervisor", b"stopping")
                await self._stop_all()
            except StartError as error:
                await self._stop_all()
                self._publish("failed", str(error))
                raise
            except BaseException:
                await self._stop_all()
                raise
            runfile.forget(self.plan.state)

    async def _until_stopped(self, start: Coroutine[None, None, None]) -> bool:
        """Start, within the limit; False when told to stop meanwhile."""
        limit_seconds = self.plan.settings.start_limit_seconds
        starting = asyncio.create_task(start)
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait({starting, stopped}, timeout=limit_seconds, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if starting.done():
            starting.result()
            return True
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        if self._stop.is_set():
            return False
        late = [name for name, process in self._processes.items() if process.state != "ready"]
        raise StartError(
            f"not ready after {limit_seconds:.0f} s, still waiting for {', '.join(late) or self._step}: "
            f"see {self.plan.state.logs}, or raise KENTE_START_LIMIT_SECONDS"
        )

    async def _start(self) -> None:
        plan = self.plan
        self._report("ports")
        faults = plan.ports.taken(set(plan.processes))
        if faults:
            raise StartError(faults[0])
        keys = load_or_create(plan.state)
        for name in plan.processes:
            self._add(name, keys)
        await outside.check(plan.outside)
        await _together(
            [
                self._start_process(POSTGRES),
                self._start_process(NATS),
                self._start_process(SANDBOX),
                self._run_task("database", _SETUP, keys),
            ]
        )
        await _together([self._start_process(name) for name in (*SERVICES, GATEWAY)])
        if not await self._is_seeded():
            await self._run_task("demo tenant", _SEED, keys)
        self._report("ready", finished=True)

    def _end_leftovers(self) -> None:
        """End what a supervisor that was killed left behind, before its ports are looked at."""
        runfile.end_leftovers(self.plan.state)
        if POSTGRES in self.plan.processes:
            self.plan.postgres.end_leftovers()
        if NATS in self.plan.processes:
            self.plan.nats.end_leftovers()

    def _add(self, name: str, keys: InstallationKeys) -> None:
        process = Supervised(
            self.plan.process_plan(name, keys),
            on_line=lambda line: self._take_line(name, line),
            on_change=lambda _: self._publish(self._state),
        )
        self._processes[name] = process

    async def _start_process(self, name: str) -> None:
        if name not in self._processes:
            return
        await self._processes[name].start()
        self._report(name, finished=True)

    async def _is_seeded(self) -> bool:
        """Whether the demo tenant is there, known to this database, and described with these ports."""
        values = demo_env.read(self.plan.state)
        if values.get(demo_env.BASE_URL) != self.plan.ports.url(GATEWAY):
            return False
        headers = {"Authorization": f"Bearer {values.get(demo_env.API_KEY, '')}"}
        return await http_status(self.plan.ports.of(GATEWAY, "http"), _KEY_CHECK_PATH, headers) == HTTPStatus.OK

    async def _run_task(self, step: str, module: Sequence[str], keys: InstallationKeys) -> None:
        """Run one part of the start as a process of its own, to its end.

        Raises:
            StartError: it failed, with what it wrote last.
        """
        self._report(step)
        environment = self.plan.environment_of(OPERATOR, keys)
        if self.plan.outside.database_url:
            environment["KENTE_DATABASE_URL"] = self.plan.outside.database_url
        command = [sys.executable, "-P", "-m", *module]
        process = await asyncio.create_subprocess_exec(
            *child.launch_command(command, signal.SIGTERM),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            output, _ = await process.communicate()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        lines = output.splitlines()
        for line in lines:
            self._take_line("setup", line)
        if process.returncode != 0:
            last = lines[-1].decode(errors="replace").strip() if lines else "it said nothing"
            raise StartError(f"{step}: {last}")
        self._report(step, finished=True)

    async def _stop_all(self) -> None:
        """Stop in the reverse order of starting; what is independent at once."""
        for names in ((GATEWAY,), (*SERVICES, SANDBOX), (NATS,), (POSTGRES,)):
            await asyncio.gather(*(self._processes[name].stop() for name in names if name in self._processes))
        for log_file in self._logs.values():
            log_file.close()
        self._logs.clear()

    def _take_line(self, name: str, line: bytes) -> None:
        if name not in self._logs:
            path = self.plan.state.logs / f"{name}.log"
            self._logs[name] = LogFile(path, self.plan.settings.log_file_max_bytes)
        self._logs[name].write(line)
        self._on_line(name, line)

    def _report(self, step: str, *, finished: bool = False) -> None:
        self._step = step
        self._done = min(self._total, self._done + (1 if finished else 0))
        self._on_progress(Progress(self._done, self._total, step))
        self._publish(self._state)

    def _publish(self, state: runfile.MeshState, error: str = "") -> None:
        self._state = state
        entries = [
            runfile.entry_of(name, process.pid, dict(process.plan.ports), process.restarts)
            for name, process in self._processes.items()
            if process.pid is not None
        ]
        supervisor = runfile.entry_of("supervisor", os.getpid())
        if supervisor is None:
            return
        runfile.write(
            self.plan.state,
            runfile.RunState(
                state=state,
                supervisor=supervisor,
                port_offset=self._port_offset,
                processes=tuple(entry for entry in entries if entry is not None),
                step=self._step,
                steps_done=self._done,
                steps_total=self._total,
                error=error,
            ),
        )


async def _together(coroutines: Sequence[Coroutine[None, None, None]]) -> None:
    """Run all at once. The first that fails cancels the others, and its error is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for coroutine in coroutines:
                group.create_task(coroutine)
    except BaseExceptionGroup as errors:
        causes, _ = errors.split(StartError)
        if causes is None:
            raise
        raise causes.exceptions[0] from None
