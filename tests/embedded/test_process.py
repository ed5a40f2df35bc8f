"""A supervised process is restarted with growing pauses, stopped with grace, and never left behind."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mesh.embedded import process as supervision
from mesh.embedded.errors import StartError
from mesh.embedded.health import HealthCheck, HttpHealth
from mesh.embedded.ports import find_free
from mesh.embedded.process import ProcessPlan, Supervised

from .conftest import is_alive

_LIMIT_SECONDS = 15.0

_WEB_SERVER = """
import http.server, os, signal, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
{before}
print("serving as", os.getpid(), flush=True)
http.server.HTTPServer(("127.0.0.1", {port}), Handler).serve_forever()
"""


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something, with a limit."""
    async with asyncio.timeout(_LIMIT_SECONDS):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.01)


class Never(HealthCheck):
    """Of a process that never serves."""

    async def serves(self) -> bool:
        return False


class Watched:
    """A supervised web server, with what it said and the states that it went through."""

    def __init__(self, before: str = "", stop_grace_seconds: float = 5.0) -> None:
        (port,) = find_free(1)
        self.lines: list[str] = []
        self.states: list[str] = []
        self.supervised = Supervised(
            ProcessPlan(
                name="web",
                command=lambda: [sys.executable, "-c", _WEB_SERVER.format(port=port, before=before)],
                environment=lambda: {"PATH": os.defpath},
                health=HttpHealth(port, "/"),
                stop_signals=((signal.SIGTERM, stop_grace_seconds),),
            ),
            on_line=lambda line: self.lines.append(line.decode()),
            on_change=lambda process: self.states.append(process.state),
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something, with a limit."""
        await until(condition)


async def test_start_returns_when_the_process_serves_and_stop_when_it_is_gone() -> None:
    watched = Watched()

    await watched.supervised.start()
    pid = watched.supervised.pid
    assert pid is not None
    assert watched.supervised.state == "ready"
    await watched.supervised.stop()

    assert not is_alive(pid)
    assert watched.lines == [f"serving as {pid}"]
    assert watched.states == ["starting", "ready", "stopped"]


async def test_a_killed_process_is_started_again() -> None:
    watched = Watched()
    await watched.supervised.start()
    first = watched.supervised.pid
    assert first is not None

    os.kill(first, signal.SIGKILL)
    # The pid is gone before the supervisor has noticed; only then does it count a restart.
    await watched.until(lambda: watched.supervised.restarts == 1 and watched.supervised.state == "ready")

    assert watched.supervised.pid not in {None, first}
    assert "[supervisor] web ended with status -9" in watched.lines
    await watched.supervised.stop()


async def test_pauses_between_restarts_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "BACKOFF_FIRST_SECONDS", 0.1)
    starts: list[float] = []
    watched = Watched()
    await watched.supervised.start()

    for restart in range(1, 4):
        pid = watched.supervised.pid
        assert pid is not None
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        await watched.until(lambda n=restart: watched.supervised.restarts == n and watched.supervised.state == "ready")  # type: ignore[misc]  # mypy infers no type for a default of a lambda
        starts.append(time.monotonic() - killed)

    assert starts[0] > 0.1
    assert starts[1] > 0.2
    assert starts[2] > 0.4
    await watched.supervised.stop()


async def test_a_process_that_serves_long_enough_is_restarted_quickly_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "HEALTHY_RESET_SECONDS", 0.0)
    monkeypatch.setattr(supervision, "BACKOFF_LONGEST_SECONDS", 60.0)
    watched = Watched()
    await watched.supervised.start()

    # Without the reset the pauses alone would be 0.2 + 0.4 + 0.8 + 1.6 + 3.2 + 6.4 s.
    begin = time.monotonic()
    for restart in range(1, 7):
        os.kill(watched.supervised.pid or 0, signal.SIGKILL)
        await watched.until(lambda n=restart: watched.supervised.restarts == n and watched.supervised.state == "ready")  # type: ignore[misc]  # as above

    assert time.monotonic() - begin < 10
    await watched.supervised.stop()


async def test_a_process_that_never_serves_ends_the_start_with_its_last_words() -> None:
    watched = Watched(before="sys.exit('the setting is wrong')")

    with pytest.raises(StartError, match="web ended 3 times before it served: the setting is wrong"):
        await watched.supervised.start()

    await watched.supervised.stop()


async def test_a_process_that_ignores_the_signal_is_killed_after_the_grace() -> None:
    watched = Watched(before="signal.signal(signal.SIGTERM, signal.SIG_IGN)", stop_grace_seconds=0.2)
    await watched.supervised.start()
    pid = watched.supervised.pid
    assert pid is not None

    await watched.supervised.stop()

    assert not is_alive(pid)


async def test_a_restart_does_not_wait_for_children_that_hold_the_output_open() -> None:
    spawn = "import subprocess; print(subprocess.Popen(['/bin/sleep', '60']).pid, flush=True)"
    watched = Watched(before=spawn)
    await watched.supervised.start()
    first = watched.supervised.pid
    sleepers = [int(watched.lines[0])]

    os.kill(first or 0, signal.SIGKILL)
    await watched.until(lambda: watched.supervised.restarts == 1 and watched.supervised.state == "ready")

    sleepers += [int(line) for line in watched.lines if line.isdigit() and int(line) not in sleepers]
    await watched.supervised.stop()
    for sleeper in sleepers:
        os.kill(sleeper, signal.SIGKILL)


async def test_stop_during_the_start_leaves_nothing(tmp_path: Path) -> None:
    process = Supervised(
        ProcessPlan(
            name="slow",
            command=lambda: ["/bin/sleep", "60"],
            environment=dict,
            health=Never(),
            folder=str(tmp_path),
        ),
        on_line=lambda _: None,
        on_change=lambda _: None,
    )
    starting = asyncio.create_task(process.start())
    await until(lambda: process.pid is not None)
    pid = process.pid
    assert pid is not None

    starting.cancel()
    await process.stop()

    assert not is_alive(pid)
