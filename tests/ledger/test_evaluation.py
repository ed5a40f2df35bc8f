"""The rules of booking in memory, without a database, against the oracle."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.errors import Problem, Reason
from mesh.ids import new_id
from mesh.money import INT64_MAX
from services.ledger.model.accounts import AccountLimits, AccountState, AccountType, PostableAccount, Side
from services.ledger.model.evaluation import Booked, Evaluation
from services.ledger.model.legs import check_balanced
from services.ledger.model.postings import Assertion, Kind, Leg, Posting
from services.ledger.model.running import Movement, Running
from tests.ledger import oracle_history
from tests.ledger.history_draws import CURRENCIES, NAMES, TYPES, Draws
from tests.ledger.oracle import SKEW, Oracle, Refused
from tests.ledger.oracle_history import Ask, OracleAccount

NOW = datetime(2027, 1, 31, 23, 59, tzinfo=UTC)
POSTINGS = 40
NOTHING = (0, 0, 0, 0)


def posting_of(ask: Ask) -> Posting:
    """What the oracle is asked, in the words of the model."""
    return Posting(
        transaction_id=ask.transaction_id,
        kind=Kind(ask.kind),
        request=b"",
        legs=tuple(Leg(leg.account, Side(leg.side), leg.amount, leg.currency) for leg in ask.legs),
        book_name=ask.book,
        effective_time=ask.effective_time,
        expire_time=ask.expire_time,
        related_id=ask.related_id,
        entry_indexes=ask.entry_indexes,
        assertions=tuple(Assertion(*assertion) for assertion in ask.assertions),
        up_to_available=ask.up_to_available,
    )


def account(account_name: str, *, key: int = 1, book_name: str = "main", **fields: Any) -> PostableAccount:
    """An empty account, whose type follows from the first word of its name."""
    values: dict[str, Any] = {"currency": "GHS", "state": AccountState.OPENED, "limits": AccountLimits()} | fields
    return PostableAccount(
        account_key=key,
        book_name=book_name,
        account_name=account_name,
        type=AccountType(TYPES[account_name.partition(":")[0]]),
        debits_minor=0,
        credits_minor=0,
        pending_debits_minor=0,
        pending_credits_minor=0,
        **values,
    )


def accounts_of(oracle: Oracle) -> list[PostableAccount]:
    """The oracle's accounts as the database would give them, numbered from 0."""
    return [
        account(
            name,
            key=key,
            book_name=book,
            currency=known.currency,
            state=AccountState(known.state),
            limits=AccountLimits(known.limits.lowest, known.limits.highest, known.limits.credit),
        )
        for key, ((book, name), known) in enumerate(oracle.accounts.items())
    ]


def evaluation_of(
    accounts: Sequence[PostableAccount], closed_time: datetime | None = None, leaf_index: int = 0, sequence: int = 1
) -> Evaluation:
    """A batch on these accounts, with nothing booked before."""
    by_name: defaultdict[str, dict[str, Running]] = defaultdict(dict)
    for one in accounts:
        by_name[one.book_name][one.account_name] = Running(one)
    return Evaluation(
        accounts=by_name,
        closed_times={"main": closed_time},
        related={},
        leaf_index=leaf_index,
        sequence=sequence,
        now=NOW,
        latest_time=NOW + SKEW,
    )


def random_oracle(chance: Random) -> Oracle:
    """A tenant with some accounts of any currency, state and limits; half of the time with a closed period."""
    oracle = Oracle(lambda _: new_id("txn"))
    draws = Draws(chance, oracle, NOW)
    for name in chance.sample(NAMES, 6):
        for book in ["main", "side"] if draws.seldom() else ["main"]:
            state = chance.choice(["opened"] * 12 + ["frozen", "closed"])
            oracle.accounts[book, name] = OracleAccount(
                TYPES[name.partition(":")[0]], chance.choice(CURRENCIES), state, draws.limits()
            )
    if chance.randrange(2):
        oracle.closed_times["main"] = NOW - timedelta(days=1)
    return oracle


