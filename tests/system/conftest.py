"""One mesh of real processes for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.live import LiveMesh

# Beside a mesh at the usual ports, and beside the other tests' own.
PORT_OFFSET = 5000


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveMesh]:
    """A mesh as `kente up` runs it."""
    mesh = LiveMesh(tmp_path_factory.mktemp("live") / "state", PORT_OFFSET)
    mesh.start()
    yield mesh
    mesh.stop()
