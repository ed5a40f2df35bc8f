"""Accounts, through the contract."""

from __future__ import annotations

import asyncpg
import pytest
from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1.ledger_service_pb2 import GetAccountRequest, GetBalanceRequest, ListAccountsRequest

from mesh.errors import Reason
from mesh.ids import new_id
from mesh.pages import encode_page_token
from tests.harness import TestMesh
from tests.ledger.book import BANK, FEES, PAYER, SCOPES, Book, account_request, credit, debit, refusal


async def test_a_new_account_is_open_and_empty(book: Book) -> None:
    request = account_request("assets:providers:mtn_momo:ghs", display_name="MTN wallet")

    account = (await book.stub.CreateAccount(request)).account

    assert account.state == ledger_pb2.Account.STATE_OPENED
    assert account.type == ledger_pb2.Account.TYPE_ASSET
    assert (account.currency, account.display_name) == ("GHS", "MTN wallet")
    assert (account.balance.amount_minor, account.balance.currency) == (0, "GHS")
    assert account == await book.account("assets:providers:mtn_momo:ghs")


async def test_the_same_request_gets_the_same_account(book: Book) -> None:
    request = account_request(BANK)

    first = await book.stub.CreateAccount(request)
    second = await book.stub.CreateAccount(request)

    assert first == second


async def test_a_request_whose_answer_was_lost_in_a_crash_gets_the_account_it_made(
    book: Book, admin: asyncpg.Connection
) -> None:
    request = account_request(BANK)
    first = await book.stub.CreateAccount(request)
    # What the interceptor leaves when the process dies between the commit and the storing of the answer.
    await admin.execute("DELETE FROM idempotency WHERE request_id = $1", request.request_id)

    assert await book.stub.CreateAccount(request) == first


async def test_a_request_id_made_one_account_and_makes_no_other(book: Book, admin: asyncpg.Connection) -> None:
    request = account_request(BANK)
    await book.stub.CreateAccount(request)
    other = account_request(FEES, request_id=request.request_id)

    assert (await refusal(book.stub.CreateAccount(other))).reason is Reason.REQUEST_ID_REUSED
    await admin.execute("DELETE FROM idempotency WHERE request_id = $1", request.request_id)
    assert (await refusal(book.stub.CreateAccount(other))).reason is Reason.REQUEST_ID_REUSED


async def test_a_name_is_taken_once(book: Book) -> None:
    await book.open(BANK)

    problem = await refusal(book.stub.CreateAccount(account_request(BANK)))

    assert problem.reason is Reason.RESOURCE_ALREADY_EXISTS
    assert problem.metadata == {"account_name": BANK}


async def test_two_tenants_can_use_the_same_name_and_see_only_their_own(book: Book, ledger: TestMesh) -> None:
    neighbour_id = new_id("ten")
    neighbour = Book(ledger.client("ledger", neighbour_id, SCOPES), neighbour_id)
    await book.open(BANK, PAYER)
    await neighbour.open(BANK, display_name="the neighbour's")
    await book.post(debit(BANK, 70), credit(PAYER, 70))

    assert (await neighbour.account(BANK)).display_name == "the neighbour's"
    assert await neighbour.balance(BANK) == (0, 0, 0)
    missing = await refusal(neighbour.account(PAYER))
    assert missing.reason is Reason.RESOURCE_NOT_FOUND
    # Another tenant's account and one that never was can't be told apart.
    never = await refusal(neighbour.account("liabilities:never"))
    assert missing.detail.replace(PAYER, "") == never.detail.replace("liabilities:never", "")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"request_id": "1"}, "request_id"),
        ({"account_name": ""}, "account_name"),
        ({"account_name": "Assets:Bank"}, "account_name"),
        ({"account_name": "assets::bank"}, "account_name"),
        ({"account_name": "assets:bank\n"}, "account_name"),
        ({"account_name": "a" * 201}, "account_name"),
        ({"type": 0}, "type"),
        ({"type": 77}, "type"),
        ({"currency": "ghs"}, "currency"),
        ({"currency": "ZZZ"}, "currency"),
        ({"display_name": "x" * 121}, "display_name"),
        ({"display_name": "a\x00b"}, "display_name"),
    ],
)
async def test_a_bad_field_is_named_and_nothing_is_created(book: Book, fields: dict[str, object], field: str) -> None:
    request = account_request(BANK)
    for name, value in fields.items():
        setattr(request, name, value)

    problem = await refusal(book.stub.CreateAccount(request))

    assert problem.reason is Reason.FIELD_INVALID
    assert [violation.field for violation in problem.violations] == [field]
    assert (await book.stub.ListAccounts(ListAccountsRequest())).accounts == []


