"""What the README tells a newcomer to do works as it is written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

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


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KENTE_")}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=60)
