"""The checker of concurrent histories finds what could not have happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from mesh.ids import new_id
from tests.ledger.oracle import Oracle, Outcome, Refused
from tests.ledger.oracle_history import Ask, Booked, Leg, Limits, OracleAccount
from tests.ledger.serialisability import Accounts, Change, Checker, Claim, Reading

NOW = datetime(2026, 11, 21, tzinfo=UTC)
BANK, PAYER = ("main", "assets:bank"), ("main", "liabilities:payer")
ACCOUNTS: Accounts = {
    BANK: OracleAccount("asset", "GHS"),
    PAYER: OracleAccount("liability", "GHS", limits=Limits(lowest=0)),
}


def posting(amount: int) -> Ask:
    """Into the payer's account, or out of it, when the amount is below zero."""
    sides = ("debit", "credit") if amount > 0 else ("credit", "debit")
    legs = (Leg(BANK[1], sides[0], abs(amount), "GHS"), Leg(PAYER[1], sides[1], abs(amount), "GHS"))
    return Ask(new_id("txn"), "posting", legs)


def history(*amounts: int) -> tuple[list[Claim], list[Booked]]:
    """Postings that were called and answered one after the other, each within a second."""
    oracle = Oracle(str)
    oracle.accounts = dict(ACCOUNTS)
    claims = []
    for number, amount in enumerate(amounts):
        ask = posting(amount)
        outcome = oracle.book(ask, NOW + timedelta(seconds=number))
        leaf = -1 if isinstance(outcome, Refused) else outcome.leaf_index
        claims.append(claim(ask, outcome, number, leaf))
    return claims, oracle.booked


def claim(ask: Ask, told: Outcome, called: float, leaf: int) -> Claim:
    """What a caller was told."""

    def fits(_oracle: Oracle, outcomes: Sequence[Outcome]) -> bool:
        return list(outcomes) == [told]

    return Claim((ask,), called, called + 0.9, (leaf,), fits, NOW, str(told))


def faults(
    claims: list[Claim], booked: list[Booked], changes: Sequence[Change] = (), readings: Sequence[Reading] = ()
) -> list[str]:
    """What the checker finds."""
    return Checker(ACCOUNTS, booked, claims, list(changes), list(readings), str).check()


def test_what_happened_one_after_the_other_is_serialisable() -> None:
    assert faults(*history(10, 5, -20, -15, -1)) == []


def test_calls_at_the_same_time_may_be_booked_in_any_order() -> None:
    claims, booked = history(10, 5)
    # The second called before the first had returned, and was booked after it all the same.
    claims = [replace(claims[0], called=0.5), replace(claims[1], called=0.1)]

    assert faults(claims, booked) == []


def test_what_was_called_after_another_had_returned_is_not_booked_before_it() -> None:
    claims, booked = history(10, 5)
    claims = [replace(claims[0], called=7, returned=8), claims[1]]

    assert "leaf 0 is out of its time" in "".join(faults(claims, booked))


def test_an_answer_that_fits_no_order_is_found() -> None:
    claims, booked = history(10, 5)
    wrong = replace(booked[1], entries=(booked[1].entries[0], replace(booked[1].entries[1], balance_after=16)))

    assert "no order fits" in "".join(faults(claims, [booked[0], wrong]))


def test_a_refusal_for_which_there_was_no_reason_at_any_moment_is_found() -> None:
    claims, booked = history(10, -8, 10)
    refused = posting(-9)
    told = Oracle(str)
    told.accounts = dict(ACCOUNTS)
    # As of an empty account, which it was never again since the first call had returned.
    outcome = told.evaluated(refused, NOW)

    assert faults([*claims, claim(refused, outcome, 0.5, -1)], booked) == []
    assert "at no moment" in "".join(faults([*claims, claim(refused, outcome, 1.5, -1)], booked))


def test_a_transaction_that_nobody_asked_for_and_one_that_is_missing_are_found() -> None:
    claims, booked = history(10, 5)

    assert "asked for by nobody" in "".join(faults(claims[:1], booked))
    assert "which is not its" in "".join(faults(claims, booked[:1]))


def test_a_change_has_one_place_that_fits_all_answers() -> None:
    claims, booked = history(10, 5)

    def freeze(accounts: Accounts) -> Accounts:
        return {**accounts, PAYER: replace(accounts[PAYER], state="frozen")}

    def frozen(called: float, returned: float) -> Change:
        return Change(called, returned, freeze, lambda _oracle: True)

    assert faults(claims, booked, [frozen(0.5, 3)]) == []
    assert "no order fits" in "".join(faults(claims, booked, [frozen(0.91, 0.99)]))


def test_a_reading_of_what_was_true_before_its_call_is_found() -> None:
    claims, booked = history(10, 5)
    readings = [Reading(called, called + 0.05, lambda oracle: oracle.balance(PAYER) == 10) for called in (0.92, 1.92)]

    assert faults(claims, booked, readings=readings[:1]) == []
    assert "a reading was true at no moment" in "".join(faults(claims, booked, readings=readings))
