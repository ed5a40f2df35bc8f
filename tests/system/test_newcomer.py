"""What the README tells a newcomer to do works as it is written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mesh.embedded import demo_env
from mesh.policies import contract_services
from tests.system.live import LiveMesh

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text()
USUAL_GRPC = "127.0.0.1:7401"


def test_the_demo_shows_a_payment_a_decline_a_time_out_and_a_refund(live: LiveMesh) -> None:
    done = live.command("demo", "--json")
    report = json.loads(done.stdout)

    assert report["ok"] is True
    assert len(report["scenarios"]) == 4
    assert all(check["ok"] for scenario in report["scenarios"] for check in scenario["checks"])
    proof = report["scenarios"][0]["facts"]["proof"]
    assert (proof["holds"], proof["holdsWhenChanged"]) == (True, False)
    assert proof["transactionId"] == report["scenarios"][0]["facts"]["payment"]["ledgerTransactionId"]
    assert int(proof["treeSize"]) > int(proof["leafIndex"])


def test_the_curl_lines_work_as_written(live: LiveMesh) -> None:
    block = re.findall(r"<!-- calls:begin -->\n```sh\n(.*?)```", README, re.DOTALL)[0]
    script = block.replace("source .kente/demo.env", f"source {live.state.demo_file}")
    # One answer a line.
    script = re.sub(r"^(curl .*?)(?=\n\n|\Z)", r"\1; echo", script.strip(), flags=re.DOTALL | re.MULTILINE)
    done = _run(["bash", "-euo", "pipefail", "-c", script])
    answers = [json.loads(line) for line in done.stdout.splitlines() if line]

    assert answers[0]["payment"]["paymentId"].startswith("pay_")
    assert answers[0]["payment"]["paymentId"] in {payment["paymentId"] for payment in answers[1]["payments"]}
    assert "accounts" in answers[2]


@pytest.fixture(scope="module")
def ledger_answers(live: LiveMesh) -> list[dict[str, Any]]:
    """What the README's lines about the ledger are answered."""
    block = re.findall(r"<!-- ledger:begin -->\n```sh\n(.*?)```", README, re.DOTALL)[0]
    script = block.replace("source .kente/demo.env", f"source {live.state.demo_file}")
    done = _run(["bash", "-euo", "pipefail", "-c", script])
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_lines_about_the_ledger_work_as_written(ledger_answers: list[dict[str, Any]]) -> None:
    accounts, paid_in, transfers, hold, balance, posted, statement, trial, proof = ledger_answers

    assert [account["state"] for account in accounts["accounts"]] == ["STATE_OPENED"] * 3
    assert [entry["balanceAfter"]["amountMinor"] for entry in paid_in["transaction"]["entries"]] == ["10000", "10000"]
    assert [result.get("reason", "") for result in transfers["results"]] == ["", ""]
    assert balance["balance"]["amountMinor"] == "9000"
    assert balance["available"]["amountMinor"] == "7000"
    assert posted["transaction"]["relatedTransactionId"] == hold["transaction"]["transactionId"]
    running = [line["runningBalance"]["amountMinor"] for line in statement["lines"]]
    assert running == ["10000", "8500", "9000", "7000"]
    assert statement["closingBalance"]["amountMinor"] == "7000"
    assert all(total["debit"] == total["credit"] for total in trial["totals"])
    assert proof["proof"]["leafIndex"] == hold["transaction"]["leafIndex"]


@pytest.mark.usefixtures("ledger_answers")
def test_the_ledger_commands_work_as_written(live: LiveMesh, tmp_path: Path) -> None:
    block = re.findall(r"<!-- commands:begin -->\n```sh\n(.*?)```", README, re.DOTALL)[0]
    script = block.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    script = f"source {live.state.demo_file}\nexport KENTE_STATE_DIR={live.state.path}\n{script}"
    done = _run(["bash", "-euo", "pipefail", "-c", script], tmp_path)

    assert "liabilities:wallets:kofi" in done.stdout
    assert "GHS" in (tmp_path / "books.journal").read_text()
    note = (tmp_path / "checkpoint.txt").read_text()
    assert live.environment[demo_env.TENANT_ID] in note.splitlines()[0]
    assert "PROVED" in done.stdout


def test_the_python_lines_work_as_written(live: LiveMesh) -> None:
    block = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    token = subprocess.run(
        [
            *("curl", "-sS", f"{live.base_url}/v1/oauth/token", "-d", "grant_type=client_credentials"),
            *("-d", f"client_id={live.environment[demo_env.CLIENT_ID]}"),
            *("-d", f"client_secret={live.environment[demo_env.API_KEY]}"),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    script = block.replace(USUAL_GRPC, live.environment["KENTE_GRPC_PAYMENTS"])
    preamble = f"token = {json.loads(token)['access_token']!r}\n"
    done = _run([sys.executable, "-c", f"{preamble}{script}\nprint(len(page.payments))"])

    assert int(done.stdout) > 0


async def test_reflection_lists_every_service(live: LiveMesh) -> None:
    import grpc  # noqa: PLC0415 - only here
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (  # noqa: PLC0415 - only here
        ProtoReflectionDescriptorDatabase,
    )

    for domain in ("payments", "identity", "ledger", "notifications", "connections"):
        with grpc.insecure_channel(live.environment[f"KENTE_GRPC_{domain.upper()}"]) as channel:
            listed = set(ProtoReflectionDescriptorDatabase(channel).get_services())

        assert listed >= {*contract_services(domain), "grpc.health.v1.Health"}


def _run(command: list[str], folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KENTE_")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True, timeout=60)
