"""`kente providers`: what can be reached, and a start for what can't be yet."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mesh.cli.options import JsonOption
from mesh.cli.output import CommandError, console, print_json
from mesh.provider.folders import domains
from mesh.provider.registry import IncompleteProvider, Registry
from mesh.provider.scaffold import ScaffoldError, make_provider

app = typer.Typer(help="Outside providers, each a folder of the source.", no_args_is_help=True)

_SHOWN_MAX = 4


@app.command("list")
def list_(
    *,
    domain: Annotated[str, typer.Option("--domain", help="Only those of one service.")] = "",
    as_json: JsonOption = False,
) -> None:
    """List the providers with what each can do. A folder that is not complete is named with what it lacks."""
    if domain and domain not in domains():
        raise CommandError(f"there is no domain {domain!r} with providers: use one of {', '.join(domains())}")
    found, incomplete = [], []
    for name in [domain] if domain else domains():
        registry = Registry(name)
        for slug in registry.slugs():
            try:
                found.append(registry.facts(slug))
            except IncompleteProvider as error:
                incomplete.append(str(error))
    if as_json:
        print_json({"providers": [asdict(facts) for facts in found], "incomplete": incomplete})
        return
    table = Table("provider", "name", "can", "countries", "currencies")
    for facts in found:
        table.add_row(
            f"{facts.slug}\n[dim]{facts.domain}[/]",
            facts.display_name,
            "\n".join(facts.capabilities),
            _some(facts.countries, "all"),
            _some(facts.currencies, "any"),
        )
    console().print(table)
    for line in incomplete:
        console().print(f"[yellow]incomplete[/] {line}", soft_wrap=True)


@app.command()
def new(
    domain: Annotated[str, typer.Argument(help="Service that it belongs to, such as payments.")],
    slug: Annotated[str, typer.Argument(help="Name of its folder, such as mtn_momo.")],
    *,
    root: Annotated[Path | None, typer.Option("--root", help="Make the folder here instead of in the source.")] = None,
) -> None:
    """Make the folder of a new provider from the template."""
    try:
        made = make_provider(domain, slug, root)
    except ScaffoldError as error:
        raise CommandError(str(error)) from None
    for path in made:
        console().print(f"made {path}", soft_wrap=True)
    console().print(
        f"\n1. Fill in the facts of adapter.py and inherit what {slug} can do from services/{domain}/provider.py.\n"
        "2. Write simulator.py from its documentation, not from the adapter.\n"
        "3. Put requests and answers of its documentation into examples/.\n"
        f"4. Run pytest tests/providers -k {slug}: it says what is missing.",
        soft_wrap=True,
    )


def _some(codes: tuple[str, ...], none: str) -> str:
    shown = " ".join(codes[:_SHOWN_MAX])
    return f"{shown} and {len(codes) - _SHOWN_MAX} more" if len(codes) > _SHOWN_MAX else shown or none
