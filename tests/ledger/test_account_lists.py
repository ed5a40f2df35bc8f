"""Lists of accounts, through the contract."""

from __future__ import annotations

import pytest
from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1.ledger_service_pb2 import ListAccountsRequest

from mesh.errors import Reason
from mesh.ids import new_id
from mesh.pages import encode_page_token
from tests.harness import TestMesh
from tests.ledger.book import BANK, FEES, PAYER, SCOPES, Book, refusal
from tests.ledger.chart import account_names, batch_request, draft


async def test_accounts_are_listed_by_name_in_pages(book: Book) -> None:
    await book.open(*(f"assets:till_{number}" for number in (3, 1, 2, 10)))

    pages, page_token = [], ""
    while True:
        answer = await book.stub.ListAccounts(ListAccountsRequest(page_size=3, page_token=page_token))
        pages.append([account.account_name for account in answer.accounts])
        page_token = answer.next_page_token
        if not page_token:
            break

    assert pages == [["assets:till_1", "assets:till_10", "assets:till_2"], ["assets:till_3"]]


async def test_an_account_created_between_two_pages_moves_none_of_the_others(book: Book) -> None:
    await book.open("assets:b", "assets:c", "assets:d")
    first = await book.stub.ListAccounts(ListAccountsRequest(page_size=2))

    await book.open("assets:a")

    rest = await account_names(book, page_size=2, page_token=first.next_page_token)
    assert [account.account_name for account in first.accounts] + rest == ["assets:b", "assets:c", "assets:d"]


async def test_a_prefix_limits_the_list(book: Book) -> None:
    await book.open("assets:a", "assets:a:ghs", "assets:ab", "assets:b", FEES)

    assert await account_names(book, account_name_prefix="assets:a") == ["assets:a", "assets:a:ghs", "assets:ab"]
    assert await account_names(book, account_name_prefix="assets:a:") == ["assets:a:ghs"]
    assert await account_names(book, account_name_prefix=FEES) == [FEES]
    for prefix in ("assets:%", "zzz", "é", "~", "Assets"):
        assert await account_names(book, account_name_prefix=prefix) == []


async def test_type_number_and_book_limit_the_list_alone_and_together(book: Book) -> None:
    await book.open(BANK, account_number="1")
    await book.open("assets:till", PAYER)
    await book.open(FEES, account_number="1", book_name="branch")

    assert await account_names(book, type=ledger_pb2.Account.TYPE_ASSET) == [BANK, "assets:till"]
    assert await account_names(book, account_number="1") == [BANK]
    assert await account_names(book, account_number="1", book_name="branch") == [FEES]
    assert await account_names(book, account_number="1", type=ledger_pb2.Account.TYPE_LIABILITY) == []
    assert await account_names(book, account_name_prefix="assets:t", type=ledger_pb2.Account.TYPE_ASSET) == [
        "assets:till"
    ]
    assert await account_names(book, book_name="nowhere") == []


async def test_another_tenants_accounts_are_not_in_the_list(book: Book, ledger: TestMesh) -> None:
    neighbour_id = new_id("ten")
    neighbour = Book(ledger.client("ledger", neighbour_id, SCOPES), neighbour_id)
    await book.open(BANK, account_number="1")

    assert await account_names(neighbour) == []
    assert await account_names(neighbour, account_number="1") == []


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


async def test_a_page_token_goes_with_the_filters_it_was_made_for(book: Book) -> None:
    await book.open("assets:a", "assets:b", "assets:c")
    token = (await book.stub.ListAccounts(ListAccountsRequest(page_size=1))).next_page_token

    for filters in (
        {"account_name_prefix": "assets:"},
        {"book_name": "branch"},
        {"type": ledger_pb2.Account.TYPE_ASSET},
        {"account_number": "1"},
    ):
        problem = await refusal(account_names(book, page_token=token, **filters))
        assert problem.reason is Reason.PAGE_TOKEN_INVALID
    # The book's name may be left out or given.
    assert await account_names(book, page_size=1, page_token=token, book_name="main") == ["assets:b"]


@pytest.mark.parametrize("position", [{}, {"account_name": 7}, {"account_name": "a\x00"}])
async def test_a_forged_page_token_is_refused(book: Book, position: dict[str, str | int]) -> None:
    arguments = {
        "list": "accounts",
        "tenant_id": book.tenant_id,
        "book_name": "main",
        "account_name_prefix": "",
        "type": "",
        "account_number": "",
    }
    page_token = encode_page_token(position, arguments)

    problem = await refusal(book.stub.ListAccounts(ListAccountsRequest(page_token=page_token)))

    assert problem.reason is Reason.PAGE_TOKEN_INVALID
    assert "other arguments" not in problem.detail


async def test_a_negative_page_size_is_refused_and_a_large_one_is_cut(book: Book) -> None:
    await book.stub.BatchCreateAccounts(batch_request(*(draft(f"assets:a{number}") for number in range(201))))

    assert (await refusal(book.stub.ListAccounts(ListAccountsRequest(page_size=-1)))).reason is Reason.FIELD_INVALID
    assert len(await account_names(book, page_size=10_000)) == 200
    assert len(await account_names(book)) == 50


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"account_name_prefix": "a" * 201}, "account_name_prefix"),
        ({"account_name_prefix": "a\x00"}, "account_name_prefix"),
        ({"book_name": "Main"}, "book_name"),
        ({"type": 77}, "type"),
        ({"account_number": "1" * 33}, "account_number"),
        ({"page_token": "x" * 1025}, "page_token"),
    ],
)
async def test_a_bad_filter_is_named(book: Book, fields: dict[str, object], field: str) -> None:
    problem = await refusal(account_names(book, **fields))

    assert problem.reason is Reason.FIELD_INVALID
    assert [violation.field for violation in problem.violations] == [field]
