"""`kente ledger verify`."""

from pathlib import Path
from typing import Annotated

import typer
from kente.ledger.v1 import proof_pb2, proof_service_pb2
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mesh.cli import ledger_view as view
from mesh.cli.ledger_client import LedgerClient, run
from mesh.cli.ledger_options import TenantOption
from mesh.cli.options import DEFAULT_STATE_DIR, JsonOption, StateDirOption
from mesh.cli.output import CommandError, console, error_console, print_json

_NOTE_CHARACTERS = 4_096


def verify(
    *,
    note: Annotated[
        Path | None,
        typer.Option("--note", help="A checkpoint that was kept: what is there now must be its continuation."),
    ] = None,
    save_note: Annotated[
        Path | None, typer.Option("--save-note", help="Keep the checkpoint in this file when all is well.")
    ] = None,
    tenant: TenantOption = "",
    state_dir: StateDirOption = DEFAULT_STATE_DIR,
    as_json: JsonOption = False,
) -> None:
    """Check all books from the ground up: sums, balances, holds, limits, tree, signatures, events. Status 1 on a fault.

    Keep the checkpoint somewhere else, and give it to the next run: then nothing that it covers can be changed or taken
    away without being found.
    """
    request = proof_service_pb2.VerifyBooksRequest(note=_read_note(note) if note else "")

    async def work(client: LedgerClient) -> proof_service_pb2.VerifyBooksResponse:
        return await _verify(client, request)

    result = run(state_dir, tenant, "", work, is_stream=True)
    if as_json:
        print_json(view.as_json(result))
    else:
        _show(result)
    if result.faults:
        raise SystemExit(1)
    # A checkpoint of books with a fault is nothing to trust later.
    if save_note and result.checkpoint.note:
        _write_note(save_note, result.checkpoint)


async def _verify(
    client: LedgerClient, request: proof_service_pb2.VerifyBooksRequest
) -> proof_service_pb2.VerifyBooksResponse:
    """The last answer of the check, with all faults of those before it."""
    faults: list[proof_service_pb2.BookFault] = []
    answer = proof_service_pb2.VerifyBooksResponse()
    with _progress() as bar:
        task = bar.add_task("checking entries", total=None)
        async for answer in client.proofs.VerifyBooks(request):
            faults += answer.faults
            bar.update(task, completed=answer.checked_entries, total=answer.total_entries)
    if not answer.done:
        raise CommandError("the check ended before its end: look at the ledger's log, then check again")
    del answer.faults[:]
    answer.faults.extend(faults)
    return answer


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=error_console(),
        transient=True,
    )


def _show(result: proof_service_pb2.VerifyBooksResponse) -> None:
    counts = f"{result.checked_transactions:,} transactions, {result.checked_entries:,} entries"
    if result.faults:
        console().print(view.faults_table(result.faults))
        console().print(f"[bold red]{len(result.faults)} faults[/] in {counts}")
        return
    console().print(f"[bold green]all is well[/]: {counts}")
    if result.checkpoint.note:
        root = result.checkpoint.root_hash.hex()
        console().print(f"tree of {result.checkpoint.tree_size:,} with root {root}", soft_wrap=True)


def _read_note(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} can't be read ({type(error).__name__}): name the file of a checkpoint") from error
    if not text.strip() or len(text) > _NOTE_CHARACTERS:
        raise CommandError(f"{path} holds no checkpoint: name a file that --save-note wrote")
    return text


def _write_note(path: Path, checkpoint: proof_pb2.Checkpoint) -> None:
    """Replaces the file at once: half a note would be worse than the one before."""
    beside = path.with_name(f"{path.name}.new")
    try:
        beside.write_text(checkpoint.note, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise CommandError(f"{path} can't be written ({error.strerror})") from error
