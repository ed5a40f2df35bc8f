"""`kente events`."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import nats
import nats.errors
import typer
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError
from rich.text import Text

from mesh.bus import STREAM
from mesh.cli.database import reachable_plan
from mesh.cli.options import DEFAULT_STATE_DIR, JsonOption, StateDirOption
from mesh.cli.output import CommandError, console

app = typer.Typer(help="Events that the services published.", no_args_is_help=True)

_CONNECT_SECONDS = 5
_WAIT_SECONDS = 1.0


@app.callback()
def _group() -> None:
    """Keep `tail` a command of its own while it is the only one."""


@app.command()
def tail(
    *,
    state_dir: StateDirOption = DEFAULT_STATE_DIR,
    last: Annotated[int, typer.Option("--last", min=0, help="Begin with this many of the events before now.")] = 10,
    follow: Annotated[bool, typer.Option(help="Wait for more.")] = True,
    tenant: Annotated[str, typer.Option("--tenant", help="Only of this tenant.")] = "*",
    kind: Annotated[str, typer.Option("--type", help="Only types that begin so, such as payments.payment.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Show events as they are published. With --json one object a line."""
    url = _nats_url(state_dir)
    asyncio.run(_tail(url, f"kente.{tenant}.>", kind, last=last, follow=follow, as_json=as_json))


def _nats_url(state_dir: Path) -> str:
    plan = reachable_plan(state_dir)
    return plan.outside.nats_url or plan.nats.url


async def _tail(url: str, subject: str, kind: str, *, last: int, follow: bool, as_json: bool) -> None:
    async for event in read_events(url, subject, last=last, follow=follow):
        if kind and not event["type"].startswith(kind):
            continue
        if as_json:
            print(json.dumps(event), flush=True)  # noqa: T201 - for machines, one object a line
        else:
            console().print(_line(event), soft_wrap=True)


async def read_events(url: str, subject: str, *, last: int, follow: bool) -> AsyncIterator[dict[str, Any]]:
    """Events of the stream, oldest first.

    Args:
        url: Address of NATS.
        subject: Filter on subjects.
        last: How many of the stream's newest events to begin with; the filter is applied to these.
        follow: Wait for more, or end when there are no more.

    Raises:
        CommandError: NATS can't be reached, or there is no stream yet.
    """
    try:
        client = await nats.connect(url.split(","), connect_timeout=_CONNECT_SECONDS, allow_reconnect=follow)
    except (OSError, nats.errors.Error, TimeoutError) as error:
        raise CommandError(f"NATS can't be reached ({type(error).__name__}): look with `kente status`") from error
    try:
        jetstream = client.jetstream()
        try:
            newest = (await jetstream.stream_info(STREAM)).state.last_seq
        except NotFoundError:
            raise CommandError("no event was ever published: start the mesh with `kente up`") from None
        if newest == 0 and not follow:
            return
        first = max(1, newest - last + 1)
        config = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=first)
        subscription = await jetstream.subscribe(subject, stream=STREAM, ordered_consumer=True, config=config)
        while True:
            try:
                message = await subscription.next_msg(timeout=_WAIT_SECONDS)
            except (TimeoutError, nats.errors.TimeoutError):
                if follow:
                    continue
                return
            yield json.loads(message.data)
            if not follow and message.metadata.sequence.stream >= newest:
                return
    finally:
        await client.close()


def _line(event: dict[str, Any]) -> Text:
    text = Text(f"{event['time'][:23]} ", style="dim")
    text.append(f"{event['type']:<36} ", style="bold cyan")
    text.append(f"{event['subject']}  ")
    text.append(f"{event['id']} {event['kentetenant']}", style="dim")
    return text
