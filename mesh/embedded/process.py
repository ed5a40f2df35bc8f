"""One supervised process: started, watched, restarted with back-off, stopped with grace."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Literal

from mesh.embedded import child
from mesh.embedded.accounts import Account
from mesh.embedded.errors import StartError
from mesh.embedded.health import HealthCheck
from mesh.embedded.logs import LineSplitter

BACKOFF_FIRST_SECONDS = 0.2
BACKOFF_LONGEST_SECONDS = 10.0
HEALTHY_RESET_SECONDS = 30.0

_STARTING_POLL_SECONDS = 0.05
_READY_POLL_SECONDS = 1.0
_READ_BYTES = 65_536
_LAST_OUTPUT_SECONDS = 1.0
_KILL_WAIT_SECONDS = 5.0
# A process that can't even start once is a mistake in its settings or code: the third try will not be better.
_FIRST_START_TRIES = 3

ProcessState = Literal["stopped", "starting", "ready", "unhealthy", "waiting"]


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """How to run one process.

    Attributes:
        name: How it is called everywhere.
        command: Gives the program and its arguments; asked before each start, after `prepare`.
        environment: Gives its whole environment; asked as `command` is.
        health: How to ask whether it serves.
        ports: Its ports by name, for people.
        prepare: What must be done before each start, off the event loop.
        account: Gives the account to run as; None is that of this process.
        folder: Working directory.
        death_signal: What it gets when the supervisor dies.
        stop_signals: What it gets to stop, each with the seconds it may take; then it is killed.
    """

    name: str
    command: Callable[[], Sequence[str]]
    environment: Callable[[], Mapping[str, str]]
    health: HealthCheck
    ports: Mapping[str, int] = field(default_factory=dict)
    prepare: Callable[[], None] = lambda: None
    account: Callable[[], Account | None] = lambda: None
    folder: str = "/"
    death_signal: signal.Signals = signal.SIGTERM
    stop_signals: Sequence[tuple[signal.Signals, float]] = ((signal.SIGTERM, 10.0),)


class Supervised:
    """Keeps one process running until it is told to stop."""

    def __init__(
        self, plan: ProcessPlan, on_line: Callable[[bytes], None], on_change: Callable[["Supervised"], None]
    ) -> None:
        """Watch over a process that is not started yet.

        Args:
            plan: How to run it.
            on_line: Gets each line that it writes.
            on_change: Called when its state or its process id changed.
        """
        self.plan = plan
        self.state: ProcessState = "stopped"
        self.restarts = 0
        self.last_line = ""
        self._on_line = on_line
        self._on_change = on_change
        self._process: subprocess.Popen[bytes] | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._tidying = False
        self._served_since: float | None = None
        self._was_ready = asyncio.Event()
        self._failed: StartError | None = None
        self._settled = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Id of the process while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    async def start(self) -> None:
        """Start it and return when it serves.

        Raises:
            StartError: it ended several times before it served once.
        """
        self._stopping = False
        self._task = asyncio.create_task(self._keep_running(), name=f"supervise {self.plan.name}")
        await self._settled.wait()
        if self._failed is not None:
            raise self._failed

    async def stop(self) -> None:
        """Stop it, gently first. Returns when it is gone."""
        self._stopping = True
        if self._process is not None:
            await self._end(self._process)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        await self.plan.health.close()
        self._change("stopped")

    async def _end(self, process: subprocess.Popen[bytes]) -> None:
        for number, grace_seconds in (*self.plan.stop_signals, (signal.SIGKILL, _KILL_WAIT_SECONDS)):
            if process.poll() is not None:
                return
            process.send_signal(number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(child.ended(process), grace_seconds)

    async def _keep_running(self) -> None:
        backoff_seconds = BACKOFF_FIRST_SECONDS
        while not self._stopping:
            try:
                healthy_seconds = await self._run_once()
            except StartError as error:
                healthy_seconds = 0.0
                self.last_line = str(error)
            if self._stopping:
                return
            self.restarts += 1
            if not self._was_ready.is_set() and self.restarts >= _FIRST_START_TRIES:
                self._fail()
                return
            if healthy_seconds >= HEALTHY_RESET_SECONDS:
                backoff_seconds = BACKOFF_FIRST_SECONDS
            self._change("waiting")
            await asyncio.sleep(backoff_seconds)
            backoff_seconds = min(backoff_seconds * 2, BACKOFF_LONGEST_SECONDS)

    def _fail(self) -> None:
        self._failed = StartError(
            f"{self.plan.name} ended {self.restarts} times before it served: {self.last_line or 'it said nothing'}"
        )
        self._change("stopped")
        self._settled.set()

    async def _run_once(self) -> float:
        """Run the process to its end. Returns for how many seconds it had served."""
        await asyncio.to_thread(self.plan.prepare)
        if self._stopping:
            return 0.0
        self._served_since = None
        self._tidying = False
        process, output = self._spawn()
        tasks = [asyncio.create_task(self._read(output)), asyncio.create_task(self._watch_health())]
        try:
            self._change("starting")
            status = await child.ended(process)
            # What it wrote last is read; what its own children still hold open is not waited for.
            await asyncio.wait(tasks[:1], timeout=_LAST_OUTPUT_SECONDS)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if not self._stopping:
            self._say(f"{self.plan.name} ended with status {status}")
        return time.monotonic() - self._served_since if self._served_since is not None else 0.0

    def _spawn(self) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
        read_end, write_end = os.pipe()
        output = os.fdopen(read_end, "rb", buffering=0)
        try:
            self._process = child.spawn(
                self.plan.command(),
                self.plan.environment(),
                write_end,
                death_signal=self.plan.death_signal,
                account=self.plan.account(),
                folder=self.plan.folder,
            )
        except BaseException:
            output.close()
            raise
        finally:
            os.close(write_end)
        return self._process, output

    async def _read(self, output: IO[bytes]) -> None:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), output
        )
        splitter = LineSplitter(self._take_line)
        try:
            while data := await reader.read(_READ_BYTES):
                splitter.feed(data)
            splitter.end()
        finally:
            transport.close()

    def _take_line(self, line: bytes) -> None:
        text = line.decode(errors="replace").strip()
        # What an interpreter says about objects that it could not tidy up comes after the reason why it ended.
        self._tidying = self._tidying or text.startswith("Exception ignored")
        if text and not self._tidying:
            self.last_line = text
        self._on_line(line)

    def _say(self, text: str) -> None:
        self._on_line(f"[supervisor] {text}".encode())

    async def _watch_health(self) -> None:
        while True:
            healthy = await self.plan.health.serves()
            if healthy and self.state != "ready":
                self._served_since = time.monotonic()
                self._was_ready.set()
                self._settled.set()
                self._change("ready")
            elif not healthy and self.state == "ready":
                self._change("unhealthy")
            await asyncio.sleep(_READY_POLL_SECONDS if self.state == "ready" else _STARTING_POLL_SECONDS)

    def _change(self, state: ProcessState) -> None:
        self.state = state
        self._on_change(self)