def random_ask(draws: Draws) -> Ask:
    """Any posting but those whose outcome depends on other requests."""
    kind = draws.chance.choice(["posting", "posting", "hold", "hold_posting", "hold_void", "reversal", "transfer"])
    made: Ask = draws.transfer("main", []) if kind == "transfer" else getattr(draws, kind)()
    return made


def check_booked(oracle: Oracle, booked: Booked, expected: oracle_history.Booked) -> None:
    """What is to be written is what the oracle has in its history now."""
    transaction = booked.transaction
    assert (transaction.leaf_index, transaction.kind, transaction.book_name, transaction.related_id) == (
        expected.leaf_index,
        expected.kind,
        expected.book,
        expected.related_id,
    )
    assert [
        (e.sequence, e.account_name, e.side, e.pending, e.amount_minor, e.currency, e.balance_after_minor)
        for e in transaction.entries
    ] == [(e.sequence, e.account, e.side, e.pending, e.amount, e.currency, e.balance_after) for e in expected.entries]
    for balance in booked.balances:
        key = (expected.book, balance.account_name)
        assert balance.balance_minor == oracle.balance(key)
        assert balance.pending_debits_minor == oracle.held(key, "debit")
        assert balance.pending_credits_minor == oracle.held(key, "credit")
        assert balance.available_minor == oracle.available(key)


def check_movements(oracle: Oracle, movements: Sequence[Movement]) -> None:
    """Each account that anything changed moves once, by the sum of all that did."""
    moved = {movement.account_key: movement.after for movement in movements}
    assert len(moved) == len(movements)
    for key, place in enumerate(oracle.accounts):
        sums = [oracle.total(place, side) for side in ("debit", "credit")]
        sums += [oracle.held(place, side) for side in ("debit", "credit")]
        assert moved.get(key, (0, 0, 0, 0)) == tuple(sums)
        assert key not in moved or any(sums)


@settings(max_examples=150, deadline=None)
@given(chance=st.randoms(use_true_random=False))
def test_every_posting_of_a_batch_ends_as_the_oracle_says(chance: Random) -> None:
    oracle = random_oracle(chance)
    evaluation = evaluation_of(accounts_of(oracle), oracle.closed_times.get("main"))
    draws = Draws(chance, oracle, NOW)
    for _ in range(POSTINGS):
        ask = random_ask(draws)
        if draws.seldom():
            # Made not to have happened, it leaves no trace in what comes after it.
            mark = evaluation.mark()
            for undone in (random_ask(draws), random_ask(draws)):
                try:
                    evaluation.post(posting_of(undone))
                except Problem:
                    continue
            evaluation.undo(mark)
        expected = oracle.answer(ask, NOW)
        if isinstance(expected, Refused):
            with pytest.raises(Problem) as refused:
                evaluation.post(posting_of(ask))
            metadata = refused.value.metadata
            assert (refused.value.reason_name, metadata) == (expected.reason, {**metadata, **expected.metadata})
        else:
            check_booked(oracle, evaluation.post(posting_of(ask)), expected)

    check_movements(oracle, evaluation.movements())
    assert [one.transaction.transaction_id for one in evaluation.booked] == [
        one.transaction_id for one in oracle.booked
    ]
    assert evaluation.next_sequence == oracle.next_sequence


@settings(max_examples=100, deadline=None)
@given(chance=st.randoms(use_true_random=False))
def test_what_is_moved_always_balances_in_every_currency(chance: Random) -> None:
    oracle = random_oracle(chance)
    evaluation = evaluation_of(accounts_of(oracle))
    draws = Draws(chance, oracle, NOW)
    for _ in range(POSTINGS):
        try:
            evaluation.post(posting_of(random_ask(draws)))
        except Problem:
            continue

    for currency in set(CURRENCIES):
        keys = {key for key, known in enumerate(oracle.accounts.values()) if known.currency == currency}
        moves = [move for move in evaluation.movements() if move.account_key in keys]
        columns = zip(NOTHING, *(move.after for move in moves), strict=True)
        debits, credits_, pending_debits, pending_credits = map(sum, columns)
        assert (debits, pending_debits) == (credits_, pending_credits)


