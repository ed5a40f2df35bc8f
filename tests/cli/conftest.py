"""Helpers of the tests of the command."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mesh.embedded.layout import GATEWAY, NATS, POSTGRES, SANDBOX, SERVICES, Ports

LIMIT_SECONDS = 90


@dataclass(frozen=True)
class Answer:
    """What a command wrote and how it ended."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """What it wrote, for machines."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Kente:
    """The command on one state folder, with only the settings given here."""

    state_dir: Path
    port_offset: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)

    def command(self, *arguments: str) -> list[str]:
        """The command line."""
        return [sys.executable, "-P", "-m", "mesh.cli", *arguments]

    def environment(self) -> dict[str, str]:
        """The environment, without settings of whoever runs the tests."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("KENTE_")}
        return inherited | {"KENTE_STATE_DIR": str(self.state_dir), "COLUMNS": "200"} | dict(self.settings)

    def run(self, *arguments: str) -> Answer:
        """Run to the end."""
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def up(self, *arguments: str) -> Answer:
        """Start the mesh on this command's ports."""
        return self.run("up", "--port-offset", str(self.port_offset), *arguments)


def free_offset() -> int:
    """An offset at which every port is free."""
    everything = {*SERVICES, GATEWAY, SANDBOX, POSTGRES, NATS}
    while True:
        # Below the ports that the system gives to outgoing connections.
        offset = random.randrange(2_000, 24_000)
        if not Ports.from_environment({}, offset).taken(everything):
            return offset


@pytest.fixture
def kente(tmp_path: Path) -> Kente:
    """The command on a state folder that does not exist yet."""
    return Kente(tmp_path / "state", free_offset())
