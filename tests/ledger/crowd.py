"""Many callers of one tenant at once, on few hot accounts, and what each of them was told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random

from google.protobuf.timestamp_pb2 import Timestamp
from kente.ledger.v1 import ledger_pb2, ledger_service_pb2

from mesh.clock import utc_now
from mesh.ids import new_id
from tests.ledger import teller
from tests.ledger.book import Book, account_request, new_request_id
from tests.ledger.oracle import Oracle, Outcome, Refused, groups_of
from tests.ledger.oracle_history import Ask, Booked, Leg, Limits, OracleAccount, OracleEntry
from tests.ledger.serialisability import Accounts, Change, Checker, Claim, Reading

SIDE_NAMES = {number: name for name, number in teller.SIDES.items()}
# Few, so that everybody meets; with limits, so that the order decides who is refused.
HOT: Accounts = {
    ("main", "assets:bank"): OracleAccount("asset", "GHS"),
    ("main", "liabilities:payer"): OracleAccount("liability", "GHS", limits=Limits(lowest=0)),
    ("main", "liabilities:payee"): OracleAccount("liability", "GHS", limits=Limits(highest=400, credit=100)),
    ("main", "income:fees"): OracleAccount("income", "GHS"),
}
NAMES = tuple(name for _, name in HOT)


@dataclass
class Sent:
    """The same asks, however often they were sent.

    Attributes:
        called: when they were sent first, in seconds of a clock that never falls.
        returned: when they were answered first.
        latest: the latest time that a clock of the ledger may have said by then.
    """

    asks: tuple[Ask, ...]
    called: float
    returned: float
    told: teller.Told
    latest: datetime


@dataclass
class Crowd:
    """Callers, each with a channel of its own to one of the processes.

    Attributes:
        faults: what was seen to be wrong while it happened.
    """

    books: Sequence[Book]
    seed: int
    sent: dict[tuple[Ask, ...], Sent] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    _ids: dict[str, list[str]] = field(default_factory=lambda: {"hold": [], "posting": []})
    _asked: list[tuple[Ask, ...]] = field(default_factory=list)

    async def open(self) -> None:
        """Creates the accounts."""
        for (_, name), account in HOT.items():
            limits = teller.limits_message(account.limits)
            await self.books[0].stub.CreateAccount(account_request(name, limits=limits))

    async def run(self, calls_each: int) -> None:
        """Lets everybody make their calls. The first of them also changes accounts."""
        await asyncio.gather(
            *(
                self._act(book, Random(f"{self.seed} {number}"), number, calls_each)
                for number, book in enumerate(self.books)
            )
        )

    async def check(self) -> list[str]:
        """What is wrong with the whole history."""
        booked = await self._booked()
        expiry_ids = {made.related_id: made.transaction_id for made in booked if made.kind == "hold_expiry"}
        checker = Checker(
            accounts=HOT,
            booked=booked,
            claims=[claim for sent in self.sent.values() for claim in claims_of(sent)],
            changes=self.changes,
            readings=self.readings,
            expiry_id=lambda hold_id: expiry_ids.get(hold_id, "not expired"),
        )
        return self.faults or checker.check()

    async def _act(self, book: Book, chance: Random, number: int, calls: int) -> None:
        for call in range(calls):
            kind = chance.choices(
                ["posting", "hold", "hold_posting", "hold_void", "reversal", "transfers", "again", "read"],
                [40, 14, 8, 5, 5, 10, 10, 8],
            )[0]
            if number == 0 and call % 2:
                await self._change(book, chance)
            elif kind == "read":
                await self._read(book, chance.choice(NAMES))
            elif kind == "again" and self._asked:
                await self._ask(book, chance.choice(self._asked))
            elif kind == "transfers":
                await self._ask(book, self._transfers(chance))
            else:
                await self._ask(book, (self._single(chance, kind),))

    def _pair(self, chance: Random) -> tuple[Leg, Leg]:
        one, other = chance.sample(NAMES, 2)
        amount = chance.randint(1, 100)
        return Leg(one, "debit", amount, "GHS"), Leg(other, "credit", amount, "GHS")

    def _single(self, chance: Random, kind: str) -> Ask:
        about = self._ids["posting" if kind == "reversal" else "hold"]
        if kind in {"hold_posting", "hold_void", "reversal"} and about:
            # The newest most of all, so that several want the same one at once.
            return Ask(new_id("txn"), kind, related_id=chance.choice(about[-3:]))
        if kind == "hold":
            soon = utc_now() + timedelta(milliseconds=chance.choice([20, 60, 200, 60_000]))
            return Ask(new_id("txn"), "hold", self._pair(chance), expire_time=soon)
        return Ask(new_id("txn"), "posting", self._pair(chance))

    def _transfers(self, chance: Random) -> tuple[Ask, ...]:
        asks = [
            Ask(
                new_id("txn"),
                "posting",
                self._pair(chance),
                form="transfer",
                linked=chance.randrange(2) == 0,
                up_to_available=chance.randrange(4) == 0,
            )
            for _ in range(chance.randint(2, 5))
        ]
        asks[-1] = replace(asks[-1], linked=False)
        return tuple(asks)

    async def _ask(self, book: Book, asks: tuple[Ask, ...]) -> None:
        self._asked.append(asks)
        called = time.monotonic()
        single = asks[0].form == "transaction"
        told = await (teller.send(book, asks[0]) if single else teller.send_all(book, asks))
        returned = time.monotonic()
        before = self.sent.get(asks)
        if before is None:
            self.sent[asks] = Sent(asks, called, returned, told, utc_now())
        else:
            before.called = min(before.called, called)
            if before.told.as_bytes != told.as_bytes:
                self.faults.append(f"{asks} was told {before.told}, then {told}")
        if told.problem is None and asks[0].kind in self._ids:
            self._ids[asks[0].kind].append(asks[0].transaction_id)

    async def _change(self, book: Book, chance: Random) -> None:
        """Freezes or opens an account, or sets limits."""
        key = chance.choice(list(HOT))
        what = chance.choice(["FreezeAccount", "OpenAccount", "OpenAccount", "UpdateAccount"])
        request_type = getattr(ledger_service_pb2, f"{what}Request")
        request = request_type(request_id=new_request_id(), account_name=key[1])
        changed: dict[str, object] = {"state": {"FreezeAccount": "frozen", "OpenAccount": "opened"}.get(what)}
        if what == "UpdateAccount":
            limits = Limits(lowest=chance.choice([None, 0, -50]), highest=chance.choice([None, 300]))
            request.update_mask.paths.append("limits")
            request.limits.CopyFrom(teller.limits_message(limits))
            changed = {"limits": limits}
        called = time.monotonic()
        answer = await getattr(book.stub, what)(request)
        account = answer.account

        def apply(accounts: Accounts) -> Accounts:
            return {**accounts, key: replace(accounts[key], **changed)}  # type: ignore[arg-type]  # names of its fields

        self.changes.append(Change(called, time.monotonic(), apply, lambda oracle: is_account(oracle, key, account)))

    async def _read(self, book: Book, name: str) -> None:
        called = time.monotonic()
        answer = await book.stub.GetBalance(ledger_service_pb2.GetBalanceRequest(account_name=name))
        key = ("main", name)
        self.readings.append(
            Reading(called, time.monotonic(), lambda oracle: sums_of(oracle, key) == sums_of_message(answer))
        )

    async def _booked(self) -> list[Booked]:
        found: list[Booked] = []
        request = ledger_service_pb2.ListTransactionsRequest(page_size=200)
        while True:
            answer = await self.books[0].stub.ListTransactions(request)
            found += [booked_of(transaction) for transaction in answer.transactions]
            request.page_token = answer.next_page_token
            if not request.page_token:
                return found


def sums_of(oracle: Oracle, key: tuple[str, str]) -> tuple[int, ...]:
    """What an account shows."""
    return (
        oracle.total(key, "debit"),
        oracle.total(key, "credit"),
        oracle.held(key, "debit"),
        oracle.held(key, "credit"),
    )


def sums_of_message(message: ledger_pb2.Account | ledger_service_pb2.GetBalanceResponse) -> tuple[int, ...]:
    """The same of an answer."""
    return (
        message.debits.amount_minor,
        message.credits.amount_minor,
        message.pending_debits.amount_minor,
        message.pending_credits.amount_minor,
    )


def is_account(oracle: Oracle, key: tuple[str, str], account: ledger_pb2.Account) -> bool:
    """Whether an account that was answered is the oracle's."""
    known = oracle.accounts[key]
    state = ledger_pb2.Account.State.Value(f"STATE_{known.state.upper()}")
    return (
        sums_of(oracle, key) == sums_of_message(account)
        and account.state == state
        and account.limits == teller.limits_message(known.limits)
    )


