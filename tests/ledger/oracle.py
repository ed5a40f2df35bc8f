"""What the ledger should answer, said as plainly as possible.

Shares no code with the service: a second reading of the same contract. It keeps all history and makes every sum anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from tests.ledger.oracle_history import INT64_MAX, Ask, Booked, History, Leg, OracleEntry

SKEW = timedelta(seconds=300)


@dataclass(frozen=True)
class Refused:
    """Why nothing was booked, with what machines are told about it."""

    reason: str
    metadata: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):  # noqa: N818 - an answer rather than a fault
    """Ends the evaluation of an ask."""

    def __init__(self, reason: str, **metadata: object) -> None:
        self.refused = Refused(reason, {name: str(value) for name, value in metadata.items()})
        super().__init__(str(self.refused))


Outcome = Booked | Refused


class Oracle(History):
    """One tenant's books, and the answers that were given about them."""

    def __init__(self, expiry_id: Callable[[str], str]) -> None:
        """A tenant without anything.

        Args:
            expiry_id: gives the id of the transaction that says that a hold expired, from the id of the hold.
        """
        super().__init__()
        self._expiry_id = expiry_id
        self.closed_times: dict[str, datetime] = {}
        # The first answer to each id is its answer for ever.
        self.answers: dict[str, tuple[Ask, Outcome]] = {}

    def booking_time(self, now: datetime) -> datetime:
        """What is booked now is booked at this time: a clock set back reorders nothing."""
        return max(now, self.booked[-1].create_time) if self.booked else now

    # Booking

    def book(self, ask: Ask, now: datetime) -> Outcome:
        """The answer to a request for one transaction."""
        self.expire_due(now)
        return self.answer(ask, now)

    def book_all(self, asks: Sequence[Ask], now: datetime) -> list[Outcome]:
        """The answers to a request for several: what is linked is booked together."""
        self.expire_due(now)
        outcomes: list[Outcome] = []
        for group in groups_of(asks):
            outcomes += self.answer_group(group, now)
        return outcomes

    def expire_due(self, now: datetime) -> list[Booked]:
        """Ends all holds whose time is over, in the order of their times."""
        now = self.booking_time(now)
        due = [
            hold
            for hold in self.booked
            if hold.kind == "hold"
            and hold.expire_time is not None
            and hold.expire_time <= now
            and self.hold_state(hold) == "held"
        ]
        ended = []
        for hold in sorted(due, key=lambda hold: (hold.expire_time, hold.leaf_index)):
            ask = Ask(
                self._expiry_id(hold.transaction_id),
                "hold_expiry",
                book=hold.book,
                effective_time=hold.expire_time,
                related_id=hold.transaction_id,
            )
            ended.append(self._made(ask, (), now))
            self.booked.append(ended[-1])
        return ended

    def answer(self, ask: Ask, now: datetime) -> Outcome:
        """The answer to one ask, which is remembered."""
        known = self.known_answer(ask)
        if known is not None:
            return known
        outcome = self.evaluated(ask, now)
        if isinstance(outcome, Booked):
            self.booked.append(outcome)
        self.answers[ask.transaction_id] = (ask, outcome)
        return outcome

    def known_answer(self, ask: Ask) -> Outcome | None:
        """The answer that was given to this id before; a refusal, if it was given to another ask."""
        taken = Refused("RESOURCE_ALREADY_EXISTS", {"transaction_id": ask.transaction_id})
        if ask.transaction_id not in self.answers:
            # Nobody asked for an expiry, but its id is taken.
            return taken if self.find(ask.transaction_id) else None
        first, outcome = self.answers[ask.transaction_id]
        return outcome if first == ask else taken

    def answer_group(self, group: Sequence[Ask], now: datetime) -> list[Outcome]:
        """The answers to what is linked: all booked, or one refused for its own reason and the others for that."""
        if len(group) == 1:
            return [self.answer(group[0], now)]
        known = [self.known_answer(ask) for ask in group]
        if all(known):
            return [answer for answer in known if answer is not None]
        booked, answers = list(self.booked), dict(self.answers)
        outcomes = [self.answer(ask, now) for ask in group]
        # What was answered before, even when it was booked, can't be booked together with what is new.
        faults = [number for number, answer in enumerate(known) if answer is not None]
        faults += [number for number, outcome in enumerate(outcomes) if isinstance(outcome, Refused)]
        if not faults:
            return outcomes
        culprit, reason = group[faults[0]], outcomes[faults[0]]
        self.booked, self.answers = booked, answers
        outcomes = []
        for ask in group:
            of_others = Refused("LINKED_TRANSFER_FAILED", {"transaction_id": culprit.transaction_id})
            outcome = self.known_answer(ask)
            if outcome is None:
                outcome = reason if ask is culprit else of_others
                self.answers[ask.transaction_id] = (ask, outcome)
            outcomes.append(outcome)
        return outcomes

    def evaluated(self, ask: Ask, now: datetime) -> Outcome:
        """What would be answered to a new ask; nothing is changed."""
        try:
            return self._evaluated(ask, self.booking_time(now))
        except Refusal as refusal:
            return refusal.refused

    def _evaluated(self, ask: Ask, now: datetime) -> Booked:
        if ask.kind == "hold_void":
            hold = self._held_hold(ask)
            return self._made(replace(ask, book=hold.book), (), now)
        if ask.kind == "hold_posting":
            hold = self._held_hold(ask)
            ask, legs = replace(ask, book=hold.book), self._legs_of_hold(ask, hold)
            check_balanced(legs)
            check_within_hold(hold, legs)
        elif ask.kind == "reversal":
            before = self._related(ask)
            ask, legs = replace(ask, book=before.book), self._legs_of_reversal(ask, before)
            check_balanced(legs)
        else:
            legs = ask.legs
            check_balanced(legs)
        self._check_time(ask, now)
        if ask.up_to_available:
            legs = self._up_to_available(ask, legs)
        self._check_legs(ask, legs)
        made = self._made(ask, legs, now)
        self._check_end_state(ask, made)
        return made

    # What an ask is about

    def _related(self, ask: Ask) -> Booked:
        found = self.find(ask.related_id)
        if found is None:
            raise Refusal("RESOURCE_NOT_FOUND", transaction_id=ask.related_id)
        return found

    def _held_hold(self, ask: Ask) -> Booked:
        hold = self._related(ask)
        if hold.kind != "hold":
            raise Refusal("HOLD_NOT_PENDING", transaction_id=ask.related_id, state="NONE")
        if self.hold_state(hold) != "held":
            state, ended_by = self.hold_state(hold).upper(), self.later(hold.transaction_id)[0].transaction_id
            raise Refusal(
                "HOLD_NOT_PENDING", transaction_id=ask.related_id, state=state, ended_by_transaction_id=ended_by
            )
        return hold

    @staticmethod
    def _legs_of_hold(ask: Ask, hold: Booked) -> tuple[Leg, ...]:
        legs = tuple(entry.leg for entry in hold.entries)
        if not ask.legs:
            return legs
        if ask.form == "transfer":
            # A transfer tells an amount only, which is meant for each side.
            return tuple(replace(leg, amount=ask.legs[0].amount, currency=ask.legs[0].currency) for leg in legs)
        return ask.legs

    def _legs_of_reversal(self, ask: Ask, before: Booked) -> tuple[Leg, ...]:
        if before.kind not in {"posting", "hold_posting"}:
            kind = before.kind.upper()
            raise Refusal("TRANSACTION_NOT_REVERSIBLE", transaction_id=before.transaction_id, kind=kind)
        indexes = ask.entry_indexes or tuple(range(len(before.entries)))
        if max(indexes) >= len(before.entries):
            raise Refusal("RESOURCE_NOT_FOUND", transaction_id=before.transaction_id)
        for index in indexes:
            for reversal in self.later(before.transaction_id):
                if index in self.reversed_indexes(reversal, before):
                    raise Refusal(
                        "TRANSACTION_ALREADY_REVERSED",
                        transaction_id=before.transaction_id,
                        reversal_transaction_id=reversal.transaction_id,
                    )
        return tuple(before.entries[index].leg.opposite for index in indexes)

    def reversed_indexes(self, reversal: Booked, before: Booked) -> tuple[int, ...]:
        """Positions of the entries that a reversal reversed."""
        ask, _ = self.answers[reversal.transaction_id]
        return ask.entry_indexes or tuple(range(len(before.entries)))

    # Whether it can be booked

    def _check_time(self, ask: Ask, now: datetime) -> None:
        if ask.effective_time is not None and ask.effective_time > now + SKEW:
            raise Refusal("FIELD_INVALID")
        if ask.expire_time is not None and ask.expire_time <= now:
            # It would never be held.
            raise Refusal("FIELD_INVALID")
        closed = self.closed_times.get(ask.book)
        if closed is not None and (ask.effective_time or now) < closed:
            raise Refusal("PERIOD_CLOSED", book_name=ask.book, closed_time=closed.isoformat())

    def _check_legs(self, ask: Ask, legs: Sequence[Leg]) -> None:
        for number, leg in enumerate(legs, start=1):
            self._check_leg(ask.book, leg)
            self._check_overflow(ask, leg, legs[:number])

    def _check_leg(self, book: str, leg: Leg) -> None:
        account = self.accounts.get((book, leg.account))
        if account is None:
            raise Refusal("ACCOUNT_NOT_FOUND", account_name=leg.account)
        if account.state != "opened":
            raise Refusal("ACCOUNT_NOT_OPEN", account_name=leg.account, state=account.state.upper())
        if account.currency != leg.currency:
            raise Refusal(
                "ACCOUNT_CURRENCY_MISMATCH",
                account_name=leg.account,
                account_currency=account.currency,
                leg_currency=leg.currency,
            )

    def _check_overflow(self, ask: Ask, leg: Leg, legs: Sequence[Leg]) -> None:
        """Also once all that is held is posted, each sum fits; so a hold can always be posted."""
        key = (ask.book, leg.account)
        total = self.total(key, leg.side) + self.held(key, leg.side)
        if ask.kind == "hold_posting":
            hold = self._related(ask)
            total -= sum(e.amount for e in hold.entries if (e.account, e.side) == (leg.account, leg.side))
        total += sum(one.amount for one in legs if (one.account, one.side) == (leg.account, leg.side))
        if total > INT64_MAX:
            raise Refusal("BALANCE_OVERFLOW", account_name=leg.account, side=leg.side.upper())

    def _up_to_available(self, ask: Ask, legs: Sequence[Leg]) -> tuple[Leg, ...]:
        for leg in legs:
            self._check_leg(ask.book, leg)
        amount = legs[0].amount
        for leg in legs:
            key = (ask.book, leg.account)
            account = self.accounts[key]
            if leg.side != account.normal_side:
                room = self.low(key) - (account.limits.floor or 0)
            elif account.limits.highest is not None:
                room = account.limits.highest - self.high(key)
            else:
                continue
            if room <= 0:
                raise Refusal("BALANCE_LIMIT_EXCEEDED", account_name=leg.account, available_minor=0)
            amount = min(amount, room)
        return tuple(replace(leg, amount=amount) for leg in legs)

    def _check_end_state(self, ask: Ask, made: Booked) -> None:
        keys = list(dict.fromkeys((made.book, entry.account) for entry in made.entries))
        before = {key: (self.low(key), self.high(key)) for key in keys}
        with self._supposing(made):
            for key in keys:
                self._check_limits(key, *before[key])
            for account, balance, currency in ask.assertions:
                self._check_assertion((made.book, account), balance, currency)

    def _check_limits(self, key: tuple[str, str], low_before: int, high_before: int) -> None:
        limits, low, high = self.accounts[key].limits, self.low(key), self.high(key)
        passed: tuple[str, int, int, int] | None = None
        if limits.floor is not None and low < low_before and low < limits.floor:
            name = "MIN_BALANCE" if limits.credit is None else "CREDIT_LIMIT"
            passed = (name, limits.floor, limits.floor - low, max(0, low_before - limits.floor))
        elif limits.highest is not None and high > high_before and high > limits.highest:
            passed = ("MAX_BALANCE", limits.highest, high - limits.highest, max(0, limits.highest - high_before))
        if passed is not None:
            name, bound, exceeded_by, available = passed
            raise Refusal(
                "BALANCE_LIMIT_EXCEEDED",
                account_name=key[1],
                limit=name,
                limit_minor=bound,
                exceeded_by_minor=exceeded_by,
                available_minor=available,
            )

    def _check_assertion(self, key: tuple[str, str], balance: int, currency: str) -> None:
        if key not in self.accounts:
            raise Refusal("ACCOUNT_NOT_FOUND", account_name=key[1])
        if self.balance(key) != balance or self.accounts[key].currency != currency:
            raise Refusal(
                "BALANCE_ASSERTION_FAILED",
                account_name=key[1],
                balance_minor=self.balance(key),
                asserted_minor=balance,
            )

    # What is booked

    @contextmanager
    def _supposing(self, made: Booked) -> Iterator[None]:
        self.booked.append(made)
        try:
            yield
        finally:
            self.booked.pop()

    def _made(self, ask: Ask, legs: Sequence[Leg], now: datetime) -> Booked:
        pending = ask.kind == "hold"
        entries: list[OracleEntry] = []
        for leg in legs:
            key = (ask.book, leg.account)
            balance, normal_side = self.balance(key), self.accounts[key].normal_side
            for entry in entries:
                if entry.account == leg.account and not pending:
                    balance += entry.amount if entry.side == normal_side else -entry.amount
            if not pending:
                balance += leg.amount if leg.side == normal_side else -leg.amount
            sequence = self.next_sequence + len(entries)
            entries.append(OracleEntry(sequence, leg.account, leg.side, pending, leg.amount, leg.currency, balance))
        return Booked(
            transaction_id=ask.transaction_id,
            kind=ask.kind,
            book=ask.book,
            leaf_index=len(self.booked),
            entries=tuple(entries),
            description=ask.description,
            source_id=ask.source_id,
            metadata=ask.metadata,
            effective_time=ask.effective_time or now,
            expire_time=ask.expire_time,
            related_id=ask.related_id,
            create_time=now,
        )


