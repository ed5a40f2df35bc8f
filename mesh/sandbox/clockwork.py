"""Does what simulated providers planned for later: approvals, settlements, callbacks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import httpx

from mesh.logs import get_logger
from mesh.sandbox.simulator import CALLBACK_TIMER, ProviderSimulator
from mesh.sandbox.store import Store, Timer

_log = get_logger()

_BATCH = 100
_CALLBACK_TIMEOUT_SECONDS = 10.0
_CALLBACKS_AT_ONCE = 32


class Clockwork:
    """Runs timers when they are due. A timer is forgotten together with what it did, so a kill repeats it at most."""

    def __init__(self, store: Store, simulators: Mapping[str, ProviderSimulator]) -> None:
        self._store = store
        self._simulators = simulators
        self._wake = asyncio.Event()
        self._delivering: dict[int, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(_CALLBACKS_AT_ONCE)
        store.on_timer = self._wake.set

    async def run(self) -> None:
        """Runs until cancelled."""
        async with httpx.AsyncClient(trust_env=False, timeout=_CALLBACK_TIMEOUT_SECONDS) as client:
            try:
                while True:
                    self._wake.clear()
                    # One moment for both: a timer due between two readings of the clock would be seen by neither.
                    now = time.time()
                    self._run_due(client, now)
                    await self._wait(now)
            finally:
                for task in self._delivering.values():
                    task.cancel()

    def _run_due(self, client: httpx.AsyncClient, now: float) -> None:
        while True:
            due = self._store.due_timers(now, _BATCH + len(self._delivering))
            new = [timer for timer in due if timer.sequence not in self._delivering]
            if not new:
                return
            for timer in new:
                self._start(timer, client)

    def _start(self, timer: Timer, client: httpx.AsyncClient) -> None:
        simulator = self._simulators.get(timer.slug)
        if simulator is None:
            self._store.remove_timer(timer.sequence)
        elif timer.name == CALLBACK_TIMER:
            task = asyncio.create_task(self._deliver(timer, simulator, client))
            self._delivering[timer.sequence] = task
            task.add_done_callback(lambda _: self._delivering.pop(timer.sequence, None))
        else:
            self._act(timer, simulator)

    def _act(self, timer: Timer, simulator: ProviderSimulator) -> None:
        try:
            with self._store.transaction():
                self._store.remove_timer(timer.sequence)
                simulator.on_timer(timer.name, timer.payload)
        except Exception:  # noqa: BLE001 - a fault in one simulator must not stop the others
            _log.exception("sandbox_timer_failed", provider=timer.slug, timer=timer.name)
            self._store.remove_timer(timer.sequence)

    async def _wait(self, now: float) -> None:
        due = self._store.next_due(now)
        seconds = None if due is None else max(0.0, due - time.time())
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _deliver(self, timer: Timer, simulator: ProviderSimulator, client: httpx.AsyncClient) -> None:
        callback = timer.payload
        async with self._turns:
            answer = await _send(client, callback, simulator)
        accepted = answer is not None and httpx.codes.is_success(answer)
        _log.info("sandbox_callback_sent", provider=timer.slug, status=answer, accepted=accepted)
        with self._store.transaction():
            self._store.remove_timer(timer.sequence)
            delays = callback["retry_delays_seconds"]
            if not accepted and delays:
                later = {**callback, "retry_delays_seconds": delays[1:]}
                simulator.shelf.later(delays[0], CALLBACK_TIMER, later)


async def _send(client: httpx.AsyncClient, callback: dict[str, Any], simulator: ProviderSimulator) -> int | None:
    """Sends one callback; the status of the answer, or None when none came."""
    body = callback["body"]
    headers = {"content-type": "application/json", **callback["headers"], **simulator.sign_callback(body)}
    try:
        answer = await client.request(callback["http_method"], callback["url"], content=body, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL):
        return None
    return answer.status_code
