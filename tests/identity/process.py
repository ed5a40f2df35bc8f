"""A service as a process of its own, with everything it writes kept for reading."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from mesh.embedded.ports import accepts
from tests.harness import Infrastructure, eventually

_STOP_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Output:
    """What a process wrote: log lines and finished spans."""

    log_file: Path
    trace_file: Path

    def text(self) -> str:
        """All of it."""
        traces = self.trace_file.read_text() if self.trace_file.exists() else ""
        return self.log_file.read_text() + traces


@asynccontextmanager
async def running(
    name: str, infrastructure: Infrastructure, folder: Path, environment: Mapping[str, str]
) -> AsyncIterator[Output]:
    """Runs `python -m services.<name>` at its port until the end of the block, with the most talkative logs."""
    output = Output(folder / f"{name}.log", folder / f"{name}.traces")
    mesh = infrastructure.settings(name)
    kente = {
        "PYTHONUNBUFFERED": "1",
        "KENTE_DATABASE_URL": mesh.database_url.get_secret_value(),
        "KENTE_NATS_URL": mesh.nats_url,
        "KENTE_IDENTITY_FILE": str(mesh.identity_file),
        "KENTE_TRUST_BUNDLE_FILE": str(mesh.trust_bundle_file),
        "KENTE_REQUEST_HASH_KEY": mesh.request_hash_key.get_secret_value(),
        "KENTE_STATE_DIR": str(folder),
        "KENTE_LOG_LEVEL": "DEBUG",
        "KENTE_TRACE_FILE": str(output.trace_file),
        f"KENTE_{name.upper()}_PORT": str(infrastructure.ports[name]),
        f"KENTE_{name.upper()}_METRICS_PORT": "0",
        "KENTE_LEDGER_CHECKPOINT_KEY_FILE": str(infrastructure.checkpoint_key_file),
        **{f"KENTE_{peer.upper()}_ADDRESS": f"127.0.0.1:{port}" for peer, port in infrastructure.ports.items()},
    }
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("KENTE_")}
    with output.log_file.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"services.{name}", stdout=log, stderr=log, env=inherited | kente | dict(environment)
        )
        try:
            await _until_serving(infrastructure.ports[name], process, output)
            yield output
        finally:
            if process.returncode is None:
                process.terminate()
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)


async def _until_serving(port: int, process: asyncio.subprocess.Process, output: Output) -> None:
    async def is_serving() -> bool:
        assert process.returncode is None, output.text()
        return accepts(port)

    await eventually(is_serving)
