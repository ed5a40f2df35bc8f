"""Chooses what a random history asks for next, from what the oracle knows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random

from mesh.ids import new_id
from tests.ledger.book import TYPE_OF_FIRST_WORD
from tests.ledger.oracle import Oracle
from tests.ledger.oracle_history import INT64_MAX, OPPOSITE, Ask, Booked, Leg, Limits

TYPES = {"assets": "asset", "liabilities": "liability", "equity": "equity", "income": "income", "expenses": "expense"}
NAMES = tuple(f"{word}:{letter}" for word in TYPE_OF_FIRST_WORD for letter in "ab")
CURRENCIES = ("GHS",) * 14 + ("JPY",)
# Most of what is asked for should be possible, but not all of it.
SELDOM = 8


@dataclass
class Draws:
    """Random choices about one tenant."""

    chance: Random
    oracle: Oracle
    now: datetime

    def seldom(self) -> bool:
        """True once in a while."""
        return self.chance.randrange(SELDOM) == SELDOM - 1

    def book_name(self) -> str:
        """The main book, or seldom another."""
        return "side" if self.seldom() else "main"

    def amount(self) -> int:
        """Small enough to meet limits; seldom so large that sums overflow."""
        return INT64_MAX // 2 if self.chance.randrange(40) == 39 else self.chance.randint(1, 200)

    def limits(self) -> Limits:
        """Any limits that go together."""
        lowest = self.chance.choice([None, None, None, 0, -150, 50])
        highest = self.chance.choice([None, None, None, None, 250, 600])
        credit = self.chance.choice([None, None, None, None, 0, 150])
        return Limits(lowest, highest, credit)

    def account_name(self, book: str) -> str:
        """An account of the book, or seldom a name that may be free."""
        known = [name for found, name in self.oracle.accounts if found == book]
        if not known or self.chance.randrange(4 * SELDOM) == 0:
            return self.chance.choice(NAMES)
        return self.chance.choice(known)

    def currency_of(self, book: str, name: str) -> str:
        """The account's currency, or seldom another."""
        account = self.oracle.accounts.get((book, name))
        if account is None or self.chance.randrange(60) == 59:
            return self.chance.choice(CURRENCIES)
        return account.currency

    def pair(self, book: str) -> tuple[Leg, Leg]:
        """A debit and a credit of the same amount."""
        name = self.account_name(book)
        currency, amount = self.currency_of(book, name), self.amount()
        names = [name, self.account_name(book)]
        self.chance.shuffle(names)
        return Leg(names[0], "debit", amount, currency), Leg(names[1], "credit", amount, currency)

    def legs(self, book: str) -> tuple[Leg, ...]:
        """One to three pairs, seldom not in balance."""
        legs = [leg for _ in range(self.chance.choice([1, 1, 1, 2, 3])) for leg in self.pair(book)]
        if self.chance.randrange(20) == 19:
            legs[-1] = replace(legs[-1], amount=legs[-1].amount + 1)
        return tuple(legs)

    def effective_time(self) -> datetime | None:
        """Mostly none; else in the past, or in the near future, up to the end of what is allowed and a bit beyond."""
        seconds = self.chance.choice([None] * 6 + [-1.0, -90_000.0, -5_000_000.0, 0.0, 1.0, 299.0, 300.0, 300.000001])
        return None if seconds is None else self.now + timedelta(seconds=seconds)

    def expire_time(self) -> datetime | None:
        """Soon, later, or never; seldom now, which is too late."""
        seconds = self.chance.choice([None, None, 1, 1, 1, 30, 30, 3_000, 0])
        return None if seconds is None else self.now + timedelta(seconds=seconds)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Mostly none."""
        return (("order", str(self.chance.randrange(9))),) if self.seldom() else ()

    def hold_id(self, among: tuple[str, ...] = ()) -> str:
        """Something that is held still, if possible; seldom any transaction, or none."""
        held = [hold.transaction_id for hold in self.holds()]
        anything = [found.transaction_id for found in self.oracle.booked]
        ids = list(among) or held
        if self.seldom() or not ids:
            ids = anything
        return self.chance.choice(ids) if ids and self.chance.randrange(30) != 29 else new_id("txn")

    def holds(self) -> list[Booked]:
        """What is held still."""
        return [b for b in self.oracle.booked if b.kind == "hold" and self.oracle.hold_state(b) == "held"]

    def posting(self) -> Ask:
        """A posting."""
        book = self.book_name()
        ask = Ask(
            new_id("txn"),
            "posting",
            self.legs(book),
            book,
            description=self.chance.choice(["", "rent"]),
            source_id=self.chance.choice(["", "pay_1"]),
            metadata=self.metadata(),
            effective_time=self.effective_time(),
        )
        return replace(ask, assertions=self.assertions(ask)) if self.seldom() else ask

    def assertions(self, ask: Ask) -> tuple[tuple[str, int, str], ...]:
        """What the balance of the first account will be, or seldom not."""
        leg = ask.legs[0]
        key = (ask.book, leg.account)
        if key not in self.oracle.accounts:
            return ((leg.account, 0, leg.currency),)
        account = self.oracle.accounts[key]
        moved = sum(
            one.amount if one.side == account.normal_side else -one.amount
            for one in ask.legs
            if one.account == leg.account
        )
        asserted = self.oracle.balance(key) + moved + (1 if self.seldom() else 0)
        return ((leg.account, max(-INT64_MAX, min(INT64_MAX, asserted)), account.currency),)

    def hold(self) -> Ask:
        """A hold."""
        book = self.book_name()
        return Ask(new_id("txn"), "hold", self.legs(book), book, expire_time=self.expire_time())

    def about_a_hold(self, kind: str) -> Ask:
        """The posting or the release of a hold, or a hold, when nothing is held."""
        if not self.holds() and not self.seldom():
            return self.hold()
        return self.hold_posting() if kind == "hold_posting" else self.hold_void()

    def hold_posting(self) -> Ask:
        """The posting of a hold: of all of it, of a part, and seldom of too much."""
        ask = Ask(new_id("txn"), "hold_posting", related_id=self.hold_id(), effective_time=self.effective_time())
        hold = self.oracle.find(ask.related_id)
        if hold is None or hold.kind != "hold" or self.chance.randrange(3) == 0:
            return ask
        legs = tuple(entry.leg for entry in hold.entries)
        most = min(leg.amount for leg in legs)
        amount = self.chance.randint(1, most + (5 if self.seldom() else 0))
        pairs = [
            (one, other)
            for one in legs
            for other in legs
            if one.side == OPPOSITE[other.side] and one.currency == other.currency
        ]
        return replace(ask, legs=tuple(replace(leg, amount=amount) for leg in self.chance.choice(pairs)))

    def hold_void(self) -> Ask:
        """The release of a hold."""
        return Ask(new_id("txn"), "hold_void", related_id=self.hold_id())

    def reversal(self) -> Ask:
        """The reversal of any transaction, in full or of some entries."""
        booked = [b for b in self.oracle.booked if b.kind in {"posting", "hold_posting"} or self.seldom()]
        if not booked or self.chance.randrange(40) == 39:
            return Ask(new_id("txn"), "reversal", related_id=new_id("txn"))
        before = self.chance.choice(booked)
        indexes: tuple[int, ...] = ()
        if self.chance.randrange(2) and len(before.entries) > 2:
            start = 2 * self.chance.randrange(len(before.entries) // 2)
            indexes = (start, start + 1 + (1 if self.seldom() else 0))
        return Ask(
            new_id("txn"),
            "reversal",
            related_id=before.transaction_id,
            entry_indexes=indexes,
            effective_time=self.effective_time(),
        )

    def transfers(self, earlier: list[Ask]) -> list[Ask]:
        """Up to six transfers of one book, of which some are linked, and some were sent before."""
        book = self.book_name()
        asks: list[Ask] = []
        for _ in range(self.chance.randint(1, 6)):
            ask = self.transfer(book, asks)
            if self.seldom() and (asks or earlier):
                again = self.chance.choice(
                    asks + [e for e in earlier if e.form == "transfer" and e.book == book] or [ask]
                )
                ask = again if self.chance.randrange(2) else replace(ask, transaction_id=again.transaction_id)
            asks.append(replace(ask, linked=self.chance.randrange(3) == 0) if ask not in earlier else ask)
        if asks[-1].linked and not self.seldom():
            asks[-1] = replace(asks[-1], linked=False)
        return asks

    def transfer(self, book: str, before: list[Ask]) -> Ask:
        """One transfer, which may be about a hold of the same request."""
        kind = self.chance.choice(["posting"] * 5 + ["hold"] * 3 + ["hold_posting"] * 2 + ["hold_void"])
        ask = Ask(new_id("txn"), kind, book=book, form="transfer")
        if kind in {"posting", "hold"}:
            return replace(
                ask,
                legs=self.pair(book),
                up_to_available=self.chance.randrange(4) == 0,
                effective_time=self.effective_time() if self.seldom() else None,
                expire_time=self.expire_time() if kind == "hold" else None,
            )
        among = tuple(one.transaction_id for one in before if one.kind == "hold") if self.chance.randrange(2) else ()
        ask = replace(ask, related_id=self.hold_id(among))
        if kind == "hold_posting" and self.chance.randrange(2):
            hold = self.oracle.find(ask.related_id)
            most, currency = (hold.entries[0].amount, hold.entries[0].currency) if hold and hold.entries else (9, "GHS")
            ask = replace(ask, legs=(Leg("", "debit", self.chance.randint(1, most + 1), currency),))
        return ask
