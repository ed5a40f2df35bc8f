"""`kente jobs`."""

import asyncio
import json
from typing import Annotated, Any

import asyncpg
import typer
from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver
from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment, QueryQueueBuilder, QuerySchedulerBuilder
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.domain.types import JobId
from rich.table import Table

from mesh.cli.database import admin_connection, reachable_plan
from mesh.cli.options import DEFAULT_STATE_DIR, JsonOption, StateDirOption
from mesh.cli.output import CommandError, console, print_json
from mesh.embedded.layout import SERVICES
from mesh.embedded.plan import MeshPlan
from mesh.jobs import job_table_settings

app = typer.Typer(help="Work for later that was given up.", no_args_is_help=True)

_LIMIT = 500


@app.command()
def held(*, state_dir: StateDirOption = DEFAULT_STATE_DIR, as_json: JsonOption = False) -> None:
    """List the jobs that failed until their last try and now wait for a decision."""
    jobs = asyncio.run(_held(reachable_plan(state_dir)))
    if as_json:
        print_json(jobs)
        return
    table = Table("id", "job", "tenant", "payload", "tries", "since")
    for job in jobs:
        payload = json.dumps(job["payload"])
        table.add_row(job["id"], job["job"], job["tenantId"], payload, str(job["attempts"]), job["updateTime"][:19])
    console().print(table if jobs else "none")


@app.command()
def retry(
    ids: Annotated[list[str], typer.Argument(help="Ids as `kente jobs held` shows them, such as payments:12.")],
    *,
    state_dir: StateDirOption = DEFAULT_STATE_DIR,
    as_json: JsonOption = False,
) -> None:
    """Run held jobs again."""
    wanted = {identifier: _split(identifier) for identifier in ids}
    retried = asyncio.run(_retry(reachable_plan(state_dir), wanted))
    missing = sorted(set(ids) - set(retried))
    if as_json:
        print_json({"retried": retried, "unknown": missing})
    else:
        console().print(f"{len(retried)} run again")
    if missing:
        raise CommandError(f"{', '.join(missing)}: no such job is held; see `kente jobs held`")


def _split(identifier: str) -> tuple[str, JobId]:
    service, _, number = identifier.partition(":")
    if service not in SERVICES or not number.isdigit():
        raise CommandError(f"{identifier} is no job id: use one such as payments:12, from `kente jobs held`")
    return service, JobId(int(number))


async def _held(plan: MeshPlan) -> list[dict[str, Any]]:
    jobs = []
    async with admin_connection(plan) as connection:
        for service in SERVICES:
            for job in await _queries(connection, service).list_failed_jobs(limit=_LIMIT):
                body = json.loads(job.payload or b"{}")
                jobs.append(
                    {
                        "id": f"{service}:{job.id}",
                        "job": f"{service}.{job.entrypoint}",
                        "tenantId": body.get("tenant_id", ""),
                        "payload": body.get("payload", {}),
                        "attempts": job.attempts,
                        "updateTime": job.updated.isoformat(),
                    }
                )
    return jobs


async def _retry(plan: MeshPlan, wanted: dict[str, tuple[str, JobId]]) -> list[str]:
    retried = []
    async with admin_connection(plan) as connection:
        for service in SERVICES:
            queries = _queries(connection, service)
            known = {job.id for job in await queries.list_failed_jobs(limit=_LIMIT)}
            found = {name: job_id for name, (owner, job_id) in wanted.items() if owner == service and job_id in known}
            if found:
                await queries.requeue_jobs(list(found.values()))
                retried += list(found)
    return retried


def _queries(connection: asyncpg.Connection, service: str) -> Queries:
    settings = job_table_settings(service)
    return Queries(
        AsyncpgDriver(connection),
        qbe=QueryBuilderEnvironment(settings=settings),
        qbq=QueryQueueBuilder(settings=settings),
        qbs=QuerySchedulerBuilder(settings=settings),
    )
