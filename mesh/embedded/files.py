"""Files that only their owner may read."""

import os
from pathlib import Path


def write_private(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a file with mode 0600, whole or not at all; when durable, it is on the disk before this returns."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    with draft.open("w") as stream:
        stream.write(text)
        stream.flush()
        if durable:
            os.fsync(stream.fileno())
    draft.replace(path)
