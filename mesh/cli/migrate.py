"""`kente migrate` and `kente identities`."""

import asyncio
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from mesh.cli.options import plan_of, state_at
from mesh.cli.output import console, print_json
from mesh.embedded import keys, outside, runfile
from mesh.embedded.layout import CHECKPOINT_KEY, SERVICES
from mesh.embedded.plan import MeshPlan
from mesh.embedded.setup import IDENTITIES
from mesh.migrations import migrate
from mesh.settings import load
from mesh.tokens import create_identities, create_private_key


class MigrateSettings(BaseSettings):
    """What `kente migrate` gives the roles that it makes on an outside database."""

    model_config = SettingsConfigDict(env_prefix="KENTE_", extra="ignore", frozen=True)

    payments_database_password: SecretStr = Field(
        SecretStr(""), description="Password that `kente migrate` gives the payments role; unchanged when empty."
    )
    identity_database_password: SecretStr = Field(
        SecretStr(""), description="Password that `kente migrate` gives the identity role; unchanged when empty."
    )
    ledger_database_password: SecretStr = Field(
        SecretStr(""), description="Password that `kente migrate` gives the ledger role; unchanged when empty."
    )
    notifications_database_password: SecretStr = Field(
        SecretStr(""), description="Password that `kente migrate` gives the notifications role; unchanged when empty."
    )
    connections_database_password: SecretStr = Field(
        SecretStr(""), description="Password that `kente migrate` gives the connections role; unchanged when empty."
    )

    def passwords(self) -> dict[str, str]:
        """The passwords that are set, by domain."""
        values = {name: getattr(self, f"{name}_database_password").get_secret_value() for name in SERVICES}
        return {name: value for name, value in values.items() if value}


def run(state_dir: Path, *, as_json: bool) -> None:
    """Migrate and print what was applied.

    Raises:
        StartError: the database can't be reached or started.
    """
    plan = plan_of(state_at(state_dir))
    if plan.outside.database_url:
        applied = _migrate_outside(plan)
    elif run_state := runfile.read_running(plan.state):
        running = plan_of(plan.state, run_state.port_offset)
        applied = asyncio.run(migrate(running.admin_url, keys.load_or_create(plan.state).role_passwords))
    else:
        applied = _migrate_embedded(plan)
    if as_json:
        print_json({"applied": applied})
        return
    for name in applied:
        console().print(f"applied {name}")
    console().print(f"{len(applied)} applied, all schemas are up to date")


def _migrate_outside(plan: MeshPlan) -> list[str]:
    passwords = load(MigrateSettings).passwords()
    if not passwords and plan.state.secrets_file.exists():
        passwords = dict(keys.load_or_create(plan.state).role_passwords)

    async def work() -> list[str]:
        await outside.check(plan.outside)
        return await migrate(plan.outside.database_url, passwords)

    return asyncio.run(work())


def _migrate_embedded(plan: MeshPlan) -> list[str]:
    """Start the embedded database for as long as it takes."""
    plan.state.create()
    with runfile.supervising(plan.state):
        passwords = keys.load_or_create(plan.state).role_passwords
        with plan.postgres as server:
            return asyncio.run(migrate(server.admin_url, passwords))


def run_identities(folder: Path, *, as_json: bool) -> None:
    """Make the keys and print their files."""
    create_identities(folder, IDENTITIES)
    create_private_key(folder / CHECKPOINT_KEY)
    files = sorted(str(path) for path in folder.iterdir())
    if as_json:
        print_json({"files": files})
        return
    for name in files:
        console().print(name)