async def test_reading_an_account_that_does_not_exist_says_so(book: Book) -> None:
    for call in (
        book.stub.GetAccount(GetAccountRequest(account_name="assets:nowhere")),
        book.stub.GetBalance(GetBalanceRequest(account_name="assets:nowhere")),
    ):
        problem = await refusal(call)
        assert problem.reason is Reason.RESOURCE_NOT_FOUND
        assert problem.metadata == {"account_name": "assets:nowhere"}


@pytest.mark.parametrize("account_name", ["", "a\x00b", "a" * 201])
async def test_a_name_that_no_account_can_have_is_refused(book: Book, account_name: str) -> None:
    problem = await refusal(book.stub.GetAccount(GetAccountRequest(account_name=account_name)))

    assert problem.reason is Reason.FIELD_INVALID


async def test_accounts_are_listed_by_name_in_pages(book: Book) -> None:
    names = [f"assets:till_{number}" for number in (3, 1, 2, 10)]
    await book.open(*names)

    pages, page_token = [], ""
    while True:
        answer = await book.stub.ListAccounts(ListAccountsRequest(page_size=3, page_token=page_token))
        pages.append([account.account_name for account in answer.accounts])
        page_token = answer.next_page_token
        if not page_token:
            break

    assert pages == [["assets:till_1", "assets:till_10", "assets:till_2"], ["assets:till_3"]]


async def test_a_prefix_limits_the_list(book: Book) -> None:
    await book.open("assets:a", "assets:a:ghs", "assets:ab", "assets:b", FEES)

    async def names(prefix: str) -> list[str]:
        answer = await book.stub.ListAccounts(ListAccountsRequest(account_name_prefix=prefix))
        return [account.account_name for account in answer.accounts]

    assert await names("assets:a") == ["assets:a", "assets:a:ghs", "assets:ab"]
    assert await names("assets:a:") == ["assets:a:ghs"]
    assert await names("assets:%") == []
    assert await names("zzz") == []


@pytest.mark.parametrize(
    "page_token",
    [
        "nonsense",
        "é",
        encode_page_token({"account_name": "assets:a"}, {"list": "entries"}),
    ],
)
async def test_a_page_token_of_another_list_is_refused(book: Book, page_token: str) -> None:
    problem = await refusal(book.stub.ListAccounts(ListAccountsRequest(page_token=page_token)))

    assert problem.reason is Reason.PAGE_TOKEN_INVALID


@pytest.mark.parametrize("position", [{}, {"account_name": 7}, {"account_name": "a\x00"}])
async def test_a_forged_page_token_is_refused(book: Book, position: dict[str, str | int]) -> None:
    arguments = {"list": "accounts", "tenant_id": book.tenant_id, "account_name_prefix": ""}
    page_token = encode_page_token(position, arguments)

    problem = await refusal(book.stub.ListAccounts(ListAccountsRequest(page_token=page_token)))

    assert problem.reason is Reason.PAGE_TOKEN_INVALID


async def test_a_negative_page_size_is_refused_and_a_large_one_is_cut(book: Book) -> None:
    await book.open(*(f"assets:a{number}" for number in range(201)))

    assert (await refusal(book.stub.ListAccounts(ListAccountsRequest(page_size=-1)))).reason is Reason.FIELD_INVALID
    assert len((await book.stub.ListAccounts(ListAccountsRequest(page_size=10_000))).accounts) == 200
    assert len((await book.stub.ListAccounts(ListAccountsRequest())).accounts) == 50


async def test_reading_needs_the_scope_to_read_and_writing_that_to_write(ledger: TestMesh, tenant_id: str) -> None:
    reader = Book(ledger.client("ledger", tenant_id, ["ledger:read"]), tenant_id)
    writer = Book(ledger.client("ledger", tenant_id, ["ledger:write"]), tenant_id)

    await writer.open(BANK)

    assert (await reader.account(BANK)).account_name == BANK
    assert (await refusal(writer.account(BANK))).reason is Reason.SCOPE_MISSING
    assert (await refusal(reader.open(FEES))).reason is Reason.SCOPE_MISSING
