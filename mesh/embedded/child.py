"""One child process that ends with its parent, and the search for those that an earlier parent left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from mesh.embedded import launch
from mesh.embedded.accounts import Account

_KILL_WAIT_SECONDS = 5.0
_END_POLL_SECONDS = 0.2
_LEFTOVER_POLL_SECONDS = 0.02


def launch_command(
    command: Sequence[str], death_signal: signal.Signals = signal.SIGTERM, account: Account | None = None
) -> list[str]:
    """The command that runs `command` as `account` and sends it `death_signal` when this process dies.

    To be started by the main thread: the kernel counts the death of the starting thread as that of the parent.
    """
    identity = f"{account.user_id}:{account.group_id}" if account else "-"
    launcher = [sys.executable, "-I", "-S", str(launch.__file__), str(int(death_signal)), str(os.getpid()), identity]
    return [*launcher, *command]


def spawn(
    command: Sequence[str],
    environment: Mapping[str, str],
    output: IO[bytes] | int,
    *,
    death_signal: signal.Signals,
    account: Account | None,
    folder: str = "/",
) -> subprocess.Popen[bytes]:
    """Start a long-lived child in its own process group, so that Ctrl-C at the terminal reaches only its parent.

    Raises:
        RuntimeError: called from a thread whose end would end the child too.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("a supervised child is started by the main thread")
    return subprocess.Popen(
        launch_command(command, death_signal, account),
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=folder,
        start_new_session=True,
    )


async def ended(process: subprocess.Popen[bytes]) -> int:
    """Return the exit status of a child as soon as it ended, also when its own children still hold its output open."""
    loop = asyncio.get_running_loop()
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        # Linux before 5.3, or the child is gone already.
        while process.poll() is None:  # noqa: ASYNC110 - nothing on such a kernel sets an event
            await asyncio.sleep(_END_POLL_SECONDS)
        return process.returncode
    exited = asyncio.Event()
    loop.add_reader(descriptor, exited.set)
    try:
        await exited.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return process.wait()


def stop(process: subprocess.Popen[bytes], signals: Sequence[tuple[signal.Signals, float]]) -> None:
    """Send each signal in turn until the process ends, waiting the given seconds after each, then SIGKILL."""
    for number, grace_seconds in signals:
        if process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            continue
    if process.poll() is None:
        process.kill()
        process.wait(_KILL_WAIT_SECONDS)


def end_leftovers(
    is_leftover: Callable[[psutil.Process], bool], gentle_signal: signal.Signals, grace_seconds: float
) -> list[int]:
    """End every process that `is_leftover` picks, with `gentle_signal` and after the grace with SIGKILL.

    Returns the ids of the processes that were found.
    """
    found = [process for process in psutil.process_iter() if _holds(is_leftover, process)]
    for number, wait_seconds in ((gentle_signal, grace_seconds), (signal.SIGKILL, _KILL_WAIT_SECONDS)):
        _send([process for process in found if _runs(process)], number)
        deadline = time.monotonic() + wait_seconds
        while any(_runs(process) for process in found) and time.monotonic() < deadline:
            time.sleep(_LEFTOVER_POLL_SECONDS)
    return [process.pid for process in found]


def _runs(process: psutil.Process) -> bool:
    """Whether it runs. One that ended and is not reaped by whoever inherited it does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _holds(is_leftover: Callable[[psutil.Process], bool], process: psutil.Process) -> bool:
    try:
        return process.pid != os.getpid() and _runs(process) and is_leftover(process)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _send(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue


def last_lines(log_file: Path, count: int = 3) -> str:
    """The end of a log, on one line, for an error message."""
    try:
        lines = log_file.read_text(errors="replace").splitlines()
    except OSError:
        return "no log was written"
    return " | ".join(line.strip() for line in lines[-count:]) or "its log is empty"
