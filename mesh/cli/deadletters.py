"""`kente deadletters`."""

import asyncio
import uuid
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated

import asyncpg
import nats
import nats.errors
import typer
from rich.table import Table

from mesh.cli.database import admin_connection, reachable_plan
from mesh.cli.options import DEFAULT_STATE_DIR, JsonOption, StateDirOption
from mesh.cli.output import CommandError, console, print_json
from mesh.embedded.layout import SERVICES
from mesh.embedded.plan import MeshPlan

app = typer.Typer(help="Events that a consumer could not handle.", no_args_is_help=True)

_CONNECT_SECONDS = 5
_LIMIT = 500


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One event that one consumer gave up."""

    dead_letter_id: str
    service: str
    consumer: str
    event_id: str
    tenant_id: str
    subject: str
    failure: str
    deliveries: int
    create_time: datetime
    redrive_time: datetime | None


@app.command("list")
def list_(
    *,
    state_dir: StateDirOption = DEFAULT_STATE_DIR,
    redriven: Annotated[bool, typer.Option("--all", help="Also those that were driven again.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List them, oldest first."""
    letters = asyncio.run(_list(reachable_plan(state_dir), redriven=redriven))
    if as_json:
        print_json([asdict(letter) for letter in letters])
        return
    table = Table("id", "consumer", "event", "tenant", "tries", "failure", "since")
    for letter in letters:
        since = letter.create_time.isoformat(timespec="seconds")
        table.add_row(
            letter.dead_letter_id,
            letter.consumer,
            letter.subject.split(".", 2)[-1],
            letter.tenant_id,
            str(letter.deliveries),
            letter.failure,
            since,
        )
    console().print(table if letters else "none")


@app.command()
def redrive(
    ids: Annotated[list[str] | None, typer.Argument(help="Which ones; see `kente deadletters list`.")] = None,
    *,
    state_dir: StateDirOption = DEFAULT_STATE_DIR,
    every: Annotated[bool, typer.Option("--all", help="All that were not driven again yet.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Publish them again. Consumers that handled such an event before do nothing; the one that failed tries anew."""
    if not ids and not every:
        raise CommandError("say which ones, or --all: see `kente deadletters list`")
    driven = asyncio.run(_redrive(reachable_plan(state_dir), set(ids or [])))
    missing = sorted(set(ids or []) - set(driven))
    if as_json:
        print_json({"redriven": driven, "unknown": missing})
    else:
        console().print(f"{len(driven)} published again")
    if missing:
        raise CommandError(f"{', '.join(missing)}: no such dead letter waits; see `kente deadletters list`")


async def _list(plan: MeshPlan, *, redriven: bool) -> list[DeadLetter]:
    letters: list[DeadLetter] = []
    async with admin_connection(plan) as connection:
        for service in SERVICES:
            rows = await _rows(connection, service, redriven=redriven)
            letters += [_letter(service, row) for row in rows]
    return sorted(letters, key=lambda letter: letter.create_time)


async def _rows(connection: asyncpg.Connection, service: str, *, redriven: bool) -> list[asyncpg.Record]:
    rows: list[asyncpg.Record] = await connection.fetch(
        f"SELECT * FROM {service}.dead_letters"  # noqa: S608 - the name is one of ours
        " WHERE $1 OR redrive_time IS NULL ORDER BY create_time LIMIT $2",
        redriven,
        _LIMIT,
    )
    return rows


def _letter(service: str, row: asyncpg.Record) -> DeadLetter:
    return DeadLetter(
        dead_letter_id=row["dead_letter_id"],
        service=service,
        consumer=row["consumer"],
        event_id=row["event_id"],
        tenant_id=row["tenant_id"],
        subject=row["subject"],
        failure=row["failure"],
        deliveries=row["deliveries"],
        create_time=row["create_time"],
        redrive_time=row["redrive_time"],
    )


async def _redrive(plan: MeshPlan, ids: set[str]) -> list[str]:
    """Publish the events of these dead letters, or of all, and mark each once the stream has it."""
    try:
        client = await nats.connect(
            (plan.outside.nats_url or plan.nats.url).split(","), connect_timeout=_CONNECT_SECONDS
        )
    except (OSError, nats.errors.Error, TimeoutError) as error:
        raise CommandError(f"NATS can't be reached ({type(error).__name__}): look with `kente status`") from error
    driven = []
    try:
        jetstream = client.jetstream()
        async with admin_connection(plan) as connection:
            for service in SERVICES:
                for row in await _rows(connection, service, redriven=False):
                    if ids and row["dead_letter_id"] not in ids:
                        continue
                    # The event's own id would be taken for a repetition and dropped by the stream.
                    headers = {"Nats-Msg-Id": f"{row['event_id']}:{uuid.uuid4()}"}
                    await jetstream.publish(row["subject"], row["event"], headers=headers)
                    await connection.execute(
                        f"UPDATE {service}.dead_letters SET redrive_time = now()"  # noqa: S608 - the name is one of ours
                        " WHERE dead_letter_id = $1",
                        row["dead_letter_id"],
                    )
                    driven.append(row["dead_letter_id"])
    finally:
        await client.close()
    return driven
