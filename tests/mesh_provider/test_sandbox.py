"""The sandbox: its control API, and that it forgets nothing when it is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from mesh.embedded.ports import find_free
from mesh.ids import derive_uuid, new_id
from mesh.money import Money
from mesh.provider.connection import Connection, Environment
from mesh.provider.registry import Registry
from mesh.sandbox.faults import Fault, FaultPlan
from mesh.sandbox.server import Sandbox
from mesh.sandbox.settings import SandboxSettings
from mesh.sandbox.store import Store
from services.payments.provider import CollectOrder, OperationKey, OutcomeState, WalletCollect
from tests.harness import eventually


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    sandbox = Sandbox(SandboxSettings(port=0, smtp_port=0), "127.0.0.1", tmp_path / "sandbox.db")
    await sandbox.start()
    async with httpx.AsyncClient(base_url=sandbox.url, trust_env=False) as talking:
        yield talking
    await sandbox.stop()


async def test_it_says_what_it_simulates(client: httpx.AsyncClient) -> None:
    overview = (await client.get("/")).json()

    assert {"mtn_momo", "stripe"} <= overview["providers"].keys()
    assert "collect" in overview["providers"]["mtn_momo"]["operations"]
    assert "pm_card_threeDSecure2Required" in overview["providers"]["stripe"]["magic_values"]
    assert set(overview["faults"]) == {fault.value for fault in Fault}
    assert (await client.get("/healthz")).json() == {"status": "serving"}


async def test_faults_are_planned_listed_and_cleared(client: httpx.AsyncClient) -> None:
    planned = {"operation": "collect", "fault": "html_502", "count": 3}

    assert (await client.put("/_faults/mtn_momo", json=planned)).json() == {"faults": [planned]}
    assert (await client.get("/_faults/mtn_momo")).json() == {"faults": [planned]}
    assert (await client.delete("/_faults/mtn_momo")).status_code == 204
    assert (await client.get("/_faults/mtn_momo")).json() == {"faults": []}


@pytest.mark.parametrize(
    "body",
    [
        {"operation": "collect", "fault": "earthquake"},
        {"operation": "dance", "fault": "html_502"},
        {"operation": "collect", "fault": "html_502", "count": 0},
        {"operation": "collect", "fault": "html_502", "count": "many"},
        {"fault": "html_502"},
        ["html_502"],
    ],
)
async def test_a_fault_that_can_not_be_is_refused_with_what_can(client: httpx.AsyncClient, body: object) -> None:
    answer = await client.put("/_faults/mtn_momo", json=body)

    assert answer.status_code == 400
    assert answer.text


async def test_unknown_simulators_are_told(client: httpx.AsyncClient) -> None:
    for answer in (
        await client.get("/_state/acme"),
        await client.put("/_faults/acme", json={}),
        await client.post("/_clear?provider=acme"),
    ):
        assert answer.status_code == 404


async def test_callbacks_go_to_allowed_hosts_only(client: httpx.AsyncClient) -> None:
    headers = {"Authorization": "Bearer sk_test_kente_sandbox"}
    form = {"url": "http://elsewhere.example/hook", "enabled_events[0]": "*"}
    await client.post("/stripe/v1/webhook_endpoints", data=form, headers=headers)
    charge = {"amount": "100", "currency": "usd", "payment_method": "pm_card_visa", "confirm": "true"}

    await client.post("/stripe/v1/payment_intents", data=charge, headers=headers)

    state = (await client.get("/_state/stripe")).json()
    assert state["counts"] == {"charge": 1}
    assert state["planned"] == 0


def test_the_same_seed_gives_the_same_faults() -> None:
    def drawn(seed: int) -> list[Fault | None]:
        plan = FaultPlan(Store(":memory:"), SandboxSettings(seed=seed, fault_rate=0.5))
        return [plan.take("mtn_momo", "collect") for _ in range(50)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert 10 < sum(fault is not None for fault in drawn(1)) < 40


def test_planned_faults_outlive_a_restart_and_are_used_up(tmp_path: Path) -> None:
    path = tmp_path / "sandbox.db"
    before = FaultPlan(Store(path), SandboxSettings())
    before.add("mtn_momo", "collect", Fault.DECLINE, 2)
    before.add("mtn_momo", "*", Fault.HTML_502, None)
    assert before.take("mtn_momo", "collect") is Fault.DECLINE

    after = FaultPlan(Store(path), SandboxSettings())

    assert [after.take("mtn_momo", "collect") for _ in range(3)] == [Fault.DECLINE, Fault.HTML_502, Fault.HTML_502]
    assert after.take("stripe", "charge") is None


def test_a_transaction_keeps_all_or_nothing() -> None:
    shelf = Store(":memory:").shelf("acme")

    def half() -> None:
        with shelf.transaction():
            shelf.put("charge", "1", {})
            with shelf.transaction():
                shelf.move("charge", "1", "1.00", "EUR")
            raise LookupError

    with pytest.raises(LookupError):
        half()

    assert shelf.get("charge", "1") is None
    assert shelf.movements() == []


async def test_a_killed_sandbox_forgets_nothing_that_it_accepted(tmp_path: Path) -> None:
    """Accepted before the kill, approved and counted once after the restart; no duplicate on a resend."""
    (port,) = find_free(1)
    attempt_key = derive_uuid("kill", new_id("att"))
    registry = Registry("payments", sandbox_url=f"http://127.0.0.1:{port}")
    adapter_class = registry.adapter_class("mtn_momo")
    adapter = registry.open(
        Connection(
            new_id("con"),
            "ten_1",
            "mtn_momo",
            Environment.SANDBOX,
            None,
            adapter_class.sandbox_settings,
            adapter_class.sandbox_credentials,
            "",
        )
    )
    assert isinstance(adapter, WalletCollect)
    order = CollectOrder(attempt_key, "pay_1", Money(1050, "GHS"), "+233241234567", "Order 1")

    async with _process(tmp_path, port, approval_seconds=60) as process:
        assert (await adapter.collect(order)).state is OutcomeState.PENDING
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    _hurry(tmp_path / "sandbox.db")
    async with _process(tmp_path, port, approval_seconds=0):

        async def paid() -> bool:
            return (await adapter.find_collect(OperationKey(attempt_key))).state is OutcomeState.SUCCEEDED

        await eventually(paid)
        assert (await adapter.collect(order)).state is OutcomeState.SUCCEEDED
        async with httpx.AsyncClient(trust_env=False) as talking:
            state = (await talking.get(f"http://127.0.0.1:{port}/_state/mtn_momo")).json()
    await registry.close()

    assert state["counts"] == {"collect": 1}


def _hurry(path: Path) -> None:
    """Makes everything that is planned due, as if its time had passed while the process was dead."""
    store = Store(path)
    store.execute("UPDATE timers SET due_unix_seconds = 0")
    store.close()


@asynccontextmanager
async def _process(folder: Path, port: int, approval_seconds: float) -> AsyncIterator[Any]:
    environment = {
        **os.environ,
        "KENTE_STATE_DIR": str(folder),
        "KENTE_SANDBOX_PORT": str(port),
        "KENTE_SANDBOX_SMTP_PORT": "0",
        "KENTE_SANDBOX_APPROVAL_SECONDS": str(approval_seconds),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mesh.sandbox", env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with httpx.AsyncClient(trust_env=False) as talking:

            async def serves() -> bool:
                try:
                    return (await talking.get(f"http://127.0.0.1:{port}/healthz")).is_success
                except httpx.TransportError:
                    return False

            await eventually(serves, 20.0)
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
