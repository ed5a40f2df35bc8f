"""`kente providers new`: a folder that works, passes the type checker, and is told what it still lacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mesh.provider.scaffold import ScaffoldError, make_provider

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("domain", ["payments", "notifications"])
def test_a_new_folder_passes_the_checks_of_style_and_types(tmp_path: Path, domain: str) -> None:
    made = [str(path) for path in make_provider(domain, "acme_pay", tmp_path) if path.suffix == ".py"]

    types = run("mypy", "--config-file", "pyproject.toml", *made)
    style = run("ruff", "check", "--config", "pyproject.toml", "--ignore", "INP001,CPY001", *made)
    layout = run("ruff", "format", "--check", "--config", "pyproject.toml", *made)

    assert (types.returncode, types.stdout) == (0, types.stdout)
    assert (style.returncode, style.stdout) == (0, style.stdout)
    assert (layout.returncode, layout.stdout) == (0, layout.stdout)


def test_the_contract_suite_finds_a_new_folder_and_says_what_is_missing(tmp_path: Path) -> None:
    make_provider("payments", "acme_pay", tmp_path / "payments")

    suite = run("pytest", "tests/providers", "-q", "-k", "acme_pay", KENTE_TEST_PROVIDERS=str(tmp_path))

    assert suite.returncode == 1, suite.stdout + suite.stderr
    for complaint in (
        "display_name is not filled in",
        "docstring does not say where the facts come from",
        "base_urls of sandbox is not filled in",
        'credential secret_key has no metadata["description"]',
        "it implements none of the capabilities WalletCollect",
    ):
        assert complaint in suite.stdout


def test_the_registry_lists_a_new_folder_as_incomplete(tmp_path: Path) -> None:
    make_provider("payments", "acme_pay", tmp_path)
    listing = (
        "import services.payments.providers as p, runpy, sys;"
        f"p.__path__.append({str(tmp_path)!r});"
        "sys.argv = ['kente', 'providers', 'list', '--json'];"
        "runpy.run_module('mesh.cli', run_name='__main__')"
    )

    answer = subprocess.run([sys.executable, "-c", listing], cwd=ROOT, capture_output=True, text=True, check=False)

    listed = json.loads(answer.stdout)
    assert {"mtn_momo", "stripe"} <= {facts["slug"] for facts in listed["providers"]}
    assert listed["incomplete"][0].startswith("provider acme_pay of payments")


@pytest.mark.parametrize(
    ("domain", "slug", "complaint"),
    [
        ("weather", "acme", "no domain"),
        ("payments", "Acme", "no slug"),
        ("payments", "../acme", "no slug"),
        ("payments", "mtn_momo", "has a provider mtn_momo already"),
        # Simulators of all domains share one port, and so one set of names.
        ("notifications", "stripe", "payments has a provider stripe already"),
    ],
)
def test_what_can_not_be_made_is_refused(tmp_path: Path, domain: str, slug: str, complaint: str) -> None:
    with pytest.raises(ScaffoldError, match=complaint):
        make_provider(domain, slug, tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_never_overwritten(tmp_path: Path) -> None:
    make_provider("payments", "acme_pay", tmp_path)

    with pytest.raises(ScaffoldError, match="is there already"):
        make_provider("payments", "acme_pay", tmp_path)
