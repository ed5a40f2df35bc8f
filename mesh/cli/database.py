"""The database as its administrator, for commands that look into every service's schema."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from mesh.cli.options import plan_of, running_plan, state_at
from mesh.cli.output import CommandError
from mesh.embedded import outside
from mesh.embedded.plan import MeshPlan

_TIMEOUT_SECONDS = 5.0


def reachable_plan(state_dir: Path) -> MeshPlan:
    """The mesh whose servers can be asked: one on outside servers, or the one that runs here.

    Raises:
        CommandError: neither is there.
    """
    plan = plan_of(state_at(state_dir))
    if plan.outside.database_url and plan.outside.nats_url:
        return plan
    return running_plan(plan.state)[0]


@asynccontextmanager
async def admin_connection(plan: MeshPlan) -> AsyncIterator[asyncpg.Connection]:
    """A connection that sees every tenant.

    Raises:
        CommandError: the database can't be reached.
    """
    if fault := await outside.database_fault(plan.outside.database_url):
        raise CommandError(fault)
    try:
        connection = await asyncpg.connect(plan.admin_url, timeout=_TIMEOUT_SECONDS)
    except (TimeoutError, OSError, asyncpg.PostgresError) as error:
        raise CommandError(
            f"the embedded PostgreSQL can't be reached ({type(error).__name__}): look with `kente status`"
        ) from error
    try:
        await connection.execute("SELECT set_config('kente.tenant', '*', false)")
        yield connection
    finally:
        await connection.close()
