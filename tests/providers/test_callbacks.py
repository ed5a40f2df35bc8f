"""Callbacks as the simulators send them, read by the adapters: in time, late, twice, out of order, never."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from mesh.clock import utc_now
from mesh.provider.adapter import Adapter
from mesh.provider.webhook import IncomingWebhook
from mesh.sandbox.faults import Fault
from tests.harness import eventually
from tests.providers.conftest import Bench
from tests.providers.contract import Attempt, Case, State
from tests.providers.scripted import Heard, Say, ScriptedServer, scripted


def _calls_back(bench: Bench, case: Case) -> bool:
    # A capture is reported as the charge that it completes.
    return "Webhooks" in bench.registry.capabilities_of(bench.provider.slug) and not case.movement


async def test_a_callback_names_the_operation_and_claims_nothing_false(bench: Bench, case: Case) -> None:
    if not _calls_back(bench, case):
        return
    async with _receiver(bench) as receiver:
        adapter, attempt = await _send(bench, case, receiver)
        final = await _final_report(receiver, adapter, case, attempt)

        end = await bench.end(case, bench.adapter(), attempt)

    assert end.state is State.DONE
    if final.outcome is not None:
        assert final.reference == end.reference
        assert final.outcome.amount == attempt.amount


async def test_a_duplicate_callback_has_the_same_event_id(bench: Bench, case: Case) -> None:
    if not _calls_back(bench, case):
        return
    async with _receiver(bench) as receiver:
        adapter, attempt = await _send(bench, case, receiver, Fault.DUPLICATE_CALLBACK)

        async def twice() -> bool:
            ids = [report.event_id for report in _reports(receiver, adapter, case, attempt)]
            return any(ids.count(event_id) > 1 for event_id in ids)

        assert await eventually(twice, 5.0)


async def test_a_late_callback_comes_after_the_end_is_known(bench: Bench, case: Case) -> None:
    if not _calls_back(bench, case):
        return
    async with _receiver(bench) as receiver:
        adapter, attempt = await _send(bench, case, receiver, Fault.LATE_CALLBACK)
        end = await bench.end(case, bench.adapter(), attempt)

        assert end.state is State.DONE
        assert _reports(receiver, adapter, case, attempt) == []
        assert await _final_report(receiver, adapter, case, attempt)


async def test_callbacks_out_of_order_are_all_readable(bench: Bench, case: Case) -> None:
    if not _calls_back(bench, case):
        return
    async with _receiver(bench) as receiver:
        adapter, attempt = await _send(bench, case, receiver, Fault.OUT_OF_ORDER_CALLBACK)

        async def two() -> bool:
            return len(_reports(receiver, adapter, case, attempt)) > 1

        assert await eventually(two, 5.0)


async def test_without_a_callback_asking_is_enough(bench: Bench, case: Case) -> None:
    if not _calls_back(bench, case):
        return
    async with _receiver(bench) as receiver:
        _, attempt = await _send(bench, case, receiver, Fault.NO_CALLBACK)

        assert (await bench.end(case, bench.adapter(), attempt)).state is State.DONE
        assert not [heard for heard in receiver.heard if attempt.key in heard.body.decode()]


@asynccontextmanager
async def _receiver(bench: Bench) -> AsyncIterator[ScriptedServer]:
    """A server that takes callbacks, made known to the provider where that is done beforehand."""

    async def accept(_heard: Heard) -> Say:
        return Say(204, b"")

    async with scripted(accept) as receiver:
        setup: dict[str, Any] | None = bench.values.fields.get("callback_setup")
        if setup is not None:
            form = {name: value.replace("{callback_url}", receiver.url) for name, value in setup["form"].items()}
            async with httpx.AsyncClient(trust_env=False) as client:
                url = f"{bench.sandbox.url}/{bench.provider.slug}{setup['path']}"
                answer = await client.post(url, data=form, headers=setup["headers"])
                assert answer.is_success, answer.text
        yield receiver


async def _send(
    bench: Bench, case: Case, receiver: ScriptedServer, fault: Fault | None = None
) -> tuple[Adapter, Attempt]:
    adapter, attempt = bench.adapter(callback_url=receiver.url), bench.attempt()
    prepared = await case.prepare(adapter, attempt)
    if fault is not None:
        bench.plan(case.operation, fault)
    await case.send(adapter, attempt, prepared)
    return adapter, attempt


def _reports(receiver: ScriptedServer, adapter: Any, case: Case, attempt: Attempt) -> list[Any]:
    """What the callbacks so far say about one operation."""
    found = []
    for heard in receiver.heard:
        webhook = IncomingWebhook(heard.headers, heard.body, heard.path.partition("?")[2], heard.method, utc_now())
        found += [report for report in adapter.read_webhook(webhook) if report.attempt_key == attempt.key]
    assert {report.operation for report in found} <= {case.operation}
    return found


async def _final_report(receiver: ScriptedServer, adapter: Adapter, case: Case, attempt: Attempt) -> Any:
    """The report that says that it is done, or that it is time to ask."""

    async def final() -> Any:
        reports = _reports(receiver, adapter, case, attempt)
        return next((each for each in reports if each.outcome is None or each.outcome.state == "succeeded"), None)

    return await eventually(final, 5.0)
