"""Freezing, opening, closing and changing accounts, through the contract."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp
from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.clock import utc_now
from mesh.errors import Reason
from mesh.ids import new_id
from tests.harness import Infrastructure, TestMesh, eventually
from tests.ledger.book import BANK, FEES, PAYER, SCOPES, Book, credit, debit, new_request_id, refusal
from tests.ledger.chart import account_names, close, freeze, published, reopen, update_request

OPENED, FROZEN, CLOSED = (
    ledger_pb2.Account.STATE_OPENED,
    ledger_pb2.Account.STATE_FROZEN,
    ledger_pb2.Account.STATE_CLOSED,
)
Change = Callable[[Book, str], Awaitable[ledger_pb2.Account]]


async def test_an_account_is_frozen_opened_closed_and_opened_again(open_book: Book) -> None:
    created = await open_book.account(BANK)

    states = [(await change(open_book, BANK)).state for change in (freeze, reopen, close, reopen, freeze, close)]

    assert states == [FROZEN, OPENED, CLOSED, OPENED, FROZEN, CLOSED]
    account = await open_book.account(BANK)
    assert account.state == CLOSED
    assert account.update_time.ToDatetime() > created.update_time.ToDatetime()
    assert account.create_time == created.create_time


@pytest.mark.parametrize("change", [freeze, reopen, close])
async def test_doing_it_again_is_harmless_and_leaves_the_account_as_it_is(open_book: Book, change: Change) -> None:
    first = await change(open_book, BANK)

    assert await change(open_book, BANK) == first


async def test_a_closed_account_is_not_frozen(open_book: Book) -> None:
    await close(open_book, BANK)

    problem = await refusal(freeze(open_book, BANK))

    assert problem.reason is Reason.ACCOUNT_NOT_OPEN
    assert problem.metadata == {"account_name": BANK, "state": "CLOSED"}
    assert (await open_book.account(BANK)).state == CLOSED


@pytest.mark.parametrize("state", ["FROZEN", "CLOSED"])
async def test_only_an_open_account_is_posted_to(open_book: Book, state: str) -> None:
    await {"FROZEN": freeze, "CLOSED": close}[state](open_book, BANK)

    problem = await refusal(open_book.post(debit(BANK, 5), credit(PAYER, 5)))

    assert problem.reason is Reason.ACCOUNT_NOT_OPEN
    assert problem.metadata == {"account_name": BANK, "state": state}
    await reopen(open_book, BANK)
    await open_book.post(debit(BANK, 5), credit(PAYER, 5))
    assert (await open_book.account(BANK)).balance.amount_minor == 5


@pytest.mark.parametrize("sign", [1, -1])
async def test_an_account_with_a_balance_is_not_closed_until_it_is_empty(open_book: Book, sign: int) -> None:
    there, back = (debit, credit) if sign == 1 else (credit, debit)
    await open_book.post(there(BANK, 7), back(PAYER, 7))

    problem = await refusal(close(open_book, BANK))

    assert problem.reason is Reason.ACCOUNT_NOT_EMPTY
    assert problem.metadata == {
        "account_name": BANK,
        "balance_minor": str(7 * sign),
        "pending_debits_minor": "0",
        "pending_credits_minor": "0",
    }
    assert (await open_book.account(BANK)).state == OPENED
    await open_book.post(back(BANK, 7), there(PAYER, 7))
    assert (await close(open_book, BANK)).state == CLOSED


async def test_an_account_with_something_held_on_it_is_not_closed(open_book: Book) -> None:
    hold = await open_book.post(debit(BANK, 7), credit(PAYER, 7), pending=True)

    bank, payer = await refusal(close(open_book, BANK)), await refusal(close(open_book, PAYER))

    assert bank.reason is payer.reason is Reason.ACCOUNT_NOT_EMPTY
    sums = ("balance_minor", "pending_debits_minor", "pending_credits_minor")
    assert [bank.metadata[name] for name in sums] == ["0", "7", "0"]
    assert [payer.metadata[name] for name in sums] == ["0", "0", "7"]
    void = pb2.VoidHoldRequest(
        request_id=new_request_id(), transaction_id=new_id("txn"), hold_transaction_id=hold.transaction_id
    )
    await open_book.stub.VoidHold(void)
    assert (await close(open_book, BANK)).state == CLOSED


async def test_what_is_held_no_more_keeps_no_account_open_and_is_not_shown(open_book: Book) -> None:
    expire_time = Timestamp()
    expire_time.FromDatetime(utc_now() + timedelta(seconds=2))
    hold = await open_book.post(debit(BANK, 7), credit(PAYER, 7), pending=True, expire_time=expire_time)

    async def is_past() -> bool:
        return utc_now() >= expire_time.ToDatetime(utc_now().tzinfo)

    await eventually(is_past)

    assert hold.hold_state == ledger_pb2.Transaction.HOLD_STATE_HELD
    assert (await open_book.account(PAYER)).pending_credits.amount_minor == 0
    assert (await close(open_book, BANK)).state == CLOSED


async def test_a_frozen_account_can_be_emptied_only_when_it_is_open_again(open_book: Book) -> None:
    await open_book.post(debit(BANK, 7), credit(PAYER, 7))
    await freeze(open_book, BANK)

    assert (await refusal(close(open_book, BANK))).reason is Reason.ACCOUNT_NOT_EMPTY
    assert (await open_book.account(BANK)).state == FROZEN


async def test_a_change_resent_after_a_crash_does_not_undo_what_others_did_since(
    open_book: Book, admin: asyncpg.Connection
) -> None:
    request = pb2.FreezeAccountRequest(request_id=new_request_id(), account_name=BANK)
    update = update_request(BANK, "display_name", display_name="first")
    await open_book.stub.FreezeAccount(request)
    await open_book.stub.UpdateAccount(update)
    await reopen(open_book, BANK)
    await open_book.stub.UpdateAccount(update_request(BANK, "display_name", display_name="second"))
    # What the interceptor leaves when the process dies between the commit and the storing of the answer.
    ids = [request.request_id, update.request_id]
    await admin.execute("DELETE FROM idempotency WHERE request_id = ANY($1)", ids)

    assert (await open_book.stub.FreezeAccount(request)).account.state == OPENED
    assert (await open_book.stub.UpdateAccount(update)).account.display_name == "second"
    await admin.execute("DELETE FROM idempotency WHERE request_id = ANY($1)", ids)
    request.account_name = PAYER
    assert (await refusal(open_book.stub.FreezeAccount(request))).reason is Reason.REQUEST_ID_REUSED
    # Another method's ids are its own.
    other = pb2.OpenAccountRequest(request_id=request.request_id, account_name=BANK)
    assert (await open_book.stub.OpenAccount(other)).account.state == OPENED


@pytest.mark.parametrize("change", [freeze, reopen, close])
async def test_an_account_that_does_not_exist_changes_no_state(
    open_book: Book, ledger: TestMesh, change: Change
) -> None:
    neighbour_id = new_id("ten")
    neighbour = Book(ledger.client("ledger", neighbour_id, SCOPES), neighbour_id)

    # To the neighbour, this tenant's account is one that never was.
    for book, account_name in ((open_book, "assets:nowhere"), (neighbour, BANK)):
        problem = await refusal(change(book, account_name))
        assert problem.reason is Reason.RESOURCE_NOT_FOUND
        assert problem.metadata == {"book_name": "main", "account_name": account_name}
    assert (await open_book.account(BANK)).state == OPENED


async def test_an_update_changes_what_its_mask_names_and_nothing_else(open_book: Book) -> None:
    limits = ledger_pb2.AccountLimits(min_balance_minor=0)
    everything: dict[str, Any] = {
        "display_name": "Till",
        "account_number": "1010",
        "metadata": {"a": "b"},
        "limits": limits,
    }
    before = await open_book.account(BANK)

    named = (await open_book.stub.UpdateAccount(update_request(BANK, "display_name", **everything))).account
    full = (await open_book.stub.UpdateAccount(update_request(BANK, *everything, **everything))).account
    emptied = (await open_book.stub.UpdateAccount(update_request(BANK, *everything))).account

    assert (named.display_name, named.account_number, dict(named.metadata)) == ("Till", "", {})
    assert not named.HasField("limits")
    assert (full.account_number, dict(full.metadata), full.limits) == ("1010", {"a": "b"}, limits)
    assert (emptied.display_name, emptied.account_number, dict(emptied.metadata)) == ("", "", {})
    assert not emptied.HasField("limits")
    assert emptied.update_time.ToDatetime() > before.update_time.ToDatetime()
    emptied.update_time.CopyFrom(before.update_time)
    assert emptied == before


async def test_an_update_to_what_is_so_already_changes_nothing(open_book: Book) -> None:
    first = (await open_book.stub.UpdateAccount(update_request(BANK, "display_name", display_name="Till"))).account
    second = (await open_book.stub.UpdateAccount(update_request(BANK, "display_name", display_name="Till"))).account

    assert second == first


@pytest.mark.parametrize("paths", [(), ("currency",), ("display_name", "balance"), ("limits.min_balance_minor",)])
async def test_a_mask_that_names_nothing_changeable_is_refused_and_told_what_is(
    open_book: Book, paths: tuple[str, ...]
) -> None:
    before = await open_book.account(BANK)

    problem = await refusal(open_book.stub.UpdateAccount(update_request(BANK, *paths, display_name="Till")))

    assert problem.reason is Reason.FIELD_INVALID
    assert [violation.field for violation in problem.violations] == ["update_mask"]
    assert "display_name, account_number, metadata, limits" in problem.violations[0].description
    assert await open_book.account(BANK) == before


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"display_name": "x" * 121}, "display_name"),
        ({"account_number": "a b"}, "account_number"),
        ({"metadata": {"Upper": ""}}, "metadata[Upper]"),
        ({"metadata": {f"name_{number}": "é" * 256 for number in range(16)}}, "metadata"),
        (
            {"limits": ledger_pb2.AccountLimits(min_balance_minor=1, max_balance_minor=0)},
            "limits.max_balance_minor",
        ),
    ],
)
async def test_a_bad_change_is_named_and_nothing_is_changed(
    open_book: Book, fields: dict[str, Any], field: str
) -> None:
    before = await open_book.account(BANK)

    problem = await refusal(open_book.stub.UpdateAccount(update_request(BANK, *fields, **fields)))

    assert problem.reason is Reason.FIELD_INVALID
    assert [violation.field for violation in problem.violations] == [field]
    assert await open_book.account(BANK) == before


async def test_an_update_needs_a_mask(open_book: Book) -> None:
    request = update_request(BANK, "display_name", display_name="Till")
    request.ClearField("update_mask")

    problem = await refusal(open_book.stub.UpdateAccount(request))

    assert [violation.field for violation in problem.violations] == ["update_mask"]


async def test_a_number_that_is_taken_is_not_given_and_one_that_was_taken_away_is(open_book: Book) -> None:
    async def give(account_name: str, number: str) -> ledger_pb2.Account:
        request = update_request(account_name, "account_number", account_number=number)
        return (await open_book.stub.UpdateAccount(request)).account

    await give(BANK, "1")
    problem = await refusal(give(FEES, "1"))
    await give(BANK, "2")

    assert problem.reason is Reason.RESOURCE_ALREADY_EXISTS
    assert (problem.metadata["field"], problem.metadata["account_name"]) == ("account_number", BANK)
    assert (await give(FEES, "1")).account_number == "1"
    assert await account_names(open_book, account_number="1") == [FEES]


async def test_another_tenants_account_is_not_changed(open_book: Book, ledger: TestMesh) -> None:
    neighbour_id = new_id("ten")
    neighbour = Book(ledger.client("ledger", neighbour_id, SCOPES), neighbour_id)

    problem = await refusal(neighbour.stub.UpdateAccount(update_request(BANK, "display_name", display_name="x")))

    assert problem.reason is Reason.RESOURCE_NOT_FOUND
    assert (await open_book.account(BANK)).display_name == ""


async def test_each_change_is_announced_once_with_the_account_after_it(
    book: Book, infrastructure: Infrastructure
) -> None:
    await book.open(BANK)
    seen = [
        await book.account(BANK),
        (await book.stub.UpdateAccount(update_request(BANK, "display_name", display_name="Till"))).account,
        await freeze(book, BANK),
        await reopen(book, BANK),
        # Nothing changes, so nothing is said.
        await reopen(book, BANK),
        await close(book, BANK),
    ]
    await refusal(freeze(book, BANK))

    events = await published(infrastructure, book, "account", "ledger.account.closed")

    what = ["created", "updated", "frozen", "opened", "closed"]
    assert [event["type"] for event in events] == [f"ledger.account.{name}" for name in what]
    assert {event["subject"] for event in events} == {BANK}
    assert [event["data"] for event in events] == [
        MessageToDict(account) for index, account in enumerate(seen) if index != 4
    ]
