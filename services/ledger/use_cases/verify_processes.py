"""Processes that check parts of books side by side."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.ledger.model.verification import Part, PartReport


class VerifyProcesses:
    """Processes that check parts side by side."""

    def __init__(self) -> None:
        self._idle: asyncio.Queue[subprocess.Popen[bytes]] = asyncio.Queue()

    async def check(self, part: Part) -> PartReport:
        """Checks a part in whichever process is free.

        Once that has it, the part is not kept here.

        Raises:
            RuntimeError: the process ended.
        """
        process = await self._idle.get()
        await asyncio.to_thread(_give, process, part)
        del part
        report = await asyncio.to_thread(_take_report, process)
        self._idle.put_nowait(process)
        return report

    @classmethod
    @asynccontextmanager
    async def running(cls, count: int) -> AsyncIterator[VerifyProcesses]:
        """Runs so many processes until the end of the block."""
        pool = cls()
        started: list[subprocess.Popen[bytes]] = []
        try:
            for _ in range(count):
                process = await asyncio.to_thread(_start)
                started.append(process)
                pool._idle.put_nowait(process)
            yield pool
        finally:
            for process in started:
                process.kill()
            for process in started:
                await asyncio.to_thread(process.wait)


def _start() -> subprocess.Popen[bytes]:
    """Starts a process.

    Not by the event loop, which forks: what gRPC does in a forked child can end it before it is a process of its own.
    This begins one without a fork that gRPC hears of.
    """
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "services.ledger.use_cases.verify_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Addresses and secrets of the mesh are none of its business.
        env={name: value for name, value in os.environ.items() if not name.startswith("KENTE_")},
    )


def _give(process: subprocess.Popen[bytes], part: Part) -> None:
    """Gives a part to a process.

    Raises:
        RuntimeError: the process ended.
    """
    if process.stdin is None:
        raise RuntimeError("a process without pipes can check nothing")
    try:
        pickle.dump(part, process.stdin)
        process.stdin.flush()
    except BrokenPipeError:
        raise _ended(process) from None


def _take_report(process: subprocess.Popen[bytes]) -> PartReport:
    """Waits for what a process reports of its part.

    Raises:
        RuntimeError: the process ended.
    """
    if process.stdout is None:
        raise RuntimeError("a process without pipes can check nothing")
    try:
        report: PartReport = pickle.load(process.stdout)  # noqa: S301 - our own child's
    except (EOFError, pickle.UnpicklingError):
        raise _ended(process) from None
    return report


def _ended(process: subprocess.Popen[bytes]) -> RuntimeError:
    return RuntimeError(f"a process that checks books ended with status {process.poll()}")
