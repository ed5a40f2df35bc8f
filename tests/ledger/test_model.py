"""The rules of double entry, without a database, against a plain oracle."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.errors import Problem, Reason
from mesh.money import INT64_MAX, Money
from services.ledger.model import (
    Account,
    AccountDraft,
    AccountState,
    AccountType,
    Entry,
    Evaluation,
    Leg,
    Posting,
    Side,
    Transaction,
    check_balanced,
)
from tests.ledger.oracle import Oracle, OracleAccount, OracleLeg

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
NAMES = ["assets:bank", "assets:till", "equity:owner", "income:fees", "expenses:rent", "liabilities:payer"]

names = st.sampled_from([*NAMES, "assets:unknown"])
currencies = st.sampled_from(["GHS", "GHS", "GHS", "KES"])
amounts = st.one_of(st.integers(1, 1_000), st.integers(INT64_MAX - 2_000, INT64_MAX))


@st.composite
def leg_lists(draw: st.DrawFn) -> list[OracleLeg]:
    """Mostly balanced lists of legs: pairs of one amount, sometimes with one amount changed, in any order."""
    legs = []
    for _ in range(draw(st.integers(1, 4))):
        currency, amount = draw(currencies), draw(amounts)
        legs += [OracleLeg(draw(names), side, amount, currency) for side in ("debit", "credit")]
    if draw(st.integers(0, 5)) == 0:
        legs[0] = OracleLeg(legs[0].account, legs[0].side, draw(amounts), legs[0].currency)
    return draw(st.permutations(legs))


@st.composite
def oracles(draw: st.DrawFn) -> Oracle:
    """Books of the six accounts in any type, currency and state."""
    types = st.sampled_from([type_.value for type_ in AccountType])
    states = st.sampled_from(["opened"] * 8 + ["frozen", "closed"])
    return Oracle({name: OracleAccount(draw(types), draw(currencies), draw(states)) for name in NAMES})


def posting(legs: list[OracleLeg], **fields: object) -> Posting:
    """The posting that has these legs."""
    values = {"transaction_id": "txn_1", "description": "", "source_id": "", "effective_time": None} | fields
    model_legs = tuple(Leg(leg.account, Side(leg.side), Money(leg.amount, leg.currency)) for leg in legs)
    return Posting(legs=model_legs, **values)  # type: ignore[arg-type]  # the values are those of a posting


def account(name: str, type_: str = "asset", currency: str = "GHS", state: str = "opened", key: int = 1) -> Account:
    """An account with nothing on it."""
    return Account(key, name, AccountType(type_), currency, AccountState(state), "", 0, 0, NOW)


def accounts_of(oracle: Oracle) -> list[Account]:
    """The accounts of an oracle, as the database would give them."""
    return [
        account(name, known.type, known.currency, known.state, key)
        for key, (name, known) in enumerate(oracle.accounts.items())
    ]


@settings(max_examples=400, deadline=None)
@given(oracle=oracles(), batch=st.lists(leg_lists(), min_size=1, max_size=6))
def test_every_posting_of_a_batch_is_answered_as_the_oracle_says(oracle: Oracle, batch: list[list[OracleLeg]]) -> None:
    evaluation = Evaluation(accounts_of(oracle))
    for number, legs in enumerate(batch):
        expected = oracle.refusal(legs)
        if expected:
            with pytest.raises(Problem) as refused:
                evaluation.post(posting(legs))
            assert refused.value.reason_name == expected
        else:
            evaluated = evaluation.post(posting(legs))
            assert [leg.balance_after.amount_minor for leg in evaluated] == oracle.post(str(number), legs)

    moved = {movement.account_key: movement for movement in evaluation.movements()}
    for key, name in enumerate(oracle.accounts):
        debits, credits_ = (oracle.total(name, side, oracle.history) for side in ("debit", "credit"))
        assert (key in moved) == bool(debits or credits_)
        if key in moved:
            assert (moved[key].debits_minor, moved[key].credits_minor) == (debits, credits_)


@settings(max_examples=200, deadline=None)
@given(oracle=oracles(), batch=st.lists(leg_lists(), min_size=1, max_size=6))
def test_what_is_moved_always_balances_in_every_currency(oracle: Oracle, batch: list[list[OracleLeg]]) -> None:
    evaluation = Evaluation(accounts_of(oracle))
    for legs in batch:
        try:
            evaluation.post(posting(legs))
        except Problem:
            continue
    currency_of = {key: known.currency for key, known in enumerate(oracle.accounts.values())}
    for currency in ("GHS", "KES"):
        moves = [move for move in evaluation.movements() if currency_of[move.account_key] == currency]
        assert sum(move.debits_minor for move in moves) == sum(move.credits_minor for move in moves)


@pytest.mark.parametrize(
    ("type_", "balance_minor"), [("asset", 70), ("expense", 70), ("liability", -70), ("equity", -70), ("income", -70)]
)
def test_a_balance_is_counted_on_the_normal_side(type_: str, balance_minor: int) -> None:
    held = Account(1, "a", AccountType(type_), "GHS", AccountState.OPENED, "", 100, 30, NOW)

    assert held.balance == Money(balance_minor, "GHS")


def test_a_leg_must_be_more_than_zero_and_fit_in_64_bits() -> None:
    for amount_minor in (0, -1, INT64_MAX + 1):
        with pytest.raises(ValueError, match="not validated"):
            Leg("assets:bank", Side.DEBIT, Money(amount_minor, "GHS"))


def test_an_unbalanced_posting_is_told_by_how_much_and_in_which_currency() -> None:
    legs = [
        OracleLeg("a", "debit", 5, "KES"),
        OracleLeg("b", "credit", 5, "KES"),
        OracleLeg("a", "debit", 100, "GHS"),
        OracleLeg("b", "credit", 70, "GHS"),
    ]

    with pytest.raises(Problem) as refused:
        check_balanced(posting(legs).legs)

    assert refused.value.reason is Reason.TRANSACTION_UNBALANCED
    assert refused.value.metadata == {
        "currency": "GHS",
        "debits_minor": "100",
        "credits_minor": "70",
        "difference_minor": "30",
    }


def test_legs_that_balance_only_across_currencies_are_refused() -> None:
    legs = [OracleLeg("a", "debit", 5, "KES"), OracleLeg("b", "credit", 5, "GHS")]

    with pytest.raises(Problem, match="TRANSACTION_UNBALANCED"):
        check_balanced(posting(legs).legs)


def test_a_refused_posting_leaves_the_evaluation_as_it_was() -> None:
    evaluation = Evaluation([account("a", key=1), account("b", key=2)])

    with pytest.raises(Problem, match="ACCOUNT_NOT_FOUND"):
        evaluation.post(posting([OracleLeg("a", "debit", 5, "GHS"), OracleLeg("nowhere", "credit", 5, "GHS")]))

    assert evaluation.movements() == []


def test_both_sides_of_a_hot_account_become_one_movement() -> None:
    evaluation = Evaluation([account("a", key=1), account("b", key=2)])

    for _ in range(100):
        evaluation.post(posting([OracleLeg("a", "debit", 5, "GHS"), OracleLeg("b", "credit", 5, "GHS")]))
        evaluation.post(posting([OracleLeg("b", "debit", 2, "GHS"), OracleLeg("a", "credit", 2, "GHS")]))

    assert [(m.account_key, m.debits_minor, m.credits_minor) for m in evaluation.movements()] == [
        (1, 500, 200),
        (2, 200, 500),
    ]


@pytest.mark.parametrize(
    ("changed", "names_expected"),
    [
        ({}, []),
        ({"description": "other"}, ["description"]),
        ({"source_id": "pay_2"}, ["source_id"]),
        ({"effective_time": NOW}, ["effective_time"]),
    ],
)
def test_a_resend_is_compared_field_by_field(changed: dict[str, object], names_expected: list[str]) -> None:
    assert booked_pair().differences_from(posting(PAIR, **changed)) == names_expected


@pytest.mark.parametrize(
    ("legs_changed", "names_expected"),
    [
        ([OracleLeg("a", "debit", 6, "GHS"), OracleLeg("b", "credit", 6, "GHS")], ["legs[0].amount", "legs[1].amount"]),
        ([OracleLeg("a", "debit", 5, "GHS"), OracleLeg("c", "credit", 5, "GHS")], ["legs[1].account_name"]),
        (
            [OracleLeg("a", "credit", 5, "GHS"), OracleLeg("b", "debit", 5, "GHS")],
            ["legs[0].side", "legs[1].side"],
        ),
        ([OracleLeg("a", "debit", 5, "GHS")], ["legs"]),
    ],
)
def test_a_resend_is_compared_leg_by_leg(legs_changed: list[OracleLeg], names_expected: list[str]) -> None:
    assert booked_pair().differences_from(posting(legs_changed)) == names_expected


def test_an_account_knows_the_draft_it_was_made_from() -> None:
    draft = AccountDraft("assets:bank", AccountType.ASSET, "GHS", "")

    assert account("assets:bank").was_made_from(draft)
    assert not account("assets:bank", currency="KES").was_made_from(draft)


PAIR = [OracleLeg("a", "debit", 5, "GHS"), OracleLeg("b", "credit", 5, "GHS")]


def booked_pair() -> Transaction:
    """The transaction of a posting of PAIR."""
    entries = tuple(
        Entry(number, "txn_1", leg.account_name, leg.side, leg.amount, leg.amount, NOW)
        for number, leg in enumerate(posting(PAIR).legs, start=1)
    )
    return Transaction("txn_1", "", "", entries, None, NOW)
