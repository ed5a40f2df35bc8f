"""The embedded NATS is a real one with a durable store, and comes back after every kind of death."""

import json
import os
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import nats
import nats.errors
import pytest

from mesh.embedded.errors import StartError
from mesh.embedded.nats import EmbeddedNats
from mesh.embedded.ports import find_free

from .conftest import is_alive, wait_for

Parents = Callable[[str], subprocess.Popen[str]]

_PARENT = """
import sys
from pathlib import Path
from mesh.embedded.nats import EmbeddedNats
server = EmbeddedNats(Path({folder!r}) / "nats", {port}, {monitor})
server.start()
print(server.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def server(folder: Path) -> Iterator[EmbeddedNats]:
    """A server of this test's own."""
    port, monitor = find_free(2)
    with EmbeddedNats(folder / "nats", port, monitor) as started:
        yield started


async def _publish(server: EmbeddedNats, text: bytes) -> None:
    client = await nats.connect(server.url)
    jetstream = client.jetstream()
    await jetstream.add_stream(name="TEST", subjects=["test.>"])
    await jetstream.publish("test.one", text)
    await client.close()


async def _last(server: EmbeddedNats) -> bytes | None:
    client = await nats.connect(server.url)
    message = await client.jetstream().get_last_msg("TEST", "test.one")
    await client.close()
    return message.data


async def test_keeps_an_acknowledged_message_when_it_is_killed(server: EmbeddedNats) -> None:
    await _publish(server, b"kept")
    assert server.pid is not None

    os.kill(server.pid, signal.SIGKILL)
    await server.start_async()

    assert await _last(server) == b"kept"


async def test_refuses_clients_without_the_password(server: EmbeddedNats) -> None:
    with pytest.raises(nats.errors.Error):
        await nats.connect(
            f"nats://127.0.0.1:{server.port}", allow_reconnect=False, connect_timeout=2, max_reconnect_attempts=0
        )


def test_syncs_every_message_and_listens_on_this_machine_only(server: EmbeddedNats) -> None:
    configuration = json.loads(server.configuration_file.read_text())

    assert configuration["jetstream"]["sync_interval"] == "always"
    assert configuration["listen"].startswith("127.0.0.1:")
    assert configuration["http"].startswith("127.0.0.1:")


def test_keeps_its_secrets_for_their_owner_only(server: EmbeddedNats) -> None:
    for path in (server.configuration_file, server.password_file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_keeps_its_password(server: EmbeddedNats) -> None:
    before = server.url

    server.stop()
    server.start()

    assert server.url == before


def test_ends_when_its_parent_is_killed(folder: Path, parents: Parents) -> None:
    port, monitor = find_free(2)
    parent = parents(_PARENT.format(folder=str(folder), port=port, monitor=monitor))
    assert parent.stdout is not None
    server_pid = int(parent.stdout.readline())

    os.kill(parent.pid, signal.SIGKILL)

    wait_for(lambda: not is_alive(server_pid), "the server ends with its parent")


def test_says_why_it_could_not_start(folder: Path, server: EmbeddedNats) -> None:
    (monitor,) = find_free(1)

    with pytest.raises(StartError, match=r"nats-server ended with status 1: .*address already in use"):
        EmbeddedNats(folder / "other", server.port, monitor).start()