def groups_of(asks: Sequence[Ask]) -> list[list[Ask]]:
    """The asks that are booked together: a run of linked ones and the one after them."""
    groups: list[list[Ask]] = [[]]
    for ask in asks:
        groups[-1].append(ask)
        if not ask.linked:
            groups.append([])
    return groups[:-1]


def check_balanced(legs: Sequence[Leg]) -> None:
    """Refuses legs whose debits and credits of a currency differ."""
    for currency in dict.fromkeys(leg.currency for leg in legs):
        debited, credited = (
            sum(leg.amount for leg in legs if (leg.currency, leg.side) == (currency, side))
            for side in ("debit", "credit")
        )
        if debited != credited:
            raise Refusal(
                "TRANSACTION_UNBALANCED",
                currency=currency,
                debits_minor=debited,
                credits_minor=credited,
                difference_minor=debited - credited,
            )


def check_within_hold(hold: Booked, legs: Sequence[Leg]) -> None:
    """Refuses legs for more than is held."""
    for place in dict.fromkeys((leg.account, leg.side, leg.currency) for leg in legs):
        held, asked = (
            sum(one.amount for one in of if (one.account, one.side, one.currency) == place)
            for of in (hold.entries, legs)
        )
        if asked > held:
            account, side, _ = place
            raise Refusal("HOLD_EXCEEDED", account_name=account, side=side.upper(), held_minor=held, amount_minor=asked)
