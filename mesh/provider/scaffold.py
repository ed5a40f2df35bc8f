"""Makes the folder of a new provider from the template."""

from __future__ import annotations

import importlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mesh.provider.folders import SLUG, domains, provider_folders

_TEMPLATE = Path(__file__).parent / "template"
_SUFFIX = ".jinja"
# Domains whose providers move money state how amounts are written.
_WITH_AMOUNTS = {"payments"}


class ScaffoldError(ValueError):
    """The folder can't be made; the message says why."""


def make_provider(domain: str, slug: str, root: Path | None = None) -> list[Path]:
    """Makes services/<domain>/providers/<slug>/ and says which files are in it.

    Args:
        domain: name of the service.
        slug: name of the provider: lower-case letters, digits and underscores.
        root: folder to make it in; the source's own when None.

    Raises:
        ScaffoldError: the domain or slug is wrong, or there is such a provider already.
    """
    if domain not in domains():
        raise ScaffoldError(f"there is no domain {domain!r} with providers: use one of {', '.join(domains())}")
    if not SLUG.fullmatch(slug):
        raise ScaffoldError(f"{slug!r} is no slug: use 2 to 40 lower-case letters, digits and underscores")
    for other in domains():
        if any(folder.name == slug for folder in provider_folders(other)):
            raise ScaffoldError(f"{other} has a provider {slug} already")
    folder = (root or _source_folder(domain)) / slug
    if folder.exists():
        raise ScaffoldError(f"{folder} is there already")
    values = {
        "domain": domain,
        "slug": slug,
        "class_name": "".join(part.capitalize() for part in slug.split("_")),
        "display_name": slug.replace("_", " ").capitalize(),
        "amount_format": "MINOR_INTEGER" if domain in _WITH_AMOUNTS else "NONE",
        "capabilities": ", ".join(_capability_names(domain)),
    }
    templates = Environment(
        loader=FileSystemLoader(_TEMPLATE),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - makes Python, not HTML
    )
    made = []
    for source in sorted(_TEMPLATE.rglob(f"*{_SUFFIX}")):
        relative = source.relative_to(_TEMPLATE)
        target = folder / relative.with_name(relative.name.removesuffix(_SUFFIX))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(templates.get_template(relative.as_posix()).render(values))
        made.append(target)
    return made


def _source_folder(domain: str) -> Path:
    return Path(importlib.import_module(f"services.{domain}.providers").__path__[0])


def _capability_names(domain: str) -> list[str]:
    port = importlib.import_module(f"services.{domain}.provider")
    return [capability.__name__ for capability in port.CAPABILITIES]
