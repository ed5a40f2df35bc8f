"""A process that checks parts of books for another: `python -m services.ledger.use_cases.verify_worker`.

Reads parts from standard input and writes reports to standard output, each with its length before it, until its input
ends: so it ends with the process that asks, however that ends.
"""

from __future__ import annotations

import asyncio
import gc
import os
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from services.ledger.model.part_check import check_part
from services.ledger.model.verification import Part, PartReport

_LENGTH = struct.Struct(">I")
# Whoever books comes first.
_NICENESS = 5


class VerifyProcesses:
    """Processes that check parts side by side."""

    def __init__(self) -> None:
        self._idle: asyncio.Queue[asyncio.subprocess.Process] = asyncio.Queue()

    async def check(self, part: Part) -> PartReport:
        """Checks a part in whichever process is free."""
        process = await self._idle.get()
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("a process without pipes can check nothing")
        data = part.to_bytes()
        process.stdin.writelines((_LENGTH.pack(len(data)), data))
        await process.stdin.drain()
        (length,) = _LENGTH.unpack(await process.stdout.readexactly(_LENGTH.size))
        report = PartReport.from_bytes(await process.stdout.readexactly(length))
        self._idle.put_nowait(process)
        return report

    @classmethod
    @asynccontextmanager
    async def running(cls, count: int) -> AsyncIterator[VerifyProcesses]:
        """Runs so many processes until the end of the block."""
        pool = cls()
        started: list[asyncio.subprocess.Process] = []
        try:
            for _ in range(count):
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "services.ledger.use_cases.verify_worker"),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    # Addresses and secrets of the mesh are none of its business.
                    env={name: value for name, value in os.environ.items() if not name.startswith("KENTE_")},
                )
                started.append(process)
                pool._idle.put_nowait(process)
            yield pool
        finally:
            for process in started:
                with suppress(ProcessLookupError):
                    process.kill()
            for process in started:
                await process.wait()


def main() -> None:
    """Checks parts until there are none left."""
    with suppress(OSError):
        os.nice(_NICENESS)
    # Rows refer to nothing in circles, and there are so many that to look for circles takes time.
    gc.disable()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while len(header := source.read(_LENGTH.size)) == _LENGTH.size:
        report = check_part(Part.from_bytes(source.read(*_LENGTH.unpack(header)))).to_bytes()
        sink.write(_LENGTH.pack(len(report)) + report)
        sink.flush()


if __name__ == "__main__":
    main()
