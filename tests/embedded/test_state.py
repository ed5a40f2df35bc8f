"""Ports, locks, leftovers, keys and logs of one installation."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mesh.embedded import demo_env, keys, runfile
from mesh.embedded.errors import StartError
from mesh.embedded.layout import PORT_SETTINGS, Ports, StateDir
from mesh.embedded.logs import LineSplitter, LogFile, console_line
from mesh.embedded.plan import MeshPlan, with_credentials
from mesh.embedded.ports import find_free

from .conftest import is_alive, wait_for


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    """An empty state folder."""
    made = StateDir(tmp_path / "state")
    made.create()
    return made


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing."""
    process = subprocess.Popen(["/bin/sleep", "60"])
    yield process
    process.kill()
    process.wait()


def test_ports_are_the_documented_ones_by_default() -> None:
    ports = Ports.from_environment({})

    assert ports.of("payments", "grpc") == 7401
    assert ports.of("connections", "metrics") == 7505
    assert ports.url("gateway") == "http://127.0.0.1:8080"
    assert ports.of_process("sandbox") == {"http": 7480, "smtp": 7425}


def test_an_offset_shifts_every_port_also_those_that_are_set() -> None:
    ports = Ports.from_environment({"KENTE_GATEWAY_PORT": "9000"}, offset=100)

    assert ports.of("gateway", "http") == 9100
    assert ports.of("ledger", "grpc") == 7503


@pytest.mark.parametrize("text", ["eighty", "0", "-1", "65536", "8_0", "٨٠"])
def test_what_is_no_port_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(StartError, match="KENTE_LEDGER_PORT"):
        Ports.from_environment({"KENTE_LEDGER_PORT": text})


def test_a_taken_port_is_told_with_its_number_its_user_and_the_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        free = dict(zip((entry.setting for entry in PORT_SETTINGS), map(str, find_free(16)), strict=True))
        ports = Ports.from_environment(free | {"KENTE_LEDGER_PORT": str(port)})

        lines = ports.taken({"ledger", "gateway"})

    own_name = psutil.Process().name()
    expected = (
        f"port {port} is taken by {own_name} (pid {os.getpid()}), and ledger needs it: "
        "free it, set KENTE_LEDGER_PORT to another, or shift all ports with --port-offset"
    )
    assert lines == [expected]


def test_a_port_that_is_set_twice_is_told() -> None:
    (port,) = find_free(1)
    ports = Ports.from_environment({"KENTE_NATS_PORT": str(port), "KENTE_NATS_MONITOR_PORT": str(port)})

    assert [line.partition(":")[0] for line in ports.taken({"nats"})] == 2 * [
        f"port {port} is set for 2 purposes, one of them nats"
    ]


def test_a_second_supervisor_of_a_state_folder_is_refused(state: StateDir) -> None:
    script = (
        "import sys; from pathlib import Path; from mesh.embedded import runfile;"
        "from mesh.embedded.layout import StateDir\n"
        f"with runfile.supervising(StateDir(Path({str(state.path)!r}))):\n"
        "    print('locked', flush=True); sys.stdin.read()"
    )
    first = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    first.stdout.readline()

    with pytest.raises(StartError, match=r"a mesh already runs on .*`kente down`"), runfile.supervising(state):
        pass

    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    with runfile.supervising(state):
        pass


def _publish(state: StateDir, entry: runfile.ProcessEntry) -> None:
    supervisor = runfile.ProcessEntry("supervisor", 2**22 + 1, 0.0)
    runfile.write(state, runfile.RunState("ready", supervisor, 0, (entry,)))


def test_processes_of_a_dead_supervisor_are_ended(state: StateDir, sleeper: subprocess.Popen[bytes]) -> None:
    entry = runfile.entry_of("ledger", sleeper.pid)
    assert entry is not None
    _publish(state, entry)

    assert runfile.read_running(state) is None
    assert runfile.end_leftovers(state) == [sleeper.pid]
    assert not is_alive(sleeper.pid)


def test_a_later_process_with_the_same_id_is_left_alone(state: StateDir, sleeper: subprocess.Popen[bytes]) -> None:
    entry = runfile.entry_of("ledger", sleeper.pid)
    assert entry is not None
    _publish(state, runfile.ProcessEntry("ledger", sleeper.pid, entry.start_time - 60))

    assert runfile.end_leftovers(state) == []
    assert is_alive(sleeper.pid)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": "ready"}'])
def test_a_damaged_run_file_means_that_nothing_runs(state: StateDir, text: str) -> None:
    state.run_file.write_text(text)

    assert runfile.read(state) is None
    assert runfile.end_leftovers(state) == []


def test_keys_are_made_once_and_only_for_their_owner(state: StateDir) -> None:
    made = keys.load_or_create(state)

    assert keys.load_or_create(state) == made
    assert stat.S_IMODE(state.secrets_file.stat().st_mode) == 0o600
    assert len(set(made.role_passwords.values())) == 5


def test_lost_keys_are_not_silently_replaced(state: StateDir) -> None:
    keys.load_or_create(state)
    state.postgres.mkdir()
    (state.postgres / "PG_VERSION").write_text("18\n")
    state.secrets_file.unlink()

    with pytest.raises(StartError, match=r"secrets\.json is missing"):
        keys.load_or_create(state)


