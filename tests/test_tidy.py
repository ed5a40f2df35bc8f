"""The shape of the code base, as a test."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from tools import pages

ROOT = Path(__file__).resolve().parent.parent
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 400
# A service of many RPCs stands in one file with its messages, where its callers look for them.
CONTRACT_LINES_MAX = 1200
SERVICE_FILES = {
    "__init__.py",
    "__main__.py",
    "convert.py",
    "model.py",
    "peers.py",
    "provider.py",
    "repository.py",
    "routing.py",
    "servicer.py",
    "settings.py",
}
SERVICE_FOLDERS = {"use_cases", "migrations", "providers", "templates"}
# What a large service has as a folder of that name.
SERVICE_PARTS = {"convert", "model", "repository", "servicer"}
UNFINISHED = re.compile(r"\b(?:TODO|FIXME|HACK)\b|#.*\bXXX\b|NotImplementedError|pytest\.mark\.(?:skip|xfail)\b")
BARE_IGNORE = re.compile(r"#\s*(?:type:\s*ignore|noqa)\s*$")


def tracked(*patterns: str) -> list[Path]:
    """Files of the project by pattern, without generated ones."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    paths = (ROOT / line for line in listed.stdout.splitlines())
    return [path for path in paths if path.exists() and "gen" not in path.relative_to(ROOT).parts]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_a_function_fits_on_a_screen() -> None:
    long = []
    for path in tracked("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    long.append(f"{name_of(path)}:{node.lineno} {node.name} has {lines} lines")

    assert long == []


def test_a_file_is_read_in_one_go() -> None:
    limits = {"*.py": FILE_LINES_MAX, "*.sql": FILE_LINES_MAX, "*.proto": CONTRACT_LINES_MAX}
    lines = {path: len(path.read_text().splitlines()) for pattern in limits for path in tracked(pattern)}

    assert {name_of(path): count for path, count in lines.items() if count > limits[f"*{path.suffix}"]} == {}


def test_nothing_is_left_unfinished_or_silenced_without_a_reason() -> None:
    found = [
        f"{name_of(path)}:{number} {line.strip()}"
        for path in tracked("*.py", "*.proto", "*.sql", "Makefile")
        if path != Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if UNFINISHED.search(line) or BARE_IGNORE.search(line)
    ]

    assert found == []


@pytest.mark.parametrize("service", ["payments", "identity", "ledger", "notifications", "connections"])
def test_every_service_has_the_same_file_names(service: str) -> None:
    entries = {entry.name for entry in (ROOT / "services" / service).iterdir()} - {"__pycache__"}

    assert entries <= SERVICE_FILES | SERVICE_FOLDERS | SERVICE_PARTS
    parts = {name.removesuffix(".py") for name in entries}
    assert parts >= {"__main__", "settings", "servicer", "convert", "use_cases", "migrations"}


def test_no_lock_names_an_index() -> None:
    locks = [ROOT / "requirements.lock", ROOT / "requirements-dev.lock"]

    assert [lock.name for lock in locks if re.search(r"https?://|--index-url", lock.read_text())] == []


def test_every_locked_package_has_a_hash() -> None:
    for lock in (ROOT / "requirements.lock", ROOT / "requirements-dev.lock"):
        blocks = re.split(r"^(?=[a-z0-9][^\s=]*==)", lock.read_text(), flags=re.MULTILINE)[1:]

        assert [block.splitlines()[0] for block in blocks if "--hash=sha256:" not in block] == []


@pytest.mark.parametrize("page", sorted(pages.PAGES))
def test_pages_written_from_the_code_are_current(page: str) -> None:
    assert (ROOT / "docs" / page).read_text() == pages.PAGES[page](), "run `make docs`"


def test_links_between_pages_lead_somewhere() -> None:
    broken = [
        f"{name_of(page)}: {target}"
        for page in tracked("*.md")
        for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text())
        if not (page.parent / target).exists()
    ]

    assert broken == []
