"""When no answer comes, or none that can be read: no crash, no claim, and the truth by asking."""

from __future__ import annotations

import pytest

from mesh.provider.errors import OutcomeUnknown, ProviderError
from mesh.sandbox.faults import Fault
from tests.providers.conftest import DOUBT_TIMEOUT_SECONDS, Bench
from tests.providers.contract import Case, Seen, State

GARBAGE = [Fault.HTML_502, Fault.TRUNCATED_JSON, Fault.UNKNOWN_STATUS]
SHORT = {"timeout_seconds": DOUBT_TIMEOUT_SECONDS}


async def test_a_timeout_after_it_was_done_is_a_doubt_that_asking_resolves(bench: Bench, case: Case) -> None:
    attempt = bench.attempt()
    prepared = await case.prepare(bench.adapter(), attempt)
    before = bench.moved(case)
    bench.plan(case.operation, Fault.TIMEOUT_AFTER_COMMIT)

    with pytest.raises(OutcomeUnknown):
        await case.send(bench.adapter(settings=SHORT), attempt, prepared)
    end = await bench.end(case, bench.adapter(), attempt)

    assert end.state is State.DONE
    assert bench.moved(case) == before + 1


async def test_a_timeout_before_it_was_done_is_a_doubt_and_sending_again_is_safe(bench: Bench, case: Case) -> None:
    attempt = bench.attempt()
    adapter = bench.adapter()
    prepared = await case.prepare(adapter, attempt)
    before = bench.moved(case)
    bench.plan(case.operation, Fault.TIMEOUT_BEFORE)

    with pytest.raises(OutcomeUnknown):
        await case.send(bench.adapter(settings=SHORT), attempt, prepared)

    assert (await case.find(adapter, attempt)).state is State.ABSENT
    assert bench.moved(case) == before
    await case.send(adapter, attempt, prepared)
    assert (await bench.end(case, adapter, attempt)).state is State.DONE
    assert bench.moved(case) == before + 1


async def test_a_reset_after_it_was_done_never_does_it_twice(bench: Bench, case: Case) -> None:
    adapter, attempt = bench.adapter(), bench.attempt()
    prepared = await case.prepare(adapter, attempt)
    before = bench.moved(case)
    bench.plan(case.operation, Fault.RESET_AFTER_COMMIT)

    first = await _outcome_or_doubt(case, bench, attempt_and_prepared=(attempt, prepared))

    assert first is None or first.state in {State.PENDING, State.DONE}
    assert (await bench.end(case, adapter, attempt)).state is State.DONE
    assert bench.moved(case) == before + 1


async def test_a_reset_again_and_again_is_a_doubt(bench: Bench, case: Case) -> None:
    adapter, attempt = bench.adapter(), bench.attempt()
    prepared = await case.prepare(adapter, attempt)
    before = bench.moved(case)
    bench.plan(case.operation, Fault.RESET_AFTER_COMMIT, None)

    with pytest.raises(OutcomeUnknown):
        await case.send(adapter, attempt, prepared)
    bench.sandbox.faults.clear()

    assert (await bench.end(case, adapter, attempt)).state is State.DONE
    assert bench.moved(case) == before + 1


@pytest.mark.parametrize("fault", GARBAGE)
async def test_garbage_instead_of_an_answer_claims_nothing(bench: Bench, case: Case, fault: Fault) -> None:
    adapter, attempt = bench.adapter(), bench.attempt()
    prepared = await case.prepare(adapter, attempt)
    before = bench.moved(case)
    bench.plan(case.operation, fault)

    first = await _outcome_or_doubt(case, bench, attempt_and_prepared=(attempt, prepared))

    # Where acceptance has no body, nothing in it can be wrong; a refusal would be a lie in any case.
    assert first is None or first.state in {State.PENDING, State.DONE}
    assert (await bench.end(case, adapter, attempt)).state is State.DONE
    assert bench.moved(case) == before + 1


@pytest.mark.parametrize("fault", [*GARBAGE, Fault.STORM_429, Fault.RESET_AFTER_COMMIT])
async def test_garbage_instead_of_a_status_claims_nothing(bench: Bench, case: Case, fault: Fault) -> None:
    adapter, attempt = bench.adapter(), bench.attempt()
    await case.send(adapter, attempt, await case.prepare(adapter, attempt))
    await bench.end(case, adapter, attempt)
    bench.plan("*", fault, None)

    with pytest.raises(ProviderError):
        await case.find(adapter, attempt)
    bench.sandbox.faults.clear()

    assert (await case.find(adapter, attempt)).state is State.DONE


async def _outcome_or_doubt(case: Case, bench: Bench, *, attempt_and_prepared: tuple) -> Seen | None:  # type: ignore[type-arg]  # each case knows its own
    attempt, prepared = attempt_and_prepared
    try:
        return await case.send(bench.adapter(), attempt, prepared)
    except OutcomeUnknown:
        return None
