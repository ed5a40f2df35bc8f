"""Clients of a ledger in which things break: they send everything again until they know what became of it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from random import Random

from kente.ledger.v1.ledger_service_pb2 import CreateAccountRequest

from mesh.clock import utc_now
from mesh.ids import new_id
from tests.harness import eventually
from tests.ledger import teller
from tests.ledger.book import Book, account_request, new_request_id
from tests.ledger.crowd import HOT, NAMES, Sent
from tests.ledger.oracle_history import Ask, Leg

CALLERS, ASKS_EACH = 6, 10
# What says nothing about what became of a request: it is to be sent again.
UNKNOWN = {
    "SERVICE_UNAVAILABLE",
    "DEADLINE_PASSED",
    "INTERNAL",
    "SERVICE_OVERLOADED",
    "REQUEST_IN_FLIGHT",
    "CALL_CANCELED",
}
_GIVE_UP_SECONDS = 60.0
_PAUSE_SECONDS = 0.05
# No clock is set more wrong than that.
WRONG_AT_MOST = timedelta(days=4)


@dataclass
class Clients:
    """All callers of one tenant.

    Attributes:
        sent: what was asked for and is known, by the asks of a request.
        abandoned: what was asked for by callers who did not wait for an answer; when they first called.
        faults: answers that differ from what was told before, or that never came.
    """

    book: Book
    chance: Random
    sent: dict[tuple[Ask, ...], Sent] = field(default_factory=dict)
    abandoned: dict[tuple[Ask, ...], float] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    _ids: dict[str, list[str]] = field(default_factory=lambda: {"hold": [], "posting": []})

    async def open(self) -> None:
        """Creates the accounts."""
        for (_, name), account in HOT.items():
            request = account_request(name, limits=teller.limits_message(account.limits))
            assert await eventually(partial(self._is_created, request))

    async def _is_created(self, request: CreateAccountRequest) -> bool:
        return (await teller.told(self.book.stub.CreateAccount(request))).reason == "OK"

    async def run(self) -> None:
        """Lets all callers ask for what they want."""
        await asyncio.gather(*(self._act(Random(self.chance.random())) for _ in range(CALLERS)))

    async def resolve(self) -> None:
        """Asks again for all that was ever asked for: it tells what became of it, and is what was told before."""
        for asks, called in self.abandoned.items():
            await self._ask_until_known(asks, called)
        for asks, sent in self.sent.items():
            again = await self._told(asks, new_request_id())
            if again.as_bytes != sent.told.as_bytes:
                self.faults.append(f"{asks} was told {sent.told}, and in the end {again}")

    async def _act(self, chance: Random) -> None:
        for _ in range(ASKS_EACH):
            if self.faults:
                # It does not answer any more; what there is to know is known.
                return
            asks = self._wanted(chance)
            self.counts["postings"] += len(asks)
            if chance.randrange(8) == 0:
                await self._ask_and_leave(asks)
            else:
                await self._ask_until_known(asks, time.monotonic())

    def _wanted(self, chance: Random) -> tuple[Ask, ...]:
        kind = chance.choices(
            ["posting", "hold", "hold_posting", "hold_void", "reversal", "transfers"], [45, 18, 8, 6, 6, 17]
        )[0]
        if kind == "transfers":
            asks = [
                Ask(new_id("txn"), "posting", _pair(chance), form="transfer", linked=chance.randrange(2) == 0)
                for _ in range(chance.randint(2, 6))
            ]
            return (*asks[:-1], replace(asks[-1], linked=False))
        about = self._ids["posting" if kind == "reversal" else "hold"]
        if kind in {"hold_posting", "hold_void", "reversal"} and about:
            return (Ask(new_id("txn"), kind, related_id=chance.choice(about[-4:])),)
        if kind == "hold":
            soon = utc_now() + timedelta(seconds=chance.choice([0.2, 0.6, 5, 3_600]))
            return (Ask(new_id("txn"), "hold", _pair(chance), expire_time=soon),)
        return (Ask(new_id("txn"), "posting", _pair(chance)),)

    async def _told(self, asks: tuple[Ask, ...], request_id: str) -> teller.Told:
        deadline = time.monotonic() + _GIVE_UP_SECONDS
        while True:
            single = asks[0].form == "transaction"
            told = await (
                teller.send(self.book, asks[0], request_id) if single else teller.send_all(self.book, asks, request_id)
            )
            if told.reason not in UNKNOWN or time.monotonic() > deadline:
                return told
            self.counts["resent"] += 1
            self.counts[told.reason] += 1
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _ask_until_known(self, asks: tuple[Ask, ...], called: float) -> None:
        told = await self._told(asks, new_request_id())
        if told.reason in UNKNOWN:
            self.faults.append(f"no answer within {_GIVE_UP_SECONDS} s: {asks}: {told.problem}")
            return
        self.sent[asks] = Sent(asks, called, time.monotonic(), told, utc_now() + WRONG_AT_MOST)
        self.counts["acknowledged"] += len(asks)
        if told.problem is None and asks[0].kind in self._ids:
            self._ids[asks[0].kind].append(asks[0].transaction_id)

    async def _ask_and_leave(self, asks: tuple[Ask, ...]) -> None:
        """A caller whose own process ends: whatever it was told is lost."""
        self.abandoned[asks] = time.monotonic()
        single = asks[0].form == "transaction"
        await (teller.send(self.book, asks[0]) if single else teller.send_all(self.book, asks))


def _pair(chance: Random) -> tuple[Leg, Leg]:
    one, other = chance.sample(NAMES, 2)
    amount = chance.randint(1, 100)
    return Leg(one, "debit", amount, "GHS"), Leg(other, "credit", amount, "GHS")
