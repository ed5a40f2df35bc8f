"""Accounts created together, through the contract."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest
from google.protobuf.json_format import MessageToDict
from kente.ledger.v1.ledger_pb2 import AccountLimits

from mesh.errors import Reason
from tests.harness import Infrastructure
from tests.ledger.book import BANK, FEES, PAYER, Book, account_request, refusal
from tests.ledger.chart import account_names, batch_request, draft, published, update_request


async def test_a_batch_gives_its_accounts_in_the_order_asked_for(book: Book) -> None:
    request = batch_request(
        draft(PAYER, account_number="2", metadata={"a": "b"}, limits=AccountLimits(min_balance_minor=0)),
        draft(BANK, account_number="1", book_name="branch"),
        draft(BANK, currency="JPY", display_name="Till"),
    )

    accounts = list((await book.stub.BatchCreateAccounts(request)).accounts)

    assert [(account.book_name, account.account_name) for account in accounts] == [
        ("main", PAYER),
        ("branch", BANK),
        ("main", BANK),
    ]
    assert [account.scale for account in accounts] == [2, 2, 0]
    assert [accounts[0], accounts[2]] == [await book.account(PAYER), await book.account(BANK)]


async def test_a_thousand_accounts_are_created_at_once_and_one_more_is_too_many(book: Book) -> None:
    drafts = [draft(f"assets:wallets:w{number}", account_number=f"1.{number}") for number in range(1001)]

    problem = await refusal(book.stub.BatchCreateAccounts(batch_request(*drafts)))
    answer = await book.stub.BatchCreateAccounts(batch_request(*drafts[:1000]))

    assert problem.reason is Reason.FIELD_INVALID
    assert [violation.field for violation in problem.violations] == ["accounts"]
    assert [account.account_name for account in answer.accounts] == [item.account_name for item in drafts[:1000]]


async def test_an_empty_batch_is_refused(book: Book) -> None:
    problem = await refusal(book.stub.BatchCreateAccounts(batch_request()))

    assert [violation.field for violation in problem.violations] == ["accounts"]


async def test_a_batch_whose_answer_would_not_fit_in_a_message_is_refused(book: Book) -> None:
    metadata = {f"{number:02}": "x" * 254 for number in range(16)}
    drafts = [draft(f"assets:w{number}", metadata=metadata) for number in range(800)]

    problem = await refusal(book.stub.BatchCreateAccounts(batch_request(*drafts)))

    assert problem.reason is Reason.FIELD_INVALID
    assert [violation.field for violation in problem.violations] == ["accounts"]
    assert await account_names(book) == []


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"account_name": "Bank"}, "account_name"),
        ({"account_name": BANK}, "account_name"),
        ({"account_number": "1"}, "account_number"),
        ({"type": 0}, "type"),
        ({"currency": "ZZZ"}, "currency"),
        ({"scale": 3}, "scale"),
        ({"display_name": "x" * 121}, "display_name"),
        ({"book_name": "Main"}, "book_name"),
        ({"metadata": {f"name_{number}": "é" * 256 for number in range(16)}}, "metadata"),
        ({"limits": AccountLimits(min_balance_minor=1, max_balance_minor=0)}, "limits.max_balance_minor"),
    ],
)
async def test_one_bad_account_is_named_with_its_place_and_none_is_created(
    book: Book, fields: dict[str, Any], field: str
) -> None:
    request = batch_request(draft(BANK, account_number="1"), draft(FEES))
    bad = draft(PAYER)
    bad.MergeFrom(type(bad)(**{name: value for name, value in fields.items() if name != "type"}))
    if "type" in fields:
        bad.type = fields["type"]
    request.accounts.append(bad)

    problem = await refusal(book.stub.BatchCreateAccounts(request))

    assert problem.reason is Reason.FIELD_INVALID
    assert [violation.field for violation in problem.violations] == [f"accounts[2].{field}"]
    assert await account_names(book) == []


@pytest.mark.parametrize(
    ("taken", "field"), [({"account_name": BANK}, "account_name"), ({"account_number": "1"}, "account_number")]
)
async def test_a_taken_name_or_number_is_told_with_its_place_and_none_is_created(
    book: Book, taken: dict[str, Any], field: str
) -> None:
    await book.open(BANK, account_number="1")
    bad = draft(PAYER)
    bad.MergeFrom(type(bad)(**taken))

    problem = await refusal(book.stub.BatchCreateAccounts(batch_request(draft(FEES), bad)))

    assert problem.reason is Reason.RESOURCE_ALREADY_EXISTS
    assert problem.metadata["field"] == f"accounts[1].{field}"
    assert problem.metadata["account_name"] == BANK
    assert await account_names(book) == [BANK]


async def test_a_batch_whose_answer_was_lost_in_a_crash_gets_the_accounts_it_made(
    book: Book, admin: asyncpg.Connection
) -> None:
    request = batch_request(draft(PAYER), draft(BANK))
    first = await book.stub.BatchCreateAccounts(request)
    # What the interceptor leaves when the process dies between the commit and the storing of the answer.
    await admin.execute("DELETE FROM idempotency WHERE request_id = $1", request.request_id)

    assert await book.stub.BatchCreateAccounts(request) == first
    request.accounts.append(draft(FEES))
    await admin.execute("DELETE FROM idempotency WHERE request_id = $1", request.request_id)
    assert (await refusal(book.stub.BatchCreateAccounts(request))).reason is Reason.REQUEST_ID_REUSED


async def test_of_many_callers_who_create_the_same_accounts_one_does(book: Book) -> None:
    requests = [batch_request(draft(BANK), draft(PAYER)) for _ in range(8)]
    singles = [account_request(PAYER) for _ in range(8)]

    outcomes = await asyncio.gather(
        *(book.stub.BatchCreateAccounts(request) for request in requests),
        *(book.stub.CreateAccount(request) for request in singles),
        return_exceptions=True,
    )

    # One batch, or one account and no batch: who came first decides.
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1
    assert PAYER in await account_names(book)


async def test_each_account_of_a_batch_is_announced(book: Book, infrastructure: Infrastructure) -> None:
    accounts = (await book.stub.BatchCreateAccounts(batch_request(draft(PAYER), draft(BANK)))).accounts
    await book.stub.UpdateAccount(update_request(BANK, "display_name", display_name="Bank"))

    events = await published(infrastructure, book, "account", "ledger.account.updated")

    created = {event["subject"]: event["data"] for event in events if event["type"] == "ledger.account.created"}
    assert created == {account.account_name: MessageToDict(account) for account in accounts}
