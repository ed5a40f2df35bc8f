"""The embedded PostgreSQL is a real one, is safe, and comes back after every kind of death."""

import asyncio
import json
import os
import pwd
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from mesh.embedded.accounts import unprivileged_account
from mesh.embedded.errors import StartError
from mesh.embedded.ports import accepts, find_free
from mesh.embedded.postgres import EmbeddedPostgres

from .conftest import is_alive, wait_for

Parents = Callable[[str], subprocess.Popen[str]]

# A parent that starts the server, says its process id, and waits.
_PARENT = """
import sys
from pathlib import Path
from mesh.embedded.postgres import EmbeddedPostgres
server = EmbeddedPostgres(Path({folder!r}) / "postgres", {port})
server.start()
print(server.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """One server that the tests of this module share; each leaves it running."""
    (port,) = find_free(1)
    with EmbeddedPostgres(tmp_path_factory.mktemp("shared") / "postgres", port) as started:
        yield started


async def _value(server: EmbeddedPostgres, statement: str) -> object:
    connection = await asyncpg.connect(server.admin_url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def _execute(server: EmbeddedPostgres, statement: str) -> None:
    connection = await asyncpg.connect(server.admin_url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("password_encryption", "scram-sha-256"),
        ("listen_addresses", "127.0.0.1"),
        ("jit", "off"),
        ("timezone", "UTC"),
    ],
)
async def test_runs_with_the_settings_that_keep_data_safe(
    server: EmbeddedPostgres, setting: str, expected: str
) -> None:
    assert await _value(server, f"SHOW {setting}") == expected


async def test_orders_text_by_bytes(server: EmbeddedPostgres) -> None:
    assert await _value(server, "SELECT datcollate FROM pg_database WHERE datname = current_database()") == "C"


async def test_refuses_a_wrong_password(server: EmbeddedPostgres) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(server.url("kente_admin", "wrong"))


def test_keeps_the_password_for_its_owner_only(server: EmbeddedPostgres) -> None:
    assert stat.S_IMODE(server.password_file.stat().st_mode) == 0o600
    assert not list(server.data_dir.parent.glob("*.setup"))


def test_never_runs_as_root(server: EmbeddedPostgres) -> None:
    assert server.pid is not None
    assert psutil.Process(server.pid).uids().effective != 0


async def test_keeps_data_when_stopped_and_started(server: EmbeddedPostgres) -> None:
    await _execute(server, "CREATE TABLE kept (number int); INSERT INTO kept VALUES (7)")

    await server.stop_async()
    await server.start_async()

    assert await _value(server, "SELECT number FROM kept") == 7


async def test_recovers_what_was_committed_after_its_first_process_is_killed(server: EmbeddedPostgres) -> None:
    await _execute(server, "CREATE TABLE committed (number int); INSERT INTO committed VALUES (1)")
    # A session that computes does not notice for a while that its parent is gone, and holds the shared memory.
    busy = await asyncpg.connect(server.admin_url)
    busy_pid = await busy.fetchval("SELECT pg_backend_pid()")
    os.kill(busy_pid, signal.SIGSTOP)
    assert server.pid is not None

    os.kill(server.pid, signal.SIGKILL)
    server.start()

    assert await _value(server, "SELECT number FROM committed") == 1
    assert not is_alive(busy_pid)
    busy.terminate()


async def test_recovers_after_all_of_its_processes_are_killed(server: EmbeddedPostgres) -> None:
    await _execute(server, "CREATE TABLE survived (number int); INSERT INTO survived VALUES (2)")
    assert server.pid is not None
    first = psutil.Process(server.pid)

    for process in [first, *first.children(recursive=True)]:
        process.kill()
    server.start()

    assert await _value(server, "SELECT number FROM survived") == 2


async def test_starts_though_an_old_pid_file_names_a_process_of_somebody_else(server: EmbeddedPostgres) -> None:
    await server.stop_async()
    # Ids are used again: this one now belongs to an innocent process of the same user.
    account = unprivileged_account(server.data_dir)
    innocent = await asyncio.create_subprocess_exec("/bin/sleep", "60", user=account.user_id if account else None)
    try:
        pid_file = server.data_dir / "postmaster.pid"
        pid_file.write_text(f"{innocent.pid}\n{server.data_dir}\n1\n{server.port}\n\n127.0.0.1\n\nready\n")

        await server.start_async()

        assert await _value(server, "SELECT 1") == 1
        assert innocent.returncode is None
    finally:
        innocent.kill()
        await innocent.wait()


def test_initialises_anew_over_a_half_made_folder(folder: Path) -> None:
    (port,) = find_free(1)
    (folder / "postgres.new" / "base").mkdir(parents=True)
    (folder / "postgres.new" / "PG_VERSION").write_text("18\n")

    with EmbeddedPostgres(folder / "postgres", port) as server:
        assert accepts(server.port)

    assert not (folder / "postgres.new").exists()


def test_says_what_to_do_when_the_password_is_lost(folder: Path) -> None:
    (port,) = find_free(1)
    server = EmbeddedPostgres(folder / "postgres", port)
    server.prepare()
    server.password_file.unlink()

    with pytest.raises(StartError, match=r"postgres\.password is missing: restore it"):
        server.start()


def test_ends_when_its_parent_is_killed_and_starts_again(folder: Path, parents: Parents) -> None:
    (port,) = find_free(1)
    parent = parents(_PARENT.format(folder=str(folder), port=port))
    assert parent.stdout is not None
    server_pid = int(parent.stdout.readline())

    os.kill(parent.pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(server_pid), "the server ends with its parent")

    with EmbeddedPostgres(folder / "postgres", port) as server:
        assert accepts(server.port)


def test_ends_a_server_that_was_left_on_the_same_data(folder: Path, parents: Parents) -> None:
    first_port, second_port = find_free(2)
    parent = parents(_PARENT.format(folder=str(folder), port=first_port))
    assert parent.stdout is not None
    left_pid = int(parent.stdout.readline())

    with EmbeddedPostgres(folder / "postgres", second_port) as server:
        assert accepts(server.port)
        assert not is_alive(left_pid)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_adds_no_more_than_traversal_to_the_folders_above(tmp_path: Path) -> None:
    (port,) = find_free(1)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)

    with EmbeddedPostgres(closed / "postgres", port) as server:
        assert accepts(server.port)

    assert stat.S_IMODE(closed.stat().st_mode) == 0o701


def _runs_as_nobody() -> bool:
    """Whether this test run can start an interpreter as another user: it may lie where only root may go."""
    if os.geteuid() != 0:
        return False
    try:
        nobody = pwd.getpwnam("nobody").pw_uid
        command = [sys.executable, "-c", "import mesh.embedded.postgres"]
        return subprocess.run(command, user=nobody, capture_output=True, check=False, cwd="/").returncode == 0
    except (KeyError, OSError):
        return False


@pytest.mark.skipif(not _runs_as_nobody(), reason="no interpreter that an ordinary user can start")
def test_runs_for_an_ordinary_user(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    own = tmp_path / "own"
    own.mkdir()
    os.chown(own, nobody.pw_uid, nobody.pw_gid)
    for above in own.parents:
        if not above.stat().st_mode & stat.S_IXOTH:
            above.chmod(stat.S_IMODE(above.stat().st_mode) | stat.S_IXOTH)
    (port,) = find_free(1)
    script = (
        "import json, os; from pathlib import Path; from mesh.embedded.postgres import EmbeddedPostgres\n"
        f"with EmbeddedPostgres(Path({str(own)!r}) / 'postgres', {port}) as server:\n"
        "    print(json.dumps([os.getuid(), server.account is None, server.is_ready()]))"
    )

    answer = subprocess.run(
        [sys.executable, "-c", script],
        user=nobody.pw_uid,
        group=nobody.pw_gid,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )

    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == [nobody.pw_uid, True, True]