def claims_of(sent: Sent) -> list[Claim]:
    """What callers were told about asks, a claim for each group of them."""
    if sent.asks[0].form == "transaction":
        return [_single_claim(sent)]
    assert sent.told.problem is None, sent.told.problem
    claims, results = [], list(sent.told.message.results)
    for group in groups_of(sent.asks):
        of_group, results = results[: len(group)], results[len(group) :]
        leaves = tuple(result.leaf_index if not result.reason else -1 for result in of_group)
        assert len({leaf < 0 for leaf in leaves}) == 1, f"a group was booked in part: {of_group}"
        fits = _results_fit(group, of_group)
        claims.append(Claim(tuple(group), sent.called, sent.returned, leaves, fits, sent.latest, str(of_group)))
    booked = [leaf for claim in claims for leaf in claim.leaves if leaf >= 0]
    assert booked == sorted(booked), f"booked in another order than asked for: {booked}"
    return claims


def _results_fit(
    group: Sequence[Ask], results: Sequence[ledger_pb2.TransferResult]
) -> Callable[[Oracle, Sequence[Outcome]], bool]:
    def fits(_oracle: Oracle, outcomes: Sequence[Outcome]) -> bool:
        try:
            for result, ask, outcome in zip(results, group, outcomes, strict=True):
                teller.check_result(result, ask, outcome)
        except AssertionError:
            return False
        return True

    return fits


