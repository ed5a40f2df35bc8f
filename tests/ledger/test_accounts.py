"""Accounts, one at a time, through the contract."""

from __future__ import annotations

import asyncpg
import pytest
from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1.ledger_service_pb2 import GetAccountRequest

from mesh.errors import Reason
from mesh.ids import new_id
from tests.harness import TestMesh
from tests.ledger.book import BANK, FEES, PAYER, SCOPES, Book, account_request, credit, debit, refusal
from tests.ledger.chart import account_names


async def test_a_new_account_is_open_and_empty(book: Book) -> None:
    request = account_request(
        "assets:providers:mtn_momo:ghs",
        display_name="MTN wallet",
        account_number="1010.20",
        metadata={"provider": "mtn_momo", "country": "GH"},
    )

    account = (await book.stub.CreateAccount(request)).account

    assert account.state == ledger_pb2.Account.STATE_OPENED
    assert (account.type, account.normal_side) == (ledger_pb2.Account.TYPE_ASSET, ledger_pb2.SIDE_DEBIT)
    assert (account.book_name, account.account_number) == ("main", "1010.20")
    assert (account.currency, account.scale, account.display_name) == ("GHS", 2, "MTN wallet")
    assert dict(account.metadata) == {"provider": "mtn_momo", "country": "GH"}
    sums = (account.balance, account.debits, account.credits, account.pending_debits, account.pending_credits)
    assert [(amount.amount_minor, amount.currency) for amount in sums] == [(0, "GHS")] * 5
    assert not account.HasField("available")
    assert not account.HasField("limits")
    assert account.update_time == account.create_time
    assert account == await book.account("assets:providers:mtn_momo:ghs")


@pytest.mark.parametrize(
    ("type_name", "side"),
    [
        ("ASSET", ledger_pb2.SIDE_DEBIT),
        ("EXPENSE", ledger_pb2.SIDE_DEBIT),
        ("LIABILITY", ledger_pb2.SIDE_CREDIT),
        ("EQUITY", ledger_pb2.SIDE_CREDIT),
        ("INCOME", ledger_pb2.SIDE_CREDIT),
    ],
)
async def test_the_type_gives_the_side_on_which_it_grows(book: Book, type_name: str, side: int) -> None:
    type_ = ledger_pb2.Account.Type.Value(f"TYPE_{type_name}")

    account = (await book.stub.CreateAccount(account_request(BANK, type=type_))).account

    assert (account.type, account.normal_side) == (type_, side)


async def test_the_same_request_gets_the_same_account(book: Book) -> None:
    request = account_request(BANK)

    first = await book.stub.CreateAccount(request)
    second = await book.stub.CreateAccount(request)

    assert first == second


async def test_a_request_whose_answer_was_lost_in_a_crash_gets_the_account_it_made(
    book: Book, admin: asyncpg.Connection
) -> None:
    request = account_request(BANK, account_number="1", metadata={"a": "b"})
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
    assert await account_names(book) == [BANK]


async def test_a_name_is_taken_once(book: Book) -> None:
    await book.open(BANK)

    problem = await refusal(book.stub.CreateAccount(account_request(BANK, type=ledger_pb2.Account.TYPE_EQUITY)))

    assert problem.reason is Reason.RESOURCE_ALREADY_EXISTS
    assert problem.metadata == {"field": "account_name", "book_name": "main", "account_name": BANK}


async def test_a_number_is_taken_once(book: Book) -> None:
    await book.open(BANK, account_number="1010")

    problem = await refusal(book.stub.CreateAccount(account_request(PAYER, account_number="1010")))

    assert problem.reason is Reason.RESOURCE_ALREADY_EXISTS
    assert problem.metadata["field"] == "account_number"
    assert (problem.metadata["account_number"], problem.metadata["account_name"]) == ("1010", BANK)
    assert await account_names(book) == [BANK]


async def test_any_number_of_accounts_can_be_without_a_number(book: Book) -> None:
    await book.open(BANK, PAYER, FEES, account_number="")

    assert await account_names(book) == [BANK, FEES, PAYER]


async def test_each_book_has_its_own_names_and_numbers(book: Book) -> None:
    await book.open(BANK, account_number="1010")
    await book.open(BANK, account_number="1010", book_name="branch-2", display_name="the branch's")

    answer = await book.stub.GetAccount(GetAccountRequest(account_name=BANK, book_name="branch-2"))

    assert (answer.account.book_name, answer.account.display_name) == ("branch-2", "the branch's")
    assert (await book.account(BANK)).display_name == ""


