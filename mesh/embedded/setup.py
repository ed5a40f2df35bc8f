"""What must be done once before the services start, as a process of its own so that its memory is given back.

Run by the supervisor as `python -m mesh.embedded.setup` with the environment of the mesh: makes the identities, waits
for the database and brings its schemas up to date.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Final

from mesh.embedded.errors import StartError
from mesh.embedded.keys import load_or_create
from mesh.embedded.layout import GATEWAY, OPERATOR, SANDBOX, SERVICES, StateDir
from mesh.embedded.plan import MeshPlan
from mesh.migrations import migrate
from mesh.tokens import create_identities, create_private_key

IDENTITIES: Final = (*SERVICES, GATEWAY, SANDBOX, OPERATOR)
_POLL_SECONDS = 0.02


async def set_up(plan: MeshPlan) -> list[str]:
    """Make the keys and migrate. Returns the names of the migrations that were applied.

    Raises:
        StartError: the database did not come up within the start limit, or a migration failed.
    """
    create_identities(plan.state.identities, IDENTITIES)
    create_private_key(plan.state.checkpoint_key_file)
    if not plan.outside.database_url:
        await _wait_for_postgres(plan)
    try:
        return await migrate(plan.admin_url, load_or_create(plan.state).role_passwords)
    except SystemExit as error:
        raise StartError(str(error)) from error


async def _wait_for_postgres(plan: MeshPlan) -> None:
    server = plan.postgres
    deadline = time.monotonic() + plan.settings.start_limit_seconds
    while not server.is_ready():
        if time.monotonic() > deadline:
            raise StartError("the embedded PostgreSQL did not come up in time")
        await asyncio.sleep(_POLL_SECONDS)


def main() -> None:
    """Set up, print what was applied as a JSON list; on failure one line and status 2."""
    plan = MeshPlan.from_environment(StateDir(Path(os.environ["KENTE_STATE_DIR"])), dict(os.environ))
    try:
        applied = asyncio.run(set_up(plan))
    except StartError as error:
        print(error, file=sys.stderr)  # noqa: T201 - read by the supervisor
        raise SystemExit(2) from None
    print(json.dumps(applied))  # noqa: T201 - as above


if __name__ == "__main__":
    main()