def pair(amount_minor: int, debited: str = "assets:a", credited: str = "income:b", **fields: Any) -> Posting:
    """A posting of one amount in GHS."""
    values: dict[str, Any] = {"transaction_id": new_id("txn"), "kind": Kind.POSTING, "request": b""} | fields
    legs = (Leg(debited, Side.DEBIT, amount_minor, "GHS"), Leg(credited, Side.CREDIT, amount_minor, "GHS"))
    return Posting(legs=legs, **values)


def two_accounts(**fields: Any) -> list[PostableAccount]:
    """Two accounts; the fields are those of the first."""
    return [account("assets:a", key=1, **fields), account("income:b", key=2)]


def test_an_unbalanced_posting_is_told_by_how_much_and_in_which_currency() -> None:
    legs = [
        Leg("a", Side.DEBIT, 5, "KES"),
        Leg("b", Side.CREDIT, 5, "KES"),
        Leg("a", Side.DEBIT, 100, "GHS"),
        Leg("b", Side.CREDIT, 70, "GHS"),
    ]

    with pytest.raises(Problem) as refused:
        check_balanced(legs)

    assert refused.value.reason is Reason.TRANSACTION_UNBALANCED
    assert refused.value.metadata == {
        "currency": "GHS",
        "debits_minor": "100",
        "credits_minor": "70",
        "difference_minor": "30",
    }


def test_legs_that_balance_only_across_currencies_are_refused() -> None:
    with pytest.raises(Problem, match="TRANSACTION_UNBALANCED"):
        check_balanced([Leg("a", Side.DEBIT, 5, "KES"), Leg("b", Side.CREDIT, 5, "GHS")])


def test_sums_of_legs_may_be_larger_than_any_amount() -> None:
    legs = [Leg("a", side, INT64_MAX, "GHS") for side in (Side.DEBIT, Side.DEBIT, Side.CREDIT, Side.CREDIT)]

    check_balanced(legs)


def test_a_refused_posting_leaves_the_evaluation_as_it_was() -> None:
    evaluation = evaluation_of(two_accounts())

    with pytest.raises(Problem, match="ACCOUNT_NOT_FOUND"):
        evaluation.post(pair(5, credited="income:nowhere"))

    assert evaluation.movements() == []
    assert (evaluation.booked, evaluation.next_sequence) == ([], 1)


def test_both_sides_of_a_hot_account_become_one_movement() -> None:
    evaluation = evaluation_of(two_accounts())

    for _ in range(100):
        evaluation.post(pair(5))
        evaluation.post(pair(2, debited="income:b", credited="assets:a"))

    assert evaluation.movements() == [Movement(1, NOTHING, (500, 200, 0, 0)), Movement(2, NOTHING, (200, 500, 0, 0))]


def test_what_comes_back_to_where_it_was_is_a_movement_of_both_sides() -> None:
    evaluation = evaluation_of(two_accounts())

    evaluation.post(pair(5))
    evaluation.post(pair(5, debited="income:b", credited="assets:a"))

    assert evaluation.movements() == [Movement(1, NOTHING, (5, 5, 0, 0)), Movement(2, NOTHING, (5, 5, 0, 0))]


def test_a_hold_that_is_posted_and_one_that_is_voided_leave_nothing_pending() -> None:
    evaluation = evaluation_of(two_accounts(), leaf_index=7, sequence=100)
    posted, voided = pair(5, kind=Kind.HOLD), pair(6, kind=Kind.HOLD)

    for hold in (posted, voided):
        evaluation.post(hold)
    evaluation.post(Posting(new_id("txn"), Kind.HOLD_POSTING, b"", related_id=posted.transaction_id))
    void = evaluation.post(Posting(new_id("txn"), Kind.HOLD_VOID, b"", related_id=voided.transaction_id))

    assert evaluation.movements() == [Movement(1, NOTHING, (5, 0, 0, 0)), Movement(2, NOTHING, (0, 5, 0, 0))]
    assert [one.transaction.leaf_index for one in evaluation.booked] == [7, 8, 9, 10]
    assert [one.transaction.first_sequence for one in evaluation.booked] == [100, 102, 104, 106]
    assert (void.transaction.entries, void.balances) == ((), ())


