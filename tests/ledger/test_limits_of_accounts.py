"""Currencies, scales and limits that an account can have, through the contract."""

from __future__ import annotations

from typing import Any

import pytest
from kente.ledger.v1.ledger_pb2 import AccountLimits

from mesh.errors import Reason
from mesh.ids import new_id
from mesh.money import INT64_MAX
from tests.harness import TestMesh
from tests.ledger.book import BANK, FEES, PAYER, SCOPES, Book, account_request, credit, debit, refusal
from tests.ledger.chart import account_names, batch_request, draft, update_request

INT64_MIN = -INT64_MAX - 1


@pytest.mark.parametrize(("currency", "scale"), [("GHS", 2), ("JPY", 0), ("BHD", 3), ("USDC", 6)])
async def test_a_known_currency_brings_its_scale(book: Book, currency: str, scale: int) -> None:
    account = (await book.stub.CreateAccount(account_request(BANK, currency=currency))).account
    same = (await book.stub.CreateAccount(account_request(PAYER, currency=currency, scale=scale))).account
    problem = await refusal(book.stub.CreateAccount(account_request(FEES, currency=currency, scale=scale + 1)))

    assert (account.scale, same.scale) == (scale, scale)
    assert [violation.field for violation in problem.violations] == ["scale"]
    assert f"which is {scale}" in problem.violations[0].description


# Gold has a code in ISO 4217 and no minor unit.
@pytest.mark.parametrize("asset", ["GOLDGRAMS", "XAU", "SHEA1"])
async def test_an_asset_that_the_mesh_does_not_know_needs_a_scale(book: Book, asset: str) -> None:
    problem = await refusal(book.stub.CreateAccount(account_request(BANK, currency=asset)))
    account = (await book.stub.CreateAccount(account_request(BANK, currency=asset, scale=4))).account

    assert problem.reason is Reason.FIELD_INVALID
    assert [violation.field for violation in problem.violations] == ["currency"]
    assert (account.currency, account.scale, account.balance.currency) == (asset, 4, asset)


async def test_all_accounts_of_an_asset_have_one_scale_in_all_books_of_a_tenant(book: Book, ledger: TestMesh) -> None:
    await book.open(BANK, currency="GOLDGRAMS", scale=4)
    other = account_request(PAYER, currency="GOLDGRAMS", scale=3, book_name="branch")

    problem = await refusal(book.stub.CreateAccount(other))

    assert problem.reason is Reason.FIELD_INVALID
    assert [violation.field for violation in problem.violations] == ["scale"]
    assert "which is 4" in problem.violations[0].description
    # Another tenant may count it otherwise.
    neighbour_id = new_id("ten")
    neighbour = Book(ledger.client("ledger", neighbour_id, SCOPES), neighbour_id)
    await neighbour.open(BANK, currency="GOLDGRAMS", scale=3)
    assert (await neighbour.account(BANK)).scale == 3


async def test_accounts_of_one_batch_agree_on_the_scale(book: Book) -> None:
    request = batch_request(
        draft(BANK, currency="GOLDGRAMS", scale=4), draft(PAYER, currency="GOLDGRAMS", scale=5), draft(FEES)
    )

    problem = await refusal(book.stub.BatchCreateAccounts(request))

    assert [violation.field for violation in problem.violations] == ["accounts[1].scale"]
    assert "which is 4" in problem.violations[0].description
    assert await account_names(book) == []


async def test_an_asset_that_the_mesh_does_not_know_is_posted(book: Book) -> None:
    await book.open(BANK, PAYER, currency="GOLDGRAMS", scale=4)

    await book.post(debit(BANK, 12_345, "GOLDGRAMS"), credit(PAYER, 12_345, "GOLDGRAMS"))

    account = await book.account(BANK)
    assert (account.balance.amount_minor, account.balance.currency) == (12_345, "GOLDGRAMS")


@pytest.mark.parametrize(
    ("limits", "available_minor"),
    [
        (AccountLimits(min_balance_minor=0), 0),
        (AccountLimits(min_balance_minor=-50, max_balance_minor=50), 50),
        (AccountLimits(max_balance_minor=10), None),
        (AccountLimits(credit_limit_minor=30), 30),
        (AccountLimits(min_balance_minor=10, credit_limit_minor=30), 20),
        (AccountLimits(min_balance_minor=5, max_balance_minor=5), 0),
        (AccountLimits(credit_limit_minor=0), 0),
        (AccountLimits(min_balance_minor=-INT64_MAX, max_balance_minor=INT64_MAX), INT64_MAX),
        # More than an amount can say.
        (AccountLimits(min_balance_minor=INT64_MIN), INT64_MAX),
        (AccountLimits(credit_limit_minor=INT64_MAX), INT64_MAX),
    ],
)
async def test_limits_are_kept_and_say_what_can_be_taken_off(
    book: Book, limits: AccountLimits, available_minor: int | None
) -> None:
    account = (await book.stub.CreateAccount(account_request(BANK, limits=limits))).account

    assert account.limits == limits
    assert (account.available.amount_minor if account.HasField("available") else None) == available_minor
    assert await book.account(BANK) == account


async def test_limits_without_a_limit_are_none(book: Book) -> None:
    account = (await book.stub.CreateAccount(account_request(BANK, limits=AccountLimits()))).account

    assert not account.HasField("limits")
    assert not account.HasField("available")


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        (AccountLimits(min_balance_minor=1, max_balance_minor=0), "limits.max_balance_minor"),
        (AccountLimits(credit_limit_minor=-1), "limits.credit_limit_minor"),
        # Zero is the lowest balance that a credit limit counts from.
        (AccountLimits(max_balance_minor=-31, credit_limit_minor=30), "limits.max_balance_minor"),
        (AccountLimits(min_balance_minor=INT64_MIN, credit_limit_minor=1), "limits.credit_limit_minor"),
        (AccountLimits(min_balance_minor=-2, credit_limit_minor=INT64_MAX), "limits.credit_limit_minor"),
    ],
)
async def test_limits_that_no_balance_could_keep_to_are_refused(
    open_book: Book, limits: AccountLimits, field: str
) -> None:
    created = await refusal(open_book.stub.CreateAccount(account_request("assets:till", limits=limits)))
    updated = await refusal(open_book.stub.UpdateAccount(update_request(BANK, "limits", limits=limits)))

    for problem in (created, updated):
        assert problem.reason is Reason.FIELD_INVALID
        assert [violation.field for violation in problem.violations] == [field]
    assert not (await open_book.account(BANK)).HasField("limits")
    assert await account_names(open_book) == [BANK, FEES, PAYER]


async def test_a_limit_can_be_set_that_the_balance_breaks_already(open_book: Book) -> None:
    await open_book.post(debit(BANK, 100), credit(PAYER, 100))
    limits: dict[str, Any] = {"limits": AccountLimits(max_balance_minor=40)}

    account = (await open_book.stub.UpdateAccount(update_request(BANK, "limits", **limits))).account

    assert (account.balance.amount_minor, account.limits.max_balance_minor) == (100, 40)
    worse = await refusal(open_book.post(debit(BANK, 1), credit(PAYER, 1)))
    assert worse.reason is Reason.BALANCE_LIMIT_EXCEEDED
    await open_book.post(credit(BANK, 1), debit(PAYER, 1))