def _single_claim(sent: Sent) -> Claim:
    message, problem = sent.told.message, sent.told.problem

    def fits(oracle: Oracle, outcomes: Sequence[Outcome]) -> bool:
        (outcome,) = outcomes
        if isinstance(outcome, Refused) or problem is not None:
            return (
                isinstance(outcome, Refused)
                and problem is not None
                and problem.reason_name == outcome.reason
                and problem.metadata == {**problem.metadata, **outcome.metadata}
            )
        return message.transaction == teller.transaction_message(outcome) and list(
            message.balances
        ) == teller.balance_messages(oracle, outcome)

    leaf = -1 if problem is not None else message.transaction.leaf_index
    return Claim(sent.asks, sent.called, sent.returned, (leaf,), fits, sent.latest, str(sent.told))


def booked_of(message: ledger_pb2.Transaction) -> Booked:
    """A transaction in the oracle's words."""
    kind = ledger_pb2.Transaction.Kind.Name(message.kind).removeprefix("KIND_").lower()
    return Booked(
        transaction_id=message.transaction_id,
        kind=kind,
        book=message.book_name,
        leaf_index=message.leaf_index,
        entries=tuple(
            OracleEntry(
                entry.sequence,
                entry.account_name,
                SIDE_NAMES[entry.side],
                entry.pending,
                entry.amount.amount_minor,
                entry.amount.currency,
                entry.balance_after.amount_minor,
            )
            for entry in message.entries
        ),
        description=message.description,
        source_id=message.source_id,
        metadata=tuple(sorted(message.metadata.items())),
        effective_time=_aware(message.effective_time),
        expire_time=_aware(message.expire_time) if message.HasField("expire_time") else None,
        related_id=message.related_transaction_id,
        create_time=_aware(message.create_time),
    )


def _aware(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=UTC)