def test_a_limit_is_checked_on_the_end_of_a_posting_and_not_between_its_legs() -> None:
    evaluation = evaluation_of(two_accounts(limits=AccountLimits(0, 10, None)))
    legs = [
        Leg("assets:a", Side.CREDIT, 5, "GHS"),
        Leg("assets:a", Side.DEBIT, 25, "GHS"),
        Leg("assets:a", Side.CREDIT, 20, "GHS"),
    ]

    booked = evaluation.post(Posting(new_id("txn"), Kind.POSTING, b"", tuple(legs)))

    assert [entry.balance_after_minor for entry in booked.transaction.entries] == [-5, 20, 0]


def test_a_balance_beyond_its_limit_may_come_back_step_by_step() -> None:
    limited = two_accounts(limits=AccountLimits(-10, None, None))
    evaluation = evaluation_of([replace(limited[0], credits_minor=50), limited[1]])

    evaluation.post(pair(20))
    with pytest.raises(Problem) as refused:
        evaluation.post(pair(1, debited="income:b", credited="assets:a"))

    assert refused.value.reason is Reason.BALANCE_LIMIT_EXCEEDED
    assert refused.value.metadata == {
        "account_name": "assets:a",
        "limit": "MIN_BALANCE",
        "limit_minor": "-10",
        "exceeded_by_minor": "21",
        "available_minor": "0",
        "currency": "GHS",
    }


@pytest.mark.parametrize(
    ("limits", "balance_minor", "booked_minor"),
    [
        (AccountLimits(), 30, 30),
        (AccountLimits(min_balance_minor=10), 30, 20),
        (AccountLimits(credit_limit_minor=15), 30, 45),
        (AccountLimits(min_balance_minor=-5, credit_limit_minor=15), 30, 50),
        (AccountLimits(min_balance_minor=-1_000), 30, 100),
    ],
)
def test_a_balancing_posting_takes_what_is_there_down_to_the_lowest_balance(
    limits: AccountLimits, balance_minor: int, booked_minor: int
) -> None:
    full, other = account("assets:a", limits=limits), account("expenses:b", key=2)
    evaluation = evaluation_of([replace(full, debits_minor=balance_minor), other])

    booked = evaluation.post(pair(100, debited="expenses:b", credited="assets:a", up_to_available=True))

    assert {entry.amount_minor for entry in booked.transaction.entries} == {booked_minor}


def test_a_balancing_posting_of_nothing_is_refused() -> None:
    evaluation = evaluation_of(two_accounts())

    with pytest.raises(Problem) as refused:
        evaluation.post(pair(100, debited="income:b", credited="assets:a", up_to_available=True))

    assert refused.value.reason is Reason.BALANCE_LIMIT_EXCEEDED
    assert refused.value.metadata["account_name"] == "income:b"


def test_what_is_held_must_fit_beside_what_is_posted() -> None:
    evaluation = evaluation_of(two_accounts())
    evaluation.post(pair(INT64_MAX, kind=Kind.HOLD))

    with pytest.raises(Problem) as refused:
        evaluation.post(pair(1))

    assert refused.value.reason is Reason.BALANCE_OVERFLOW
    assert refused.value.metadata == {"account_name": "assets:a", "side": "DEBIT"}


@pytest.mark.parametrize(
    ("effective_time", "reason"),
    [
        (NOW + SKEW, None),
        (NOW + SKEW + timedelta(microseconds=1), Reason.FIELD_INVALID),
        (NOW - timedelta(hours=1), None),
        (NOW - timedelta(hours=1, microseconds=1), Reason.PERIOD_CLOSED),
        (None, None),
    ],
)
def test_a_time_of_effect_lies_between_the_closed_period_and_the_allowed_skew(
    effective_time: datetime | None, reason: Reason | None
) -> None:
    evaluation = evaluation_of(two_accounts(), closed_time=NOW - timedelta(hours=1))
    asked = pair(1, effective_time=effective_time)

    if reason is None:
        assert evaluation.post(asked).transaction.effective_time == effective_time
        return
    with pytest.raises(Problem) as refused:
        evaluation.post(asked)
    assert refused.value.reason is reason
