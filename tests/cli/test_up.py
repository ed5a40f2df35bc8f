"""One real mesh, started by the command, looked at, hurt, healed and stopped. The tests run in this order."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from mesh.embedded import demo_env, runfile
from mesh.embedded.layout import StateDir
from mesh.embedded.plan import MeshPlan

from .conftest import LIMIT_SECONDS, Kente, free_offset

PROCESSES = {
    "postgres", "nats", "sandbox", "payments", "identity", "ledger", "notifications", "connections", "gateway",
}  # fmt: skip
MEMORY_LIMIT_BYTES = 1.2 * 2**30


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kente]:
    """A running mesh."""
    kente = Kente(tmp_path_factory.mktemp("up") / "state", free_offset())
    answer = kente.up("--detach")
    try:
        assert answer.status == 0, answer.err
        yield kente
    finally:
        kente.run("down")


def _state(mesh: Kente) -> StateDir:
    return StateDir(mesh.state_dir)


def _pids(mesh: Kente) -> dict[str, int]:
    run = runfile.read_running(_state(mesh))
    assert run is not None
    return {entry.name: entry.pid for entry in run.processes}


def _serving(mesh: Kente) -> set[str]:
    return {entry["name"] for entry in mesh.run("status", "--json").json()["processes"] if entry["health"] == "serving"}


def _wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def _execute(mesh: Kente, statement: str, *values: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(MeshPlan.from_environment(_state(mesh), {}, mesh.port_offset).admin_url)
    try:
        rows: list[asyncpg.Record] = await connection.fetch(statement, *values)
        return rows
    finally:
        await connection.close()


def test_every_process_serves_within_the_memory_limit(mesh: Kente) -> None:
    answer = mesh.run("status", "--json")

    status = answer.json()
    assert answer.status == 0, answer.out
    assert status["state"] == "ready"
    assert {entry["name"] for entry in status["processes"] if entry["health"] == "serving"} == PROCESSES
    assert status["memoryBytes"] < MEMORY_LIMIT_BYTES
    assert all(entry["restarts"] == 0 for entry in status["processes"])


def test_the_table_shows_every_process(mesh: Kente) -> None:
    answer = mesh.run("status")

    for name in PROCESSES:
        assert name in answer.out
    assert str(8080 + mesh.port_offset) in answer.out


def test_a_second_start_on_the_same_folder_is_refused(mesh: Kente) -> None:
    run = runfile.read_running(_state(mesh))
    assert run is not None

    answer = mesh.up("--detach")

    assert answer.status == 2
    assert f"a mesh already runs on {mesh.state_dir} (supervisor pid {run.supervisor.pid})" in answer.err
    assert runfile.read_running(_state(mesh)) == run


def test_doctor_finds_nothing_wrong_with_the_running_mesh(mesh: Kente) -> None:
    answer = mesh.run("doctor", "--json")

    assert [finding for finding in answer.json() if finding["level"] == "fail"] == []


def test_seeding_again_changes_nothing_and_shows_no_key(mesh: Kente) -> None:
    before = _state(mesh).demo_file.read_text()

    answer = mesh.run("seed", "--json")

    assert answer.status == 0, answer.err
    assert _state(mesh).demo_file.read_text() == before
    assert demo_env.read(_state(mesh))[demo_env.API_KEY] not in answer.out
    assert answer.json()["values"]["KENTE_BASE_URL"] == f"http://127.0.0.1:{8080 + mesh.port_offset}"


def test_the_demo_runs_on_a_running_mesh_and_leaves_it_running(mesh: Kente) -> None:
    answer = mesh.run("demo", "--json")

    report = answer.json()
    wrong = [check for scenario in report["scenarios"] for check in scenario["checks"] if not check["ok"]]
    assert (answer.status, report["error"], wrong) == (0, "", [])
    assert [scenario["name"] for scenario in report["scenarios"]] == ["approved", "declined", "timed_out", "refunded"]
    assert _serving(mesh) == PROCESSES


def test_no_personal_data_of_the_demo_is_in_a_log_or_a_trace(mesh: Kente) -> None:
    for file in (*_state(mesh).logs.iterdir(), *_state(mesh).traces.iterdir()):
        text = file.read_text(errors="replace")
        for secret in ("233241234567", "ama@example.com", "Ama Mensah", demo_env.read(_state(mesh))[demo_env.API_KEY]):
            assert secret not in text, f"{secret[:4]}… is in {file.name}"


def test_the_ledger_of_the_demo_tenant_is_meant_unless_another_is_named(mesh: Kente, tmp_path: Path) -> None:
    path = tmp_path / "entries.csv"

    accounts, verified = mesh.run("ledger", "accounts", "--json"), mesh.run("ledger", "verify")
    exported = mesh.run("ledger", "export", "-o", str(path))

    assert {account["bookName"] for account in accounts.json()} == {"main"}
    assert verified.status == 0, verified
    assert "all is well" in verified.out
    assert exported.status == 0, exported
    assert len(path.read_text().splitlines()) > len(accounts.json())


def test_events_are_shown_one_object_a_line(mesh: Kente) -> None:
    answer = mesh.run("events", "tail", "--no-follow", "--last", "1000", "--type", "payments.payment", "--json")

    events = [json.loads(line) for line in answer.out.splitlines()]
    assert {event["type"] for event in events} >= {"payments.payment.created", "payments.payment.succeeded"}
    assert all(event["type"].startswith("payments.payment.") for event in events)


async def test_a_dead_letter_is_listed_and_can_be_published_again(mesh: Kente) -> None:
    events = mesh.run(
        "events", "tail", "--no-follow", "--last", "1000", "--type", "payments.payment.succeeded", "--json"
    )
    event = json.loads(events.out.splitlines()[0])
    subject = f"kente.{event['kentetenant']}.{event['type']}"
    await _execute(
        mesh,
        "INSERT INTO notifications.dead_letters (dead_letter_id, consumer, event_id, tenant_id, subject, event,"
        " failure, deliveries)"
        " VALUES ('dlt_test', 'notifications-receipts', $1, $2, $3, $4, 'TestError: no mail server', 8)",
        event["id"],
        event["kentetenant"],
        subject,
        json.dumps(event).encode(),
    )

    listed = mesh.run("deadletters", "list", "--json").json()
    unknown = mesh.run("deadletters", "redrive", "dlt_nobody")
    redriven = mesh.run("deadletters", "redrive", "dlt_test", "--json")

    assert [(letter["dead_letter_id"], letter["failure"]) for letter in listed] == [
        ("dlt_test", "TestError: no mail server")
    ]
    assert (unknown.status, redriven.status) == (2, 0)
    assert redriven.json() == {"redriven": ["dlt_test"], "unknown": []}
    assert mesh.run("deadletters", "list", "--json").json() == []
    again = mesh.run("events", "tail", "--no-follow", "--last", "1", "--json")
    assert json.loads(again.out)["id"] == event["id"]


async def test_a_held_job_is_listed_and_can_be_run_again(mesh: Kente) -> None:
    body = json.dumps({"tenant_id": "ten_test", "payload": {"payment_id": "pay_test"}, "trace": {}}).encode()
    rows = await _execute(
        mesh,
        "INSERT INTO payments.pgqueuer (priority, status, entrypoint, payload, attempts)"
        " VALUES (0, 'failed', 'a_job_that_nobody_takes', $1, 20) RETURNING id",
        body,
    )
    identifier = f"payments:{rows[0]['id']}"

    listed = mesh.run("jobs", "held", "--json").json()
    retried = mesh.run("jobs", "retry", identifier, "payments:999999", "--json")

    assert [(job["id"], job["payload"]) for job in listed] == [(identifier, {"payment_id": "pay_test"})]
    assert retried.json() == {"retried": [identifier], "unknown": ["payments:999999"]}
    assert retried.status == 2
    assert mesh.run("jobs", "held", "--json").json() == []
    await _execute(mesh, "DELETE FROM payments.pgqueuer WHERE id = $1", rows[0]["id"])


@pytest.mark.parametrize("victims", [("ledger",), ("gateway", "sandbox"), ("postgres", "nats")])
def test_killed_processes_come_back(mesh: Kente, victims: tuple[str, ...]) -> None:
    before = _pids(mesh)

    for victim in victims:
        os.kill(before[victim], signal.SIGKILL)

    _wait_for(lambda: all(_pids(mesh).get(victim) not in {None, before[victim]} for victim in victims), "new processes")
    _wait_for(lambda: _serving(mesh) == PROCESSES, "everything serves again")


def test_everything_ends_with_a_killed_supervisor_and_starts_again_with_the_same_key(mesh: Kente) -> None:
    run = runfile.read_running(_state(mesh))
    assert run is not None
    key = demo_env.read(_state(mesh))[demo_env.API_KEY]

    os.kill(run.supervisor.pid, signal.SIGKILL)
    # At once: what still ends must not be in the way.
    with subprocess.Popen(
        mesh.command("up", "--port-offset", str(mesh.port_offset)),
        env=mesh.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as foreground:
        assert foreground.stdout is not None
        lines = []
        for line in foreground.stdout:
            lines.append(line)
            if line.strip() == "ready":
                break
        assert lines[-1].strip() == "ready", "".join(lines)
        assert not any(_is_alive(entry.pid) for entry in run.processes), "processes of the killed supervisor"
        served = _serving(mesh)
        pids = _pids(mesh)
        foreground.send_signal(signal.SIGINT)
        rest = foreground.stdout.read()

    assert served == PROCESSES, "".join(lines)
    assert demo_env.read(_state(mesh))[demo_env.API_KEY] == key
    assert any(line.startswith("ledger       │ ") for line in lines)
    assert (foreground.returncode, rest.strip().splitlines()[-1]) == (0, "stopped")
    assert not any(_is_alive(pid) for pid in pids.values())
    assert not _state(mesh).run_file.exists()
