"""A whole mesh of real processes for tests: `kente up` in a folder of its own, beside any other."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from mesh.embedded import demo_env, runfile
from mesh.embedded.layout import StateDir

KENTE = str(Path(sys.executable).with_name("kente"))
# Answers that ask for the same request again.
RETRY_STATUSES = {409, 429, 499, 500, 502, 503, 504}
# A provider that was away for five calls is left alone for a minute: its circuit breaker is open.
FINAL_SECONDS = 150.0
TERMINAL_STATES = {"STATE_SUCCEEDED", "STATE_FAILED", "STATE_CANCELED", "STATE_EXPIRED"}


class LiveMesh:
    """One running mesh, with the demo tenant's key."""

    def __init__(self, folder: Path, port_offset: int) -> None:
        self.state = StateDir(folder)
        self.port_offset = port_offset

    def start(self) -> None:
        """Starts everything and returns when all of it serves."""
        self.command("up", "--detach", "--port-offset", str(self.port_offset))
        self.environment = demo_env.read(self.state)

    def stop(self) -> None:
        """Stops everything."""
        self.command("down")

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs the kente command on this mesh."""
        done = subprocess.run(
            [KENTE, arguments[0], "--state-dir", str(self.state.path), *arguments[1:]],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={key: value for key, value in os.environ.items() if not key.startswith("KENTE_")},
        )
        if check and done.returncode:
            raise AssertionError(f"kente {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    @property
    def base_url(self) -> str:
        """Address of the gateway."""
        return self.environment[demo_env.BASE_URL]

    @property
    def sandbox_url(self) -> str:
        """Address of the sandbox."""
        return f"http://127.0.0.1:{7480 + self.port_offset}"

    def kill(self, name: str) -> None:
        """Kills one process as the kernel would."""
        run = runfile.read(self.state)
        entry = next(entry for entry in run.processes if entry.name == name) if run else None
        if entry is None:
            raise AssertionError(f"{name} does not run")
        os.kill(entry.pid, signal.SIGKILL)

    def kill_everything(self) -> None:
        """Kills the supervisor and all it started, at once."""
        run = runfile.read(self.state)
        if run is None:
            raise AssertionError("nothing runs")
        for entry in (run.supervisor, *run.processes):
            with_process = entry.process()
            if with_process is not None:
                os.kill(entry.pid, signal.SIGKILL)

    async def wait_ready(self, timeout_seconds: float = 40.0) -> None:
        """Waits until every process serves again."""
        deadline = time.monotonic() + timeout_seconds
        async with httpx.AsyncClient() as client:
            while time.monotonic() < deadline:
                if await _answers(client, f"{self.base_url}/readyz") and await _answers(
                    client, f"{self.sandbox_url}/healthz"
                ):
                    return
                await asyncio.sleep(0.1)
        raise AssertionError(f"not ready within {timeout_seconds} s")


async def _answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url, timeout=2)).status_code == 200
    except httpx.HTTPError:
        return False


@dataclass(slots=True)
class Partner:
    """A partner's client: sends every write with an Idempotency-Key and repeats it until there is an answer."""

    mesh: LiveMesh
    http: httpx.AsyncClient = field(init=False)
    repeated: int = 0

    def __post_init__(self) -> None:
        self.http = httpx.AsyncClient(
            base_url=self.mesh.base_url,
            headers={"Authorization": f"Bearer {self.mesh.environment[demo_env.API_KEY]}"},
            timeout=10,
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self.http.aclose()

    async def post(self, path: str, body: Mapping[str, Any], key: str | None = None) -> dict[str, Any]:
        """Sends a write until it is answered for good."""
        key = key or str(uuid.uuid4())
        options = {"json": dict(body), "headers": {"Idempotency-Key": key}}
        answer: dict[str, Any] = await self._until_answered("POST", path, **options)
        return answer

    async def get(self, path: str, **parameters: str) -> dict[str, Any]:
        """Reads until there is an answer."""
        answer: dict[str, Any] = await self._until_answered("GET", path, params=parameters)
        return answer

    async def _until_answered(self, verb: str, path: str, **options: Any) -> Any:
        deadline = time.monotonic() + 60
        while True:
            try:
                response = await self.http.request(verb, path, **options)
            except httpx.HTTPError as error:
                outcome = repr(error)
            else:
                if response.status_code == 200:
                    return response.json()
                outcome = f"{response.status_code} {response.text}"
                if response.status_code not in RETRY_STATUSES or not _invites_retry(response):
                    raise AssertionError(f"{verb} {path}: {outcome}")
            if time.monotonic() > deadline:
                raise AssertionError(f"{verb} {path}: no answer within 60 s, last {outcome}")
            self.repeated += 1
            await asyncio.sleep(0.2)

    async def pay(self, msisdn: str, email: str, amount_minor: int = 1050) -> str:
        """Creates a mobile-money payment, however often it takes. Returns its id."""
        answer = await self.post(
            "/v1/payments",
            {
                "amount": {"amountMinor": str(amount_minor), "currency": "GHS"},
                "method": {"mobileMoney": {"msisdn": msisdn}},
                "payer": {"displayName": "Ama Mensah", "email": email},
                "description": "Order 1",
            },
        )
        payment_id: str = answer["payment"]["paymentId"]
        return payment_id

    async def final(self, payment_id: str, timeout_seconds: float = FINAL_SECONDS) -> dict[str, Any]:
        """Waits until a payment is final and, when money moved, in the ledger."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            payment: dict[str, Any] = (await self.get(f"/v1/payments/{payment_id}"))["payment"]
            posted = payment["state"] != "STATE_SUCCEEDED" or payment.get("ledgerState") == "LEDGER_STATE_POSTED"
            if payment["state"] in TERMINAL_STATES and posted:
                return payment
            if time.monotonic() > deadline:
                raise AssertionError(f"not final within {timeout_seconds} s: {json.dumps(payment)}")
            await asyncio.sleep(0.1)

    async def entries(self, source_id: str) -> list[dict[str, Any]]:
        """Ledger entries that a payment caused."""
        found: list[dict[str, Any]] = (await self.get("/v1/ledger/entries", sourceId=source_id)).get("entries", [])
        return found

    async def provider_state(self, provider: str) -> dict[str, Any]:
        """What the simulated provider did."""
        state: dict[str, Any] = await self._until_answered("GET", f"{self.mesh.sandbox_url}/_state/{provider}")
        return state

    async def mails(self, recipient: str) -> list[dict[str, Any]]:
        """Mails that arrived."""
        url = f"{self.mesh.sandbox_url}/smtp/mailbox"
        found: list[dict[str, Any]] = await self._until_answered("GET", url, params={"recipient": recipient})
        return found


def _invites_retry(response: httpx.Response) -> bool:
    # 409 stands for several reasons; only a call that is still at work is worth repeating.
    return response.status_code != 409 or response.json().get("reason") == "REQUEST_IN_FLIGHT"
