"""Random faults on every request: whoever asks before sending again moves money exactly once."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from mesh.provider.errors import CircuitOpen, ProviderError
from mesh.sandbox.faults import FaultPlan
from mesh.sandbox.settings import SandboxSettings
from tests.harness import eventually
from tests.providers.conftest import Bench
from tests.providers.contract import Attempt, Case, State

OPERATIONS = 25


@pytest.mark.parametrize("seed", [1, 2])
async def test_every_operation_is_done_once_in_a_storm_of_faults(
    bench: Bench, case: Case, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not case.key_is_kept:
        return
    adapter = bench.adapter(settings={"timeout_seconds": "0.3"})
    attempts = [bench.attempt() for _ in range(OPERATIONS)]
    prepared = [await case.prepare(adapter, attempt) for attempt in attempts]
    before = bench.moved(case)
    storm = FaultPlan(bench.sandbox.store, SandboxSettings(seed=seed, fault_rate=0.25))
    monkeypatch.setattr(bench.sandbox, "faults", storm)
    guard = bench.registry.guard_of(adapter.connection.connection_id)
    assert guard is not None

    async def drive(attempt: Attempt, ready: object) -> None:
        with suppress(ProviderError):
            await case.send(adapter, attempt, ready)

        async def ended() -> bool:
            try:
                found = await case.find(adapter, attempt)
                assert found.state is not State.REFUSED
                if found.state is State.ABSENT:
                    await case.send(adapter, attempt, ready)
            except CircuitOpen:
                guard.reset_breaker()
                return False
            except ProviderError:
                return False
            return found.state is State.DONE

        await eventually(ended, 30.0)

    await asyncio.gather(*(drive(attempt, ready) for attempt, ready in zip(attempts, prepared, strict=True)))

    assert bench.moved(case) == before + OPERATIONS
