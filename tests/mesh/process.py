"""The environment of a process of the mesh, as `kente up` makes it."""

from __future__ import annotations

import os
from typing import Any

from pydantic import SecretStr

from tests.harness import Infrastructure


def environment_of(infrastructure: Infrastructure, process: str, **overrides: Any) -> dict[str, str]:
    """The shared settings of a process, as environment variables."""
    mesh = infrastructure.settings(process, **overrides)
    values = {f"KENTE_{name.upper()}": getattr(mesh, name) for name in mesh.model_fields_set}
    texts = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else str(value) for name, value in values.items()
    }
    if process == "ledger":
        texts["KENTE_LEDGER_CHECKPOINT_KEY_FILE"] = str(infrastructure.checkpoint_key_file)
    return {"PATH": os.environ["PATH"], **texts}
