"""`kente ledger export`."""

import sys
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

import typer
from kente.ledger.v1 import ledger_pb2, report_service_pb2
from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TransferSpeedColumn

from mesh.cli.ledger_bundle import export_bundle
from mesh.cli.ledger_client import LedgerClient, run
from mesh.cli.ledger_input import parse_rates, parse_time
from mesh.cli.ledger_options import (
    BookedOption,
    BookOption,
    FromOption,
    PresentationOption,
    RateOption,
    TenantOption,
    ToOption,
)
from mesh.cli.options import DEFAULT_STATE_DIR, JsonOption, StateDirOption
from mesh.cli.output import CommandError, console, error_console, print_json

_FORMATS = ("csv", "xlsx", "json", "hledger", "beancount")
_REPORTS = ("entries", "statement", "trial-balance", "balance-sheet", "profit-and-loss")
_STANDARD_OUTPUT = "-"


def export(
    *,
    form: Annotated[str, typer.Option("--format", help=f"One of {', '.join(_FORMATS)}.")] = "csv",
    report: Annotated[str, typer.Option("--report", help=f"One of {', '.join(_REPORTS)}.")] = "entries",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write; - for standard output.")] = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="Write all records and proofs instead, for kente-verify.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    account: Annotated[str, typer.Option("--account", help="Account of a statement.")] = "",
    start: FromOption = "",
    end: ToOption = "",
    booked: BookedOption = "",
    presentation: PresentationOption = "",
    rate: RateOption = None,
    tenant: TenantOption = "",
    book: BookOption = "",
    state_dir: StateDirOption = DEFAULT_STATE_DIR,
    as_json: JsonOption = False,
) -> None:
    """Write entries or a report into a file, or everything that proves the books into a bundle."""
    if (output is None) == (bundle is None):
        raise CommandError("say where it goes: -o FILE for a file, or --bundle FILE for the bundle of proofs")
    if bundle and (account or start or end or booked or presentation or book):
        raise CommandError("a bundle proves everything that was ever booked: give --bundle without a choice of entries")
    target = output or bundle or Path(_STANDARD_OUTPUT)
    request = report_service_pb2.ExportReportRequest(
        book_name=book,
        kind=report_service_pb2.ReportKind.Value(f"REPORT_KIND_{_one_of(report, _REPORTS, '--report')}"),
        format=report_service_pb2.ReportFormat.Value(f"REPORT_FORMAT_{_one_of(form, _FORMATS, '--format')}"),
        start_time=parse_time(start, "--from"),
        end_time=parse_time(end, "--to"),
        booking_time=parse_time(booked, "--booked"),
        account_name=account,
        presentation_currency=presentation,
        rates=[
            ledger_pb2.Rate(currency=code, rate=text) for code, text in parse_rates(rate or [], presentation).items()
        ],
    )

    async def work(client: LedgerClient) -> int:
        with _opened(target, force=force) as file:
            if bundle is not None:
                return await _bundle(client, file)
            return await _copy(client.reports.ExportReport(request), file)

    written = run(state_dir, tenant, book, work, is_stream=True)
    if str(target) == _STANDARD_OUTPUT:
        return
    if as_json:
        print_json({"file": str(target), "bytes": written})
    else:
        console().print(f"{target}: {written:,} bytes", soft_wrap=True)


def _one_of(word: str, words: tuple[str, ...], option: str) -> str:
    """The word as the contract spells it."""
    if word not in words:
        raise CommandError(f"{option} {word} is none: use one of {', '.join(words)}")
    return word.upper().replace("-", "_")


async def _copy(parts: AsyncIterable[report_service_pb2.ExportReportResponse], file: IO[bytes]) -> int:
    """Writes the parts as they come. Returns the number of bytes."""
    written = 0
    with _progress() as bar:
        task = bar.add_task("exporting", total=None)
        async for part in parts:
            written += file.write(part.data)
            bar.update(task, completed=written)
    return written


async def _bundle(client: LedgerClient, file: IO[bytes]) -> int:
    """Writes everything that proves the books. Returns the number of bytes."""
    with _progress() as bar:
        task = bar.add_task("exporting", total=None)
        return await export_bundle(
            client.proofs,
            file,
            lambda count, tree_size: bar.update(task, description=f"exporting {count:,} of {tree_size:,} records"),
        )


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
        console=error_console(),
        transient=True,
    )


@contextmanager
def _opened(target: Path, *, force: bool) -> Iterator[IO[bytes]]:
    """The file to write. It gets its name when it is complete: half a file is never taken for a whole one.

    Raises:
        CommandError: it is there already, or can't be written.
    """
    if str(target) == _STANDARD_OUTPUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if target.exists() and not force:
        raise CommandError(f"{target} is there already: choose another, or say --force")
    beside = target.with_name(f"{target.name}.part")
    try:
        with beside.open("wb") as file:
            yield file
        beside.replace(target)
    except OSError as error:
        raise CommandError(f"{target} can't be written ({error.strerror})") from error
    finally:
        beside.unlink(missing_ok=True)
