"""Where providers are: folders services/<domain>/providers/<slug>/."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

SLUG = re.compile(r"[a-z][a-z0-9_]{1,39}")


def provider_folders(domain: str) -> Iterator[Path]:
    """The folders of a domain's providers; none when the domain has no providers.

    A folder whose name starts with an underscore holds what several adapters share, such as a family's protocol.
    """
    try:
        package = importlib.import_module(f"services.{domain}.providers")
    except ModuleNotFoundError:
        return
    for root in package.__path__:
        for folder in sorted(Path(root).iterdir()):
            if folder.is_dir() and SLUG.fullmatch(folder.name):
                yield folder


def domains() -> tuple[str, ...]:
    """Names of the domains that have a port for providers, sorted."""
    package = importlib.import_module("services")
    found = {
        folder.name
        for root in package.__path__
        for folder in Path(root).iterdir()
        if (folder / "providers" / "__init__.py").is_file() and (folder / "provider.py").is_file()
    }
    return tuple(sorted(found))
