"""Random histories of one book: every answer and every balance is compared with the oracle's."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import asyncpg
import grpc
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)
from kente.ledger.v1 import ledger_pb2

from mesh.errors import Problem
from mesh.ids import new_id
from tests.harness import TestMesh
from tests.ledger.book import TYPE_OF_FIRST_WORD, Book, account_request, credit, debit, set_state, transaction_request
from tests.ledger.oracle import INT64_MAX, Oracle, OracleAccount, OracleLeg

Result = TypeVar("Result")

TYPES = {"assets": "asset", "liabilities": "liability", "equity": "equity", "income": "income", "expenses": "expense"}
WAIT_SECONDS = 30

account_names = st.builds("{}:{}".format, st.sampled_from(sorted(TYPE_OF_FIRST_WORD)), st.sampled_from("ab"))
currencies = st.sampled_from(["GHS"] * 7 + ["JPY"])
amounts = st.one_of(st.integers(1, 10_000), st.just(INT64_MAX // 2))


@st.composite
def leg_lists(draw: st.DrawFn) -> list[OracleLeg]:
    """One to three pairs of legs; one amount in eight is wrong."""
    legs = []
    for _ in range(draw(st.integers(1, 3))):
        currency, amount = draw(currencies), draw(amounts)
        legs += [OracleLeg(draw(account_names), side, amount, currency) for side in ("debit", "credit")]
    if draw(st.integers(0, 7)) == 7:
        legs[-1] = OracleLeg(legs[-1].account, legs[-1].side, legs[-1].amount + 1, legs[-1].currency)
    return legs


def to_proto(legs: list[OracleLeg]) -> list[ledger_pb2.Leg]:
    """The legs as the contract has them."""
    make = {"debit": debit, "credit": credit}
    return [make[leg.side](leg.account, leg.amount, leg.currency) for leg in legs]


class BookMachine(RuleBasedStateMachine):
    """One tenant's book, driven by a client and an operator, in a thread beside the loop of the service."""

    ledger: TestMesh
    admin: asyncpg.Connection
    loop: asyncio.AbstractEventLoop

    transactions = Bundle("transactions")

    @initialize(accounts=st.dictionaries(account_names, currencies, min_size=8))
    def open_book(self, accounts: dict[str, str]) -> None:
        """A new tenant, with most of the accounts: else most postings would name one that is missing."""
        tenant_id = new_id("ten")
        self.book = self.wait(self.make_book(tenant_id))
        self.oracle = Oracle()
        for account_name, currency in accounts.items():
            self.create_account(account_name, currency)

    async def make_book(self, tenant_id: str) -> Book:
        """A book of the tenant; a channel wants to be made on the loop."""
        return Book(self.ledger.client("ledger", tenant_id, ("ledger:read", "ledger:write")), tenant_id)

    def wait(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Runs a coroutine on the loop of the service."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(WAIT_SECONDS)

    async def outcome(self, transaction_id: str, legs: list[OracleLeg]) -> ledger_pb2.Transaction | str:
        """The transaction, or the reason of the refusal."""
        request = transaction_request(*to_proto(legs), transaction_id=transaction_id)
        try:
            return (await self.book.stub.CreateTransaction(request)).transaction
        except grpc.aio.AioRpcError as error:
            return Problem.from_rpc_error(error).reason_name

    @rule(account_name=account_names, currency=currencies)
    def create_account(self, account_name: str, currency: str) -> None:
        """A client creates an account, or the name is taken."""
        expected = "RESOURCE_ALREADY_EXISTS" if account_name in self.oracle.accounts else "OK"
        assert self.wait(self.create(account_name, currency)) == expected
        account_type = TYPES[account_name.partition(":")[0]]
        self.oracle.accounts.setdefault(account_name, OracleAccount(account_type, currency))

    async def create(self, account_name: str, currency: str) -> str:
        """Creates an account; "OK", or the reason of the refusal."""
        try:
            await self.book.stub.CreateAccount(account_request(account_name, currency=currency))
        except grpc.aio.AioRpcError as error:
            return Problem.from_rpc_error(error).reason_name
        return "OK"

    @rule(target=transactions, legs=leg_lists())
    def post(self, legs: list[OracleLeg]) -> Any:
        """A client posts something new."""
        transaction_id = new_id("txn")
        answer = self.wait(self.outcome(transaction_id, legs))
        expected = self.oracle.refusal(legs)
        if expected:
            assert answer == expected
            return multiple()
        assert isinstance(answer, ledger_pb2.Transaction)
        balances = [entry.balance_after.amount_minor for entry in answer.entries]
        assert balances == self.oracle.post(transaction_id, legs)
        return answer

    @rule(transaction=transactions)
    def resend(self, transaction: ledger_pb2.Transaction) -> None:
        """A client sends a posting again under another request id."""
        legs = self.oracle.booked[transaction.transaction_id]
        assert self.wait(self.outcome(transaction.transaction_id, legs)) == transaction

    @rule(transaction=transactions, legs=leg_lists())
    def post_something_else_under_a_used_id(self, transaction: ledger_pb2.Transaction, legs: list[OracleLeg]) -> None:
        """A client mixes up its ids."""
        if legs == self.oracle.booked[transaction.transaction_id]:
            return
        answer = self.wait(self.outcome(transaction.transaction_id, legs))
        assert answer in {"RESOURCE_ALREADY_EXISTS", "TRANSACTION_UNBALANCED"}

    @rule(account_name=account_names, state=st.sampled_from(["opened", "opened", "frozen", "closed"]))
    def change_state(self, account_name: str, state: str) -> None:
        """An operator freezes, closes or opens an account."""
        if account_name in self.oracle.accounts:
            self.oracle.accounts[account_name].state = state
            self.wait(set_state(self.admin, self.book, account_name, state))

    def teardown(self) -> None:
        """At the end, every account shows the sums of its history, which the entries tell without a gap."""
        for account_name in self.oracle.accounts:
            totals = [self.oracle.total(account_name, side, self.oracle.history) for side in ("debit", "credit")]
            assert self.wait(self.book.balance(account_name)) == (self.oracle.balance(account_name), *totals)
        entries = self.wait(self.book.entries(page_size=7))
        assert [entry.sequence for entry in entries] == list(range(1, len(entries) + 1))
        sides = {ledger_pb2.SIDE_DEBIT: "debit", ledger_pb2.SIDE_CREDIT: "credit"}
        assert [
            OracleLeg(entry.account_name, sides[entry.side], entry.amount.amount_minor, entry.amount.currency)
            for entry in entries
        ] == self.oracle.history


async def test_every_answer_of_a_random_history_is_the_oracles(ledger: TestMesh, admin: asyncpg.Connection) -> None:
    class Machine(BookMachine):
        pass

    Machine.ledger, Machine.admin, Machine.loop = ledger, admin, asyncio.get_running_loop()
    limits = settings(
        max_examples=25,
        stateful_step_count=30,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    await asyncio.to_thread(run_state_machine_as_test, Machine, settings=limits)
