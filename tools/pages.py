"""Write the pages of docs/ that are made from the code, or check that they are current.

python -m tools.pages write
python -m tools.pages check
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

import gateway
import mesh
import services
from mesh.errors import Problem, Reason
from mesh.provider.registry import Registry
from tools.contracts import PROTO, image_of

ROOT = Path(__file__).resolve().parent.parent
WRITTEN = "<!-- Written by `make docs`; change the code instead. -->"


def settings_classes() -> list[type[BaseSettings]]:
    """Every settings class of the mesh, found in the modules named settings and in the CLI."""
    for package in (mesh, services, gateway):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith(".settings") or module.name == "mesh.cli.migrate":
                importlib.import_module(module.name)
    found = list(_descendants(BaseSettings))
    ours = [cls for cls in found if cls.model_config.get("env_prefix", "").startswith("KENTE_")]
    return sorted(ours, key=lambda cls: (cls.model_config["env_prefix"], cls.__module__))


def _descendants(cls: type[BaseSettings]) -> Iterator[type[BaseSettings]]:
    for child in cls.__subclasses__():
        yield child
        yield from _descendants(child)


def variables_of(cls: type[BaseSettings]) -> dict[str, tuple[str, str]]:
    """Environment variables of a settings class, with default and description."""
    prefix = str(cls.model_config["env_prefix"])
    table = {}
    for name, field in cls.model_fields.items():
        default = field.default
        text = "required" if default is PydanticUndefined else str(default)
        table[f"{prefix}{name.upper()}"] = (text, field.description or "")
    return table


def known_variables() -> set[str]:
    """Every environment variable that some process reads."""
    return {name for cls in settings_classes() for name in variables_of(cls)}


def settings_page() -> str:
    """docs/settings.md."""
    lines = [
        "# Settings",
        "",
        WRITTEN,
        "",
        "Read once at start, from the environment. A wrong value ends the process with a line that names the variable.",
    ]
    for cls in settings_classes():
        first = (cls.__doc__ or "").strip().splitlines()[0]
        lines += ["", f"## `{cls.model_config['env_prefix']}*` ({cls.__module__})", "", first, ""]
        lines += ["| variable | default | meaning |", "| --- | --- | --- |"]
        for name, (default, description) in variables_of(cls).items():
            shown = f"`{default}`" if default not in {"", "None"} else ""
            lines.append(f"| `{name}` | {shown} | {description} |")
    return "\n".join(lines) + "\n"


def errors_page() -> str:
    """docs/errors.md."""
    lines = [
        "# Errors",
        "",
        WRITTEN,
        "",
        "Every error carries one of these reasons in `google.rpc.ErrorInfo` (domain `kente`); REST shows the same as",
        "`application/problem+json`. `proto/kente/common/v1/errors.proto` is the registry.",
        "",
        "| reason | gRPC code | when | what to do |",
        "| --- | --- | --- | --- |",
    ]
    comments = _reason_comments()
    for reason in Reason:
        if reason:
            problem = Problem(reason)
            lines.append(f"| `{reason.name}` | {problem.code.name} | {comments[reason.value]} | {problem.remedy} |")
    return "\n".join(lines) + "\n"


def _reason_comments() -> dict[int, str]:
    files = FileDescriptorSet.FromString(image_of(PROTO)).file
    errors = next(file for file in files if file.name == "kente/common/v1/errors.proto")
    # Path of a value of the first enum in the file: enum_type (5), 0, value (2), index.
    return {
        errors.enum_type[0].value[location.path[3]].number: " ".join(location.leading_comments.split())
        for location in errors.source_code_info.location
        if len(location.path) == 4 and list(location.path[:3]) == [5, 0, 2]  # noqa: PLR2004 - see above
    }


def providers_page() -> str:
    """docs/providers.md."""
    lines = [
        "# Providers",
        "",
        WRITTEN,
        "",
        "Derived from the folders `services/<domain>/providers/<slug>/`.",
        "",
        "| provider | name | domain | can | countries | currencies |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for domain in ("payments", "notifications"):
        for facts in Registry(domain).describe():
            countries = ", ".join(sorted(facts.countries)) or "any"
            currencies = ", ".join(sorted(facts.currencies)) or "any"
            can = ", ".join(facts.capabilities)
            lines.append(f"| `{facts.slug}` | {facts.display_name} | {domain} | {can} | {countries} | {currencies} |")
    return "\n".join(lines) + "\n"


PAGES = {"settings.md": settings_page, "errors.md": errors_page, "providers.md": providers_page}


def main() -> None:
    """Write or check all pages."""
    match sys.argv[1:]:
        case ["write"]:
            for name, make in PAGES.items():
                (ROOT / "docs" / name).write_text(make())
        case ["check"]:
            stale = [name for name, make in PAGES.items() if (ROOT / "docs" / name).read_text() != make()]
            if stale:
                sys.exit(f"docs/{', docs/'.join(stale)}: not current. Run 'make docs' and commit the result.")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
