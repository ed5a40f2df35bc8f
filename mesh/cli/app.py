"""The commands, each in a module of its own that is imported only when it is used."""

import importlib.util
import os
import traceback
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from mesh.cli.options import DEFAULT_STATE_DIR, JsonOption, PortOffsetOption, StateDirOption
from mesh.cli.output import CommandError, error_console
from mesh.embedded.errors import StartError

USER_ERROR_STATUS = 2

app = typer.Typer(
    name="kente",
    help="A financial-integration mesh on one machine: start it, look at it, try it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def _common(
    *,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the traceback of an error.")] = False,
) -> None:
    if verbose:
        os.environ["KENTE_VERBOSE"] = "1"


@app.command()
def up(
    *,
    state_dir: StateDirOption = DEFAULT_STATE_DIR,
    port_offset: PortOffsetOption = 0,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when the mesh is ready, and keep it running.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Don't repeat what the processes write.")] = False,
) -> None:
    """Start the whole mesh and keep it running until Ctrl-C."""
    from mesh.cli import up as command  # noqa: PLC0415 - commands are imported when used

    if detach:
        command.run_detached(state_dir, port_offset)
    else:
        command.run_foreground(state_dir, port_offset, quiet=quiet)


@app.command()
def down(*, state_dir: StateDirOption = DEFAULT_STATE_DIR) -> None:
    """Stop the mesh that runs in the background or in another terminal. Its state is kept."""
    from mesh.cli import down as command  # noqa: PLC0415 - as above

    command.run(state_dir)


@app.command()
def status(*, state_dir: StateDirOption = DEFAULT_STATE_DIR, as_json: JsonOption = False) -> None:
    """Show every process: id, ports, health, uptime, memory. Status 1 when something does not serve."""
    from mesh.cli import status as command  # noqa: PLC0415 - as above

    command.run(state_dir, as_json=as_json)


@app.command()
def doctor(
    *, state_dir: StateDirOption = DEFAULT_STATE_DIR, port_offset: PortOffsetOption = 0, as_json: JsonOption = False
) -> None:
    """Look for what would keep the mesh from running, and say what to do. Status 1 when something would."""
    from mesh.cli import doctor as command  # noqa: PLC0415 - as above

    command.run(state_dir, port_offset, as_json=as_json)


@app.command()
def migrate(*, state_dir: StateDirOption = DEFAULT_STATE_DIR, as_json: JsonOption = False) -> None:
    """Bring the database's schemas up to date: that of KENTE_DATABASE_URL, or else the embedded one."""
    from mesh.cli import migrate as command  # noqa: PLC0415 - as above

    command.run(state_dir, as_json=as_json)


@app.command()
def identities(
    *,
    folder: Annotated[Path, typer.Argument(help="Where the keys go.")] = DEFAULT_STATE_DIR / "identities",
    as_json: JsonOption = False,
) -> None:
    """Make the missing ones of: each process's private key, the bundle of public ones, the key of checkpoints."""
    from mesh.cli import migrate as command  # noqa: PLC0415 - as above

    command.run_identities(folder, as_json=as_json)


@app.command()
def seed(*, state_dir: StateDirOption = DEFAULT_STATE_DIR, as_json: JsonOption = False) -> None:
    """Make the demo tenant, its API key and its connections to the sandbox, where they are not there yet."""
    from mesh.cli import seed as command  # noqa: PLC0415 - as above

    command.run(state_dir, as_json=as_json)


@app.command()
def sandbox(*, state_dir: StateDirOption = DEFAULT_STATE_DIR, port_offset: PortOffsetOption = 0) -> None:
    """Run only the provider sandbox, in the foreground."""
    from mesh.cli import sandbox as command  # noqa: PLC0415 - as above

    command.run(state_dir, port_offset)


@app.command()
def demo(
    *, state_dir: StateDirOption = DEFAULT_STATE_DIR, port_offset: PortOffsetOption = 0, as_json: JsonOption = False
) -> None:
    """Take a mobile-money payment through the whole mesh and show every hop."""
    from mesh.cli import demo as command  # noqa: PLC0415 - as above

    command.run(state_dir, port_offset, as_json=as_json)


# Groups of commands: modules with a typer app named `app`.
_GROUPS = ("deadletters", "events", "jobs", "ledger", "providers")


def _add_groups(arguments: list[str]) -> None:
    """Add the group that is called for, or all of them when the user asks what there is."""
    called = [name for name in _GROUPS if name in arguments]
    known = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    for name in called or (_GROUPS if not known & set(arguments) else ()):
        if importlib.util.find_spec(f"mesh.cli.{name}") is not None:
            app.add_typer(importlib.import_module(f"mesh.cli.{name}").app, name=name)


def run(arguments: list[str]) -> int:
    """Run one command line. Returns the exit status."""
    _add_groups(arguments)
    try:
        app(arguments, prog_name="kente")
    except (CommandError, StartError) as error:
        return _tell(str(error))
    except SystemExit as end:
        # Parts of the mesh end a process this way, with one line for the user or after having printed it.
        return _tell(end.code) if isinstance(end.code, str) else int(end.code or 0)
    return 0


def _tell(message: str) -> int:
    if os.environ.get("KENTE_VERBOSE"):
        traceback.print_exc()
    text = Text("kente: ", style="bold red").append(message, style="default not bold")
    error_console().print(text, soft_wrap=True)
    return USER_ERROR_STATUS
