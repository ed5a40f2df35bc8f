"""Notifications as a process of its own, to be killed, with everything it writes kept for reading."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from mesh.embedded.ports import accepts
from tests.harness import Infrastructure, eventually

# So that tests need not wait for what is patient in production.
SETTINGS = {
    "KENTE_CONNECTIONS_ENCRYPTION_KEYS": f"k1:{base64.b64encode(b'.' * 32).decode()}",
    "KENTE_NOTIFICATIONS_RETRY_FIRST_SECONDS": "0.05",
    "KENTE_NOTIFICATIONS_RETRY_LONGEST_SECONDS": "0.3",
    "KENTE_NOTIFICATIONS_UNKNOWN_RECHECK_SECONDS": "0.3",
    "KENTE_NOTIFICATIONS_CONNECTIONS_CACHE_SECONDS": "0.2",
}
_STOP_SECONDS = 10


class ServiceProcess:
    """Runs `python -m services.notifications` at its port, with the most talkative logs."""

    def __init__(self, infrastructure: Infrastructure, folder: Path, environment: Mapping[str, str]) -> None:
        self.log_file = folder / "notifications.log"
        self.trace_file = folder / "notifications.traces"
        self._port = infrastructure.ports["notifications"]
        mesh = infrastructure.settings("notifications")
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("KENTE_")},
            **SETTINGS,
            "PYTHONUNBUFFERED": "1",
            "KENTE_DATABASE_URL": mesh.database_url.get_secret_value(),
            "KENTE_NATS_URL": mesh.nats_url,
            "KENTE_IDENTITY_FILE": str(mesh.identity_file),
            "KENTE_TRUST_BUNDLE_FILE": str(mesh.trust_bundle_file),
            "KENTE_REQUEST_HASH_KEY": mesh.request_hash_key.get_secret_value(),
            "KENTE_STATE_DIR": str(folder),
            "KENTE_LOG_LEVEL": "DEBUG",
            "KENTE_TRACE_FILE": str(self.trace_file),
            "KENTE_JOB_HEARTBEAT_SECONDS": "2",
            "KENTE_NOTIFICATIONS_PORT": str(self._port),
            "KENTE_NOTIFICATIONS_METRICS_PORT": "0",
            **{f"KENTE_{peer.upper()}_ADDRESS": f"127.0.0.1:{port}" for peer, port in infrastructure.ports.items()},
            **environment,
        }
        self._process: asyncio.subprocess.Process | None = None

    def output(self) -> str:
        """Log lines and finished spans."""
        traces = self.trace_file.read_text() if self.trace_file.exists() else ""
        return self.log_file.read_text() + traces

    async def start(self) -> None:
        """Starts it and waits until it serves."""
        with self.log_file.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.notifications", stdout=log, stderr=log, env=self._environment
            )
        self._process = process

        async def is_serving() -> bool:
            assert process.returncode is None, self.output()
            return accepts(self._port)

        await eventually(is_serving)

    async def kill(self) -> None:
        """Ends it as kill -9 does: nothing of it runs any more."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        """Ends it in order."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
