"""Whatever is killed during a payment: one final state, one charge, one posting, one receipt."""

from __future__ import annotations

import asyncio
import time
import uuid

import httpx
import pytest

from mesh.embedded import demo_env
from tests.system.chaos import VICTIMS, run_once
from tests.system.live import LiveMesh

SEED = 20261121


# Longer than what a run may wait for, so that it is the run that says what was missing.
@pytest.mark.timeout(400)
@pytest.mark.parametrize("victim", VICTIMS)
async def test_nothing_is_lost_or_doubled_when_a_process_is_killed(live: LiveMesh, victim: str) -> None:
    tally = await run_once(live, victim, SEED)

    assert tally.faults == []
    assert tally.payments > 0


async def test_a_service_that_is_away_is_told_with_advice_and_the_same_request_succeeds_later(live: LiveMesh) -> None:
    request = {
        "headers": {
            "Authorization": f"Bearer {live.environment[demo_env.API_KEY]}",
            "Idempotency-Key": str(uuid.uuid4()),
        },
        "json": {
            "amount": {"amountMinor": "1050", "currency": "GHS"},
            "method": {"mobileMoney": {"msisdn": "+233241234567"}},
        },
    }
    async with httpx.AsyncClient(base_url=live.base_url, timeout=20) as client:
        live.kill("payments")
        refusals = []
        deadline = time.monotonic() + 30
        answer = await client.post("/v1/payments", **request)  # type: ignore[arg-type]  # keyword arguments by name
        while answer.status_code != 200 and time.monotonic() < deadline:
            refusals.append(answer)
            await asyncio.sleep(0.05)
            answer = await client.post("/v1/payments", **request)  # type: ignore[arg-type]  # as above
        again = await client.post("/v1/payments", **request)  # type: ignore[arg-type]  # as above

    assert refusals
    assert {refusal.json()["reason"] for refusal in refusals} <= {"SERVICE_UNAVAILABLE", "REQUEST_IN_FLIGHT"}
    assert all("retry-after" in refusal.headers for refusal in refusals)
    assert answer.status_code == 200
    assert again.content == answer.content
