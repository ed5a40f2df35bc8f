"""Random histories of one tenant: every answer and every balance is compared with the oracle's.

KENTE_TEST_EFFORT multiplies how many histories are run: 100 makes thousands.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from kente.ledger.v1 import ledger_pb2, ledger_service_pb2

from mesh.ids import new_id
from services.ledger.__main__ import build
from tests.harness import Infrastructure, TestMesh
from tests.ledger import teller
from tests.ledger.book import SCOPES, Book, account_request, new_request_id
from tests.ledger.clock import SettableClock
from tests.ledger.history_draws import CURRENCIES, NAMES, TYPES, Draws
from tests.ledger.oracle import Oracle, Outcome, Refused
from tests.ledger.oracle_history import Ask, Limits, OracleAccount

Result = TypeVar("Result")

EFFORT = float(os.environ.get("KENTE_TEST_EFFORT", "1"))
HISTORIES = max(1, round(20 * EFFORT))
STEPS = 50
WAIT_SECONDS = 30
ENDS = {
    "freeze": (ledger_service_pb2.FreezeAccountRequest, "frozen"),
    "open": (ledger_service_pb2.OpenAccountRequest, "opened"),
    "close": (ledger_service_pb2.CloseAccountRequest, "closed"),
}

# What each step does, from a number. Drawn one by one, choices would be the first or last of theirs too often.
chances = st.builds(Random, st.integers(0, 2**32 - 1))


class BookMachine(RuleBasedStateMachine):
    """One tenant's books, driven by a client, in a thread beside the loop of the service."""

    ledger: TestMesh
    clock: SettableClock
    loop: asyncio.AbstractEventLoop

    @initialize(chance=chances)
    def open_books(self, chance: Random) -> None:
        """A new tenant with some accounts: else most postings would name one that is missing."""
        self.book = self.wait(self.make_book(new_id("ten")))
        self.oracle = Oracle(self.expiry_id)
        self.asks: list[Ask] = []
        self.first_told: dict[Ask, bytes] = {}
        self.batches: list[tuple[list[Ask], str, bytes]] = []
        for name in chance.sample(NAMES, 5):
            self.create_account(chance, "main", name)
        self.create_account(chance, "side", NAMES[0])
        # Something to read, to reverse, and to end.
        for _ in range(6):
            self.ask_for(chance.choice([self.draws(chance).posting, self.draws(chance).hold])())

    async def make_book(self, tenant_id: str) -> Book:
        """The books of the tenant; a channel wants to be made on the loop."""
        self.channel = self.ledger.client("ledger", tenant_id, SCOPES)
        await self.channel.channel_ready()
        return Book(self.channel, tenant_id)

    def expiry_id(self, hold_id: str) -> str:
        """The id of the transaction by which a hold expired. The service makes it up; the hold tells it."""
        request = ledger_service_pb2.GetTransactionRequest(transaction_id=hold_id)
        later_ids = self.told("GetTransaction", request).message.transaction.later_transaction_ids
        assert len(later_ids) == 1, f"hold {hold_id} is to expire"
        return str(later_ids[0])

    def wait(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Runs a coroutine on the loop of the service."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(WAIT_SECONDS)

    def told(self, rpc: str, request: object) -> teller.Told:
        """What an RPC answers."""
        return self.wait(teller.told(getattr(self.book.stub, rpc)(request)))

    def draws(self, chance: Random) -> Draws:
        """Random choices about what is there now."""
        return Draws(chance, self.oracle, self.clock.now)

    # Accounts and books

    @rule(chance=chances)
    def create_any_account(self, chance: Random) -> None:
        """A client creates an account, or the name is taken."""
        draws = self.draws(chance)
        self.create_account(chance, draws.book_name(), chance.choice(NAMES))

    def create_account(self, chance: Random, book: str, name: str) -> None:
        """Creates an account, and expects that the name is free, or taken."""
        currency, limits = chance.choice(CURRENCIES), self.limits(chance)
        request = account_request(
            name, currency=currency, book_name=teller.book_name(book), limits=teller.limits_message(limits)
        )
        told = self.told("CreateAccount", request)
        taken = (book, name) in self.oracle.accounts
        assert told.reason == ("RESOURCE_ALREADY_EXISTS" if taken else "OK")
        if not taken:
            self.oracle.accounts[book, name] = OracleAccount(TYPES[name.partition(":")[0]], currency, limits=limits)

    def limits(self, chance: Random) -> Limits:
        """Limits that a balance can keep to."""
        while True:
            limits = self.draws(chance).limits()
            floors = [floor for floor in (limits.lowest, limits.floor) if floor is not None]
            if limits.highest is None or not floors or max(floors) <= limits.highest:
                return limits

    @rule(chance=chances)
    def update_limits(self, chance: Random) -> None:
        """A client changes the limits, whatever the balance is."""
        book, name = chance.choice(list(self.oracle.accounts))
        limits = self.limits(chance)
        request = ledger_service_pb2.UpdateAccountRequest(
            request_id=new_request_id(), account_name=name, book_name=book, limits=teller.limits_message(limits)
        )
        request.update_mask.paths.append("limits")
        told = self.told("UpdateAccount", request)
        self.oracle.accounts[book, name] = replace(self.oracle.accounts[book, name], limits=limits)
        self.oracle.expire_due(self.clock.now)
        teller.check_account(self.oracle, told.message.account)

    @rule(chance=chances, end=st.sampled_from(["freeze", "open", "open", "close", "close"]))
    def change_state(self, chance: Random, end: str) -> None:
        """A client freezes, opens or closes an account."""
        key = chance.choice(list(self.oracle.accounts))
        request_type, state = ENDS[end]
        request = request_type(request_id=new_request_id(), account_name=key[1], book_name=key[0])
        told = self.told(f"{end.capitalize()}Account", request)
        self.oracle.expire_due(self.clock.now)
        account = self.oracle.accounts[key]
        is_empty = not (self.oracle.balance(key) or self.oracle.held(key, "debit") or self.oracle.held(key, "credit"))
        if end == "freeze" and account.state == "closed":
            assert told.reason == "ACCOUNT_NOT_OPEN"
        elif end == "close" and account.state != "closed" and not is_empty:
            assert told.reason == "ACCOUNT_NOT_EMPTY"
        else:
            self.oracle.accounts[key] = replace(account, state=state)
            teller.check_account(self.oracle, told.message.account)

    @rule(chance=chances)
    def close_period(self, chance: Random) -> None:
        """A client locks a book up to a time, which must be past and later than the last."""
        book = self.draws(chance).book_name()
        end_time = self.clock.now + timedelta(seconds=chance.choice([-6_000_000, -100_000, -60, -1, 1]))
        request = ledger_service_pb2.ClosePeriodRequest(
            request_id=new_request_id(), book_name=book, end_time=teller.timestamp(end_time)
        )
        told = self.told("ClosePeriod", request)
        closed = self.oracle.closed_times.get(book)
        if end_time > self.clock.now:
            assert told.reason == "FIELD_INVALID"
        elif closed is not None and end_time <= closed:
            assert told.reason == "PERIOD_CLOSED"
        else:
            assert told.message.book.closed_time == teller.timestamp(end_time)
            self.oracle.closed_times[book] = end_time

    # Time

    @rule(seconds=st.sampled_from([0.000001, 0.5, 29.0, 3_600.0, 40 * 86_400.0]))
    def time_passes(self, seconds: float) -> None:
        """Up to more than a month at once."""
        self.pass_time_until(self.clock.now + timedelta(seconds=seconds))

    @rule(chance=chances, early=st.sampled_from([timedelta(0), timedelta(microseconds=1)]))
    def time_passes_until_a_hold_expires(self, chance: Random, early: timedelta) -> None:
        """Or until just before."""
        times = [hold.expire_time for hold in self.draws(chance).holds() if hold.expire_time is not None]
        times = [time for time in times if time - early > self.clock.now]
        if times:
            self.pass_time_until(chance.choice(times) - early)

    def pass_time_until(self, now: datetime) -> None:
        """Moves the clock, and lets what is due end: else it could do so at any time from then."""
        self.clock.now = now
        self.oracle.expire_due(now)
        book, name = next(iter(self.oracle.accounts))
        self.check_balance(book, name)

    @rule(chance=chances, seconds=st.integers(1, 1_000))
    def post_with_a_clock_set_back(self, chance: Random, seconds: int) -> None:
        """What is booked then is not booked before what was booked."""
        self.clock.advance(-seconds)
        self.ask_for(replace(self.draws(chance).posting(), effective_time=None))
        self.clock.advance(seconds)

    # Postings

    @rule(chance=chances)
    def post(self, chance: Random) -> None:
        """A client posts something."""
        self.ask_for(self.draws(chance).posting())

    @rule(chance=chances)
    def hold(self, chance: Random) -> None:
        """A client holds something."""
        self.ask_for(self.draws(chance).hold())

    @rule(chance=chances)
    def post_hold(self, chance: Random) -> None:
        """A client posts what is held, or a part of it."""
        self.ask_for(self.draws(chance).about_a_hold("hold_posting"))

    @rule(chance=chances)
    def void_hold(self, chance: Random) -> None:
        """A client releases what is held."""
        self.ask_for(self.draws(chance).about_a_hold("hold_void"))

    @rule(chance=chances)
    def reverse(self, chance: Random) -> None:
        """A client reverses a transaction or some of its entries."""
        self.ask_for(self.draws(chance).reversal())

    @rule(chance=chances)
    def resend(self, chance: Random) -> None:
        """A client asks again for what it asked for before, refused or not."""
        singles = [ask for ask in self.asks if ask.form == "transaction"]
        if singles:
            self.ask_for(chance.choice(singles))

    @rule(chance=chances)
    def ask_for_something_else_under_a_used_id(self, chance: Random) -> None:
        """A client mixes up its ids."""
        if self.asks:
            draws = self.draws(chance)
            other = chance.choice([draws.posting, draws.hold, draws.hold_posting, draws.hold_void, draws.reversal])()
            self.ask_for(replace(other, transaction_id=chance.choice(self.asks).transaction_id))

    def ask_for(self, ask: Ask) -> None:
        """Asks for one transaction, and compares."""
        told = self.wait(teller.send(self.book, ask))
        is_new = ask.transaction_id not in self.oracle.answers
        outcome = self.oracle.book(ask, self.clock.now)
        self.check(told, outcome, is_new=is_new)
        if self.oracle.answers[ask.transaction_id][0] == ask:
            self.asks.append(ask)
            assert self.first_told.setdefault(ask, told.as_bytes) == told.as_bytes

    def check(self, told: teller.Told, outcome: Outcome, *, is_new: bool) -> None:
        """The answer to one ask is the oracle's."""
        if isinstance(outcome, Refused):
            teller.check_refusal(told.problem, outcome)
            return
        assert told.message is not None, f"refused: {told.problem}"
        assert told.message.transaction == teller.transaction_message(outcome)
        if is_new:
            assert list(told.message.balances) == teller.balance_messages(self.oracle, outcome)

    @rule(chance=chances)
    def transfer(self, chance: Random) -> None:
        """A client sends several transfers."""
        asks = self.draws(chance).transfers(self.asks)
        request_id = new_request_id()
        told = self.wait(teller.send_all(self.book, asks, request_id))
        if asks[-1].linked:
            assert told.reason == "FIELD_INVALID"
            return
        assert told.problem is None, told.problem
        outcomes = self.oracle.book_all(asks, self.clock.now)
        for result, ask, outcome in zip(told.message.results, asks, outcomes, strict=True):
            teller.check_result(result, ask, outcome)
            if self.oracle.answers[ask.transaction_id][0] == ask:
                self.asks.append(ask)
        self.batches.append((asks, request_id, told.as_bytes))

    @rule(chance=chances, same_request_id=st.booleans())
    def resend_transfers(self, chance: Random, same_request_id: bool) -> None:  # noqa: FBT001 - drawn by name
        """A client sends transfers again."""
        if self.batches:
            asks, request_id, first = chance.choice(self.batches)
            told = self.wait(teller.send_all(self.book, asks, request_id if same_request_id else new_request_id()))
            assert told.as_bytes == first

    # Reading

    def check_balance(self, book: str, name: str, *times: datetime | None) -> None:
        """GetBalance says what the oracle says: now, or as of a time of effect and a time of booking."""
        request = ledger_service_pb2.GetBalanceRequest(account_name=name, book_name=book)
        for field, time in zip(("effective_time", "booking_time"), times, strict=False):
            if time is not None:
                getattr(request, field).FromDatetime(time)
        answer, key = self.told("GetBalance", request).message, (book, name)
        assert (answer.balance.amount_minor, answer.debits.amount_minor, answer.credits.amount_minor) == (
            self.oracle.balance(key, *times),
            self.oracle.total(key, "debit", *times),
            self.oracle.total(key, "credit", *times),
        )
        if any(times):
            return
        assert (answer.pending_debits.amount_minor, answer.pending_credits.amount_minor) == (
            self.oracle.held(key, "debit"),
            self.oracle.held(key, "credit"),
        )
        assert (answer.available.amount_minor if answer.HasField("available") else None) == self.oracle.available(key)

    @rule(chance=chances)
    def read_a_balance_of_the_past(self, chance: Random) -> None:
        """Around any time at which something took effect or was booked."""
        times = [time for booked in self.oracle.booked for time in (booked.effective_time, booked.create_time)]
        near = [time + timedelta(microseconds=off) for time in times for off in (-1, 0)]
        picked = [chance.choice([None, *near]) for _ in range(2)]
        self.check_balance(*chance.choice(list(self.oracle.accounts)), *picked)

    def teardown(self) -> None:
        """At the end, every account shows the sums of its history, which is told without a gap."""
        if hasattr(self, "book"):
            # When a fault is found already, it is what is to be told.
            if sys.exc_info()[0] is None:
                self.check_all()
            self.wait(self.channel.close())

    def check_all(self) -> None:
        """All accounts, transactions and entries are the oracle's."""
        self.oracle.expire_due(self.clock.now)
        for book, name in self.oracle.accounts:
            self.check_balance(book, name)
            request = ledger_service_pb2.GetAccountRequest(account_name=name, book_name=book)
            teller.check_account(self.oracle, self.told("GetAccount", request).message.account)
        for book in ("main", "side"):
            booked = [made for made in self.oracle.booked if made.book == book]
            assert self.wait(self.transactions_of(book)) == [
                teller.transaction_message(made, self.oracle) for made in booked
            ]
            assert self.wait(self.book.entries(page_size=7, book_name=book)) == [
                teller.entry_message(made, entry) for made in booked for entry in made.entries
            ]

    async def transactions_of(self, book: str) -> list[ledger_pb2.Transaction]:
        """All transactions of a book, page by page."""
        found: list[ledger_pb2.Transaction] = []
        request = ledger_service_pb2.ListTransactionsRequest(book_name=book, page_size=9)
        while True:
            answer = await self.book.stub.ListTransactions(request)
            found += answer.transactions
            request.page_token = answer.next_page_token
            if not request.page_token:
                return found


@pytest.fixture(scope="module")
async def clock() -> SettableClock:
    """The clock of the service."""
    return SettableClock(datetime(2027, 1, 31, 23, 59, tzinfo=UTC))


@pytest.fixture(scope="module")
async def timed_ledger(infrastructure: Infrastructure, clock: SettableClock) -> AsyncIterator[TestMesh]:
    """A ledger with that clock."""
    mesh = TestMesh(infrastructure)
    limits = {"write_rate_per_second": 100_000, "read_rate_per_second": 100_000}
    await mesh.start("ledger", limits, build=partial(build, clock=clock))
    yield mesh
    await mesh.close()


@pytest.mark.timeout(120 + 60 * EFFORT)
async def test_every_answer_of_a_random_history_is_the_oracles(timed_ledger: TestMesh, clock: SettableClock) -> None:
    class Machine(BookMachine):
        pass

    Machine.ledger, Machine.clock, Machine.loop = timed_ledger, clock, asyncio.get_running_loop()
    limits = settings(
        max_examples=HISTORIES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        # The suite runs the same histories each time; a long run looks for new ones.
        derandomize=EFFORT == 1,
        suppress_health_check=list(HealthCheck),
        # Each history takes a second, so a fault is shown as it was found.
        phases=[Phase.generate],
    )
    await asyncio.to_thread(run_state_machine_as_test, Machine, settings=limits)
