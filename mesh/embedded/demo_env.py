"""The file with the demo tenant's environment: lines that a shell can source."""

import shlex
from collections.abc import Mapping

from mesh.embedded.files import write_private
from mesh.embedded.layout import StateDir

BASE_URL = "KENTE_BASE_URL"
API_KEY = "KENTE_API_KEY"
CLIENT_ID = "KENTE_CLIENT_ID"
TENANT_ID = "KENTE_TENANT_ID"


def write(state: StateDir, values: Mapping[str, str]) -> None:
    """Write the file, readable by its owner only."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    write_private(state.demo_file, "\n".join([*lines, ""]))


def read(state: StateDir) -> dict[str, str]:
    """What the file says; empty when there is none."""
    try:
        text = state.demo_file.read_text()
    except OSError:
        return {}
    values = {}
    for line in text.splitlines():
        name, equals, value = line.removeprefix("export ").partition("=")
        parts = shlex.split(value) if equals else []
        if parts:
            values[name] = parts[0]
    return values