async def test_two_tenants_can_use_the_same_name_and_see_only_their_own(book: Book, ledger: TestMesh) -> None:
    neighbour_id = new_id("ten")
    neighbour = Book(ledger.client("ledger", neighbour_id, SCOPES), neighbour_id)
    await book.open(BANK, account_number="1")
    await book.open(PAYER)
    await neighbour.open(BANK, account_number="1", display_name="the neighbour's")
    await book.post(debit(BANK, 70), credit(PAYER, 70))

    assert (await neighbour.account(BANK)).display_name == "the neighbour's"
    assert (await neighbour.account(BANK)).balance.amount_minor == 0
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
        ({"book_name": "Main"}, "book_name"),
        ({"book_name": "b" * 64}, "book_name"),
        ({"account_number": "-1"}, "account_number"),
        ({"account_number": "1" * 33}, "account_number"),
        ({"scale": -1}, "scale"),
        ({"scale": 19}, "scale"),
        ({"scale": 3}, "scale"),
    ],
)
async def test_a_bad_field_is_named_and_nothing_is_created(book: Book, fields: dict[str, object], field: str) -> None:
    request = account_request(BANK)
    for name, value in fields.items():
        setattr(request, name, value)

    problem = await refusal(book.stub.CreateAccount(request))

    assert problem.reason is Reason.FIELD_INVALID
    assert [violation.field for violation in problem.violations] == [field]
    assert await account_names(book) == []


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({f"name_{number}": "" for number in range(33)}, "metadata"),
        ({"Upper": ""}, "metadata[Upper]"),
        ({"": ""}, "metadata[]"),
        ({"long": "x" * 257}, "metadata[long]"),
        # Each value fits, and all together don't.
        ({f"name_{number}": "é" * 256 for number in range(16)}, "metadata"),
    ],
)
async def test_bad_metadata_is_refused_and_nothing_is_created(book: Book, metadata: dict[str, str], field: str) -> None:
    problem = await refusal(book.stub.CreateAccount(account_request(BANK, metadata=metadata)))

    assert problem.reason is Reason.FIELD_INVALID
    assert [violation.field for violation in problem.violations] == [field]
    assert await account_names(book) == []


async def test_metadata_may_be_as_large_as_said(book: Book) -> None:
    # 32 values, 8,192 bytes with their names.
    metadata = {f"{number:02}": "x" * 254 for number in range(32)}

    account = (await book.stub.CreateAccount(account_request(BANK, metadata=metadata))).account

    assert dict(account.metadata) == metadata


async def test_reading_an_account_that_does_not_exist_says_so(book: Book) -> None:
    await book.open(PAYER)

    problem = await refusal(book.account("assets:nowhere"))

    assert problem.reason is Reason.RESOURCE_NOT_FOUND
    assert problem.metadata == {"book_name": "main", "account_name": "assets:nowhere"}


async def test_an_account_is_not_found_in_another_book(book: Book) -> None:
    await book.open(BANK)

    problem = await refusal(book.stub.GetAccount(GetAccountRequest(account_name=BANK, book_name="branch-2")))

    assert problem.reason is Reason.RESOURCE_NOT_FOUND
    assert problem.metadata == {"book_name": "branch-2", "account_name": BANK}


@pytest.mark.parametrize("account_name", ["", "a\x00b", "a" * 201])
async def test_a_name_that_no_account_can_have_is_refused(book: Book, account_name: str) -> None:
    problem = await refusal(book.stub.GetAccount(GetAccountRequest(account_name=account_name)))

    assert problem.reason is Reason.FIELD_INVALID


async def test_reading_needs_the_scope_to_read_and_writing_that_to_write(ledger: TestMesh, tenant_id: str) -> None:
    reader = Book(ledger.client("ledger", tenant_id, ["ledger:read"]), tenant_id)
    writer = Book(ledger.client("ledger", tenant_id, ["ledger:write"]), tenant_id)

    await writer.open(BANK)

    assert (await reader.account(BANK)).account_name == BANK
    assert (await refusal(writer.account(BANK))).reason is Reason.SCOPE_MISSING
    assert (await refusal(reader.open(FEES))).reason is Reason.SCOPE_MISSING
