"""Fixtures that all tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mesh.ids import new_id
from tests.harness import Infrastructure, TestMesh, start_infrastructure


@pytest.fixture(scope="session")
def infrastructure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Infrastructure]:
    """PostgreSQL and NATS for the whole run."""
    folder: Path = tmp_path_factory.mktemp("kente")
    started = start_infrastructure(folder)
    yield started
    started.nats.stop()
    started.postgres.stop()


@pytest.fixture(scope="module")
async def test_mesh(infrastructure: Infrastructure) -> AsyncIterator[TestMesh]:
    """Services that the tests of one module start."""
    mesh = TestMesh(infrastructure)
    yield mesh
    await mesh.close()


@pytest.fixture
def tenant_id() -> str:
    """A tenant of this test's own."""
    return new_id("ten")
