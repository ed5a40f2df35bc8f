"""A ledger of real processes of its own, in which everything can be broken."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import asyncpg
from pydantic import SecretStr

from mesh.embedded.child import launch_command
from mesh.embedded.ports import accepts
from tests.harness import PASSWORD, Infrastructure, TestMesh, eventually, free_ports, start_infrastructure
from tests.mesh import faults
from tests.mesh.process import environment_of
from tests.system.severing import SeveringProxy, Trap
from tests.system.timed_ledger import CLOCK_FILE

ROOT = Path(__file__).parents[2]
_RESTART_SECONDS = 0.1
# As PostgreSQL says it when the disk is full, in the middle of a transaction.
_FULL_DISK = """
    CREATE OR REPLACE FUNCTION ledger.fill_disk() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
    END $$;
    CREATE OR REPLACE TRIGGER full_disk BEFORE INSERT ON ledger.outbox
        FOR EACH STATEMENT EXECUTE FUNCTION ledger.fill_disk();
"""
_EMPTY_DISK = """
    DROP TRIGGER IF EXISTS full_disk ON ledger.outbox;
    DROP FUNCTION IF EXISTS ledger.fill_disk();
"""


class LedgerWorld:
    """PostgreSQL, NATS, and one ledger process that is started anew whenever it ends."""

    def __init__(self, folder: Path) -> None:
        """Starts PostgreSQL and NATS. To be called by the main thread."""
        self.folder = folder
        self.infrastructure: Infrastructure = start_infrastructure(folder)
        self.mesh = TestMesh(self.infrastructure)
        self._clock_file = folder / "clock"
        self._process: asyncio.subprocess.Process | None = None
        self._restarting = asyncio.Lock()

    async def start(self) -> None:
        """Starts the ledger, and keeps it running."""
        postgres = self.infrastructure.postgres
        (proxy_port,) = free_ports(1)
        self.proxy = SeveringProxy(proxy_port, postgres.port)
        await self.proxy.start()
        self.set_clock(0)
        url = postgres.url("kente_ledger", PASSWORD).replace(f":{postgres.port}/", f":{proxy_port}/")
        self._environment = {
            **environment_of(self.infrastructure, "ledger", database_url=SecretStr(url)),
            "PYTHONUNBUFFERED": "1",
            "KENTE_LEDGER_PORT": str(self.infrastructure.ports["ledger"]),
            "KENTE_LEDGER_METRICS_PORT": "0",
            # So few that batches are decided ahead under the load of these runs.
            "KENTE_LEDGER_AHEAD_POSTINGS": "2",
            "KENTE_WRITE_RATE_PER_SECOND": "100000",
            "KENTE_READ_RATE_PER_SECOND": "100000",
            CLOCK_FILE: str(self._clock_file),
        }
        self._keeper = asyncio.create_task(self._keep())
        await self.wait_ready()

    async def stop(self) -> None:
        """Stops everything."""
        self._keeper.cancel()
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()
        await self.mesh.close()
        await self.proxy.stop()
        await self.infrastructure.nats.stop_async()
        await self.infrastructure.postgres.stop_async()

    async def _keep(self) -> None:
        """Does what a supervisor does."""
        while True:
            with (self.folder / "ledger.log").open("ab") as log:
                command = launch_command([sys.executable, "-m", "tests.system.timed_ledger"])
                self._process = await asyncio.create_subprocess_exec(
                    *command, stdout=log, stderr=log, env=self._environment, cwd=ROOT
                )
            await self._process.wait()
            await asyncio.sleep(_RESTART_SECONDS)

    async def wait_ready(self) -> None:
        """Waits until the ledger takes calls."""

        async def is_ready() -> bool:
            return accepts(self.infrastructure.ports["ledger"])

        await eventually(is_ready, timeout_seconds=60)

    # Faults

    async def kill_service(self) -> None:
        """As kill -9 does."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def restart_postgres(self) -> None:
        """Kills PostgreSQL and starts it again."""
        # A second kill may come while the first is still being mended.
        async with self._restarting:
            await faults.restart(self.infrastructure.postgres)

    async def lose_nats(self, seconds: float) -> None:
        """Kills NATS and starts it again some time later."""
        await faults.kill(self.infrastructure.nats)
        await asyncio.sleep(seconds)
        await self.infrastructure.nats.start_async()

    async def fill_disk(self, seconds: float) -> None:
        """Lets nothing more be written to the outbox for some time."""
        await self._run_sql(_FULL_DISK)
        await asyncio.sleep(seconds)
        await self._run_sql(_EMPTY_DISK)

    def set_clock(self, wrong_seconds: float) -> None:
        """Sets the ledger's clock wrong. What reads the file must never find half of it."""
        new = self._clock_file.with_suffix(".new")
        new.write_text(str(wrong_seconds))
        new.replace(self._clock_file)

    def set_trap(self, trap: Trap) -> None:
        """Lets something happen at a statement of the ledger."""
        self.proxy.set(trap)

    async def mend(self) -> None:
        """Ends all faults that last."""
        self.proxy.set(None)
        await self.proxy.wait_sprung()
        self.set_clock(0)
        await self._run_sql(_EMPTY_DISK)
        await self.wait_ready()

    async def _run_sql(self, statements: str) -> None:
        async def is_done() -> bool:
            try:
                connection = await asyncpg.connect(self.infrastructure.postgres.admin_url, timeout=5)
                try:
                    await connection.execute(statements)
                finally:
                    await connection.close()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                return False
            return True

        await eventually(is_done, timeout_seconds=60)