def test_a_process_gets_its_own_secrets_and_no_others(state: StateDir) -> None:
    environment = {
        "KENTE_DATABASE_URL": "postgresql://admin:admin-secret@db:5432/kente",
        "KENTE_NATS_URL": "nats://kente:nats-secret@bus:4222",
        "KENTE_CONNECTIONS_ENCRYPTION_KEYS": "k1:key-secret",
        "HOME": "/home/somebody",
    }
    plan = MeshPlan.from_environment(state, environment)
    made = keys.load_or_create(state)

    given = {name: plan.environment_of(name, made) for name in ("ledger", "connections", "gateway", "sandbox")}

    ledger_password = made.role_passwords["ledger"]
    assert given["ledger"]["KENTE_DATABASE_URL"] == f"postgresql://kente_ledger:{ledger_password}@db:5432/kente"
    assert given["ledger"]["KENTE_LEDGER_CHECKPOINT_KEY_FILE"] == str(state.checkpoint_key_file)
    assert given["connections"]["KENTE_CONNECTIONS_ENCRYPTION_KEYS"] == "k1:key-secret"
    for name in ("connections", "gateway", "sandbox"):
        assert "KENTE_LEDGER_CHECKPOINT_KEY_FILE" not in given[name]
    for name in ("gateway", "sandbox"):
        assert not {"KENTE_DATABASE_URL", "KENTE_NATS_URL"} & set(given[name])
    for name in ("ledger", "gateway", "sandbox"):
        assert "key-secret" not in json.dumps(given[name])
    for values in given.values():
        assert "admin-secret" not in json.dumps(values)
        assert values["HOME"] == "/home/somebody"


def test_an_address_gets_other_credentials_and_keeps_the_rest() -> None:
    url = with_credentials("postgresql://a:b@host:5433/books?sslmode=require", "kente_ledger", "p@ss/word")

    assert url == "postgresql://kente_ledger:p%40ss%2Fword@host:5433/books?sslmode=require"


def test_an_address_of_something_else_is_refused_without_being_shown() -> None:
    with pytest.raises(StartError) as refusal:
        with_credentials("mysql://a:secret@host/books", "kente_ledger", "x")

    assert "KENTE_DATABASE_URL" in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_the_demo_file_can_be_read_back_and_sourced(state: StateDir) -> None:
    values = {"KENTE_BASE_URL": "http://127.0.0.1:8080", "KENTE_API_KEY": "it's; $(rm -rf x) `y`"}

    demo_env.write(state, values)

    assert demo_env.read(state) == values
    shell = subprocess.run(
        ["/bin/sh", "-c", f'. {state.demo_file}; printf %s "$KENTE_API_KEY"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shell.stdout == values["KENTE_API_KEY"]
    assert stat.S_IMODE(state.demo_file.stat().st_mode) == 0o600


def test_a_log_is_rotated_by_size_and_the_newest_are_kept(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "x.log", max_bytes=100)
    for number in range(100):
        log.write(f"line {number:04}".encode())
    log.close()

    names = sorted(path.name for path in tmp_path.iterdir())
    lines = [line for name in reversed(names) for line in (tmp_path / name).read_text().splitlines()]
    assert names == ["x.log", "x.log.1", "x.log.2", "x.log.3"]
    assert all(path.stat().st_size <= 100 for path in tmp_path.iterdir())
    assert lines == [f"line {number:04}" for number in range(100 - len(lines), 100)]


def test_lines_are_cut_where_they_end_and_endless_ones_at_a_limit() -> None:
    lines: list[bytes] = []
    splitter = LineSplitter(lines.append)

    splitter.feed(b"one\r\ntw")
    splitter.feed(b"o\n" + b"x" * 100_000)
    splitter.end()

    assert lines[:2] == [b"one", b"two"]
    assert [len(line) for line in lines[2:]] == [65_536, 100_000 - 65_536]


def test_a_json_line_is_shown_short_and_nothing_can_steer_the_terminal() -> None:
    document = {"event": "paid\x1b[2J", "level": "info", "timestamp": "now", "payment_id": "pay_1", "trace_id": "t"}

    shown = console_line("payments", 0, json.dumps(document).encode()).plain
    raw = console_line("nats", 1, b"\x1b]0;owned\x07hello").plain

    assert shown == "payments     │ paid[2J payment_id=pay_1"
    assert raw == "nats         │ ]0;ownedhello"


def test_a_parent_that_dies_before_its_child_began_takes_it_along(tmp_path: Path) -> None:
    marker = tmp_path / "started"
    script = f"""
import os, signal, subprocess
from mesh.embedded.child import launch_command
nothing = subprocess.DEVNULL
child = subprocess.Popen(launch_command(['/usr/bin/touch', {str(marker)!r}]), stdout=nothing, stderr=nothing)
# Stopped before it can tell the kernel what it wants, and woken when its parent is gone.
os.kill(child.pid, signal.SIGSTOP)
print(child.pid, flush=True)
os._exit(0)
"""
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    pid = int(answer.stdout)

    os.kill(pid, signal.SIGCONT)

    wait_for(lambda: not is_alive(pid), "the launcher ends")
    assert not marker.exists()
