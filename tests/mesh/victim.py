"""A process to kill: takes one job, or one call, and never ends it. Its settings are in the environment."""

from __future__ import annotations

import asyncio
import sys

from kente.ledger.v1.ledger_service_pb2 import CreateAccountRequest, CreateAccountResponse

from mesh.database import Database
from mesh.jobs import Job, JobRunner
from mesh.server import Service
from mesh.settings import MeshSettings, ServiceSettings, load
from tests.mesh.probe import Probe


async def run_job(name: str) -> None:
    """Takes a job and never finishes it."""

    async def hang(_job: Job) -> None:
        print("begun", flush=True)  # noqa: T201 - the test waits for this line
        await asyncio.Event().wait()

    mesh = load(MeshSettings)
    database = await Database.connect(mesh.database_url.get_secret_value())
    runner = JobRunner(database, "ledger", {name: hang}, max_attempts=3, heartbeat_seconds=mesh.job_heartbeat_seconds)
    await runner.run()


async def serve(port: int) -> None:
    """Takes a call and never answers it."""

    async def hang(_request: CreateAccountRequest, _context: object) -> CreateAccountResponse:
        print("begun", flush=True)  # noqa: T201 - the test waits for this line
        await asyncio.Event().wait()
        return CreateAccountResponse()

    probe = Probe()
    probe.handlers["CreateAccount"] = hang
    own = {"port": port, "metrics_port": 0}
    service = Service("ledger", load(MeshSettings), ServiceSettings(**own), probe.build)
    await service.start()
    print("serves", flush=True)  # noqa: T201 - the test waits for this line
    await asyncio.Event().wait()


if __name__ == "__main__":
    what, argument = sys.argv[1:]
    asyncio.run(run_job(argument) if what == "job" else serve(int(argument)))
