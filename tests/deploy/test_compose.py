"""The deploy files agree with the settings and with each other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from mesh.embedded.layout import SERVICES
from tools.pages import known_variables

ROOT = Path(__file__).resolve().parent.parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
VARIABLE = re.compile(r"\bKENTE_[A-Z0-9_]+")


def test_every_variable_in_the_compose_file_is_a_setting() -> None:
    used = set(VARIABLE.findall((ROOT / "docker-compose.yml").read_text()))

    assert used - known_variables() == set()


def test_every_variable_in_the_image_is_a_setting() -> None:
    used = set(VARIABLE.findall((ROOT / "Dockerfile").read_text()))

    assert used - known_variables() == set()


def test_every_value_that_must_be_set_is_in_the_example() -> None:
    needed = set(re.findall(r"\$\{(\w+):\?", (ROOT / "docker-compose.yml").read_text()))
    example = (ROOT / "deploy" / "compose.env.example").read_text()

    assert needed == set(re.findall(r"^(\w+)=", example, re.MULTILINE))


def test_every_process_of_the_mesh_has_one_command_and_a_health_check() -> None:
    for name in (*SERVICES, "gateway", "sandbox"):
        service = COMPOSE["services"][name]

        assert service["command"][:2] == ["python", "-m"]
        assert service["healthcheck"]["test"]


def test_every_process_uses_the_role_and_the_identity_of_its_own() -> None:
    for name in SERVICES:
        environment = COMPOSE["services"][name]["environment"]

        assert f"//kente_{name}:" in environment["KENTE_DATABASE_URL"]
        assert environment["KENTE_IDENTITY_FILE"].endswith(f"/{name}.jwk")


def test_prometheus_scrapes_every_service() -> None:
    scraped = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    targets = {
        target.partition(":")[0]
        for job in scraped["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    }

    assert targets >= {*SERVICES, "gateway"}


def test_the_image_does_not_run_as_root() -> None:
    users = re.findall(r"^USER (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)

    assert users
    assert users[-1] != "root"
