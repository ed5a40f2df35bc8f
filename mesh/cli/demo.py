"""`kente demo`."""

from pathlib import Path


def run(state_dir: Path, port_offset: int, *, as_json: bool) -> None:
    """X."""
