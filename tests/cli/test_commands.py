"""The command says what is wrong in one line and never shows a traceback or a secret, with no mesh running."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from mesh.embedded.layout import PORT_SETTINGS
from mesh.embedded.ports import accepts

from .conftest import LIMIT_SECONDS, Answer, Kente


def assert_one_line(answer: Answer, *parts: str) -> None:
    """The command refused with one line for the user that holds these parts."""
    assert answer.status == 2, answer
    lines = answer.err.strip().splitlines()
    assert len(lines) == 1, answer.err
    for part in parts:
        assert part in lines[0]


def test_an_unknown_command_is_refused(kente: Kente) -> None:
    answer = kente.run("fly")

    assert answer.status == 2
    assert "No such command 'fly'" in answer.err
    assert "Traceback" not in answer.err


def test_the_commands_are_listed_by_help(kente: Kente) -> None:
    answer = kente.run("--help")

    assert answer.status == 0
    for name in (
        "up",
        "down",
        "status",
        "doctor",
        "migrate",
        "seed",
        "sandbox",
        "demo",
        "events",
        "deadletters",
        "jobs",
    ):
        assert f" {name} " in answer.out


def test_a_setting_that_is_no_port_is_named(kente: Kente) -> None:
    wrong = Kente(kente.state_dir, settings={"KENTE_LEDGER_PORT": "seven"})

    assert_one_line(wrong.run("up"), "KENTE_LEDGER_PORT=seven is not a port", "7403")


def test_a_taken_port_is_told_before_anything_starts(kente: Kente) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        wrong = Kente(kente.state_dir, kente.port_offset, {"KENTE_GATEWAY_PORT": str(port - kente.port_offset)})

        answer = wrong.up()

    assert answer.status == 2
    assert f"port {port} is taken by" in answer.err
    assert "gateway needs it: free it, set KENTE_GATEWAY_PORT" in answer.err
    assert not (kente.state_dir / "postgres").exists()


def test_a_taken_port_is_told_by_a_detached_start_too(kente: Kente) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        wrong = Kente(kente.state_dir, kente.port_offset, {"KENTE_NATS_PORT": str(port - kente.port_offset)})

        answer = wrong.up("--detach")

    assert_one_line(answer, f"port {port} is taken by", "nats needs it", "KENTE_NATS_PORT")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("KENTE_DATABASE_URL", "postgresql://somebody:very-secret@127.0.0.1:9/kente"),
        ("KENTE_NATS_URL", "nats://somebody:very-secret@127.0.0.1:9"),
        ("KENTE_CACHE_URL", "redis://:very-secret@127.0.0.1:9/0"),
    ],
)
def test_an_outside_server_that_is_away_is_told_without_its_password(kente: Kente, setting: str, value: str) -> None:
    wrong = Kente(kente.state_dir, kente.port_offset, {setting: value})

    answer = wrong.up("--detach")

    assert_one_line(answer, f"{setting}: 127.0.0.1:9 can't be used (connection refused)", "start that server")
    assert "very-secret" not in (kente.state_dir / "logs" / "supervisor.log").read_text()


def test_an_error_has_a_traceback_only_when_it_is_asked_for(kente: Kente) -> None:
    quiet, verbose = kente.run("seed"), kente.run("--verbose", "seed")

    assert_one_line(quiet, "no mesh runs on", "start it with `kente up`")
    assert "Traceback" in verbose.err
    assert verbose.status == 2


@pytest.mark.parametrize(
    "arguments", [("events", "tail"), ("deadletters", "list"), ("jobs", "held"), ("deadletters", "redrive", "--all")]
)
def test_what_needs_a_mesh_says_so(kente: Kente, arguments: tuple[str, ...]) -> None:
    assert_one_line(kente.run(*arguments), "no mesh runs on", str(kente.state_dir))


def test_status_of_nothing_is_stopped(kente: Kente) -> None:
    answer = kente.run("status", "--json")

    assert answer.status == 1
    assert answer.json()["state"] == "stopped"
    assert answer.json()["processes"] == []
    assert not kente.state_dir.exists()


def test_down_of_nothing_is_no_error(kente: Kente) -> None:
    answer = kente.run("down")

    assert (answer.status, answer.out.strip()) == (0, "stopped")


def test_doctor_finds_nothing_wrong_with_a_good_machine(kente: Kente) -> None:
    answer = kente.run("doctor", "--port-offset", str(kente.port_offset), "--json")

    findings = {finding["check"]: finding for finding in answer.json()}
    assert answer.status == 0, answer.out
    assert findings["PostgreSQL"]["detail"].startswith("postgres (PostgreSQL) ")
    assert findings["NATS"]["detail"].startswith("nats-server: v")
    assert findings["ports"]["detail"] == f"all {len(PORT_SETTINGS)} are free"
    assert findings["python"]["detail"].startswith(sys.version.split()[0])


def test_doctor_says_which_secret_others_can_read_and_what_to_do(kente: Kente) -> None:
    kente.state_dir.mkdir(mode=0o700)
    secret = kente.state_dir / "secrets.json"
    secret.write_text("{}")
    secret.chmod(0o644)

    answer = kente.run("doctor", "--port-offset", str(kente.port_offset), "--json")

    wrong = [finding for finding in answer.json() if finding["level"] == "fail"]
    assert answer.status == 1
    assert [(finding["detail"], finding["advice"]) for finding in wrong] == [
        (f"{secret} can be read by others", f"run `chmod 600 {secret}`")
    ]


def test_doctor_shows_a_table_to_people(kente: Kente) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        wrong = Kente(kente.state_dir, settings={"KENTE_SANDBOX_SMTP_PORT": str(port)})

        answer = wrong.run("doctor")

    assert answer.status == 1
    assert f"port {port} is taken by" in answer.out
    assert "KENTE_SANDBOX_SMTP_PORT" in answer.out


def test_migrate_makes_every_schema_once(kente: Kente) -> None:
    ports = {"KENTE_POSTGRES_PORT": str(7432 + kente.port_offset)}
    own = Kente(kente.state_dir, settings=ports)

    first, second = own.run("migrate", "--json"), own.run("migrate", "--json")

    domains = {name.partition("/")[0] for name in first.json()["applied"]}
    assert domains == {"payments", "identity", "ledger", "notifications", "connections"}
    assert second.json() == {"applied": []}


def test_the_sandbox_runs_by_itself(kente: Kente) -> None:
    port = 7480 + kente.port_offset
    command = kente.command("sandbox", "--port-offset", str(kente.port_offset))

    with subprocess.Popen(command, env=kente.environment(), stdout=subprocess.DEVNULL) as sandbox:
        deadline = time.monotonic() + LIMIT_SECONDS
        while not accepts(port):
            assert sandbox.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
            overview = json.load(answer)
        sandbox.terminate()

    assert {"mtn_momo", "smtp"} <= set(overview["providers"])


def test_identities_are_made_once_for_every_process(kente: Kente, tmp_path: Path) -> None:
    folder = tmp_path / "keys"

    first = kente.run("identities", str(folder), "--json")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    second = kente.run("identities", str(folder), "--json")

    assert first.json() == second.json()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert {"operator.jwk", "gateway.jwk", "ledger.jwk", "ledger-checkpoints.jwk", "bundle.jwks"} <= set(before)
    assert all("d" not in key for key in json.loads(before["bundle.jwks"])["keys"])
