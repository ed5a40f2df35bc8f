"""Lists of transactions, through the contract."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.errors import Reason
from mesh.ids import new_id
from mesh.pages import encode_page_token
from services.ledger.model.reading import TransactionFilter
from services.ledger.repository import transactions as transactions_repository
from tests.harness import TestMesh
from tests.ledger.book import BANK, FEES, PAYER, SCOPES, Book, credit, debit, new_request_id, refusal
from tests.ledger.clock import SettableClock
from tests.ledger.past import MICROSECOND, START
from tests.ledger.teller import timestamp

DAY = timedelta(days=1)
KIND_HOLD = ledger_pb2.Transaction.KIND_HOLD


@pytest.fixture
def book(timed_book: Book) -> Book:
    """The book of this test's tenant; all tests of this module share one service."""
    return timed_book


@pytest.fixture
async def used_book(book: Book, clock: SettableClock) -> Book:
    """A book with three postings, a hold and its end, a day after each other, and a posting in another book."""
    clock.now = START
    await book.open(BANK, PAYER, FEES)
    await book.open(BANK, PAYER, book_name="other")
    for number in range(3):
        await book.post(
            debit(BANK, 1), credit(PAYER, 1), source_id=f"pay_{number % 2}", metadata={"order": str(number)}
        )
        clock.advance(DAY.total_seconds())
    hold = await book.post(debit(BANK, 1), credit(PAYER, 1), pending=True, source_id="pay_1")
    clock.advance(DAY.total_seconds())
    await book.stub.VoidHold(
        pb2.VoidHoldRequest(
            request_id=new_request_id(), transaction_id=new_id("txn"), hold_transaction_id=hold.transaction_id
        )
    )
    clock.advance(DAY.total_seconds())
    await book.post(debit(BANK, 1), credit(PAYER, 1), book_name="other", source_id="pay_1")
    return book


async def transactions(book: Book, **filters: Any) -> list[ledger_pb2.Transaction]:
    """All transactions that pass the filters, page by page."""
    found: list[ledger_pb2.Transaction] = []
    request = pb2.ListTransactionsRequest(**({"page_size": 2} | filters))
    while True:
        answer = await book.stub.ListTransactions(request)
        found += answer.transactions
        request.page_token = answer.next_page_token
        if not request.page_token:
            return found


@pytest.mark.parametrize("page_size", [0, 1, 4, 5, 6])
async def test_transactions_come_in_the_order_they_were_booked_as_each_is_now(used_book: Book, page_size: int) -> None:
    found = await transactions(used_book, page_size=page_size)

    assert [transaction.leaf_index for transaction in found] == [0, 1, 2, 3, 4]
    assert found == [await used_book.transaction(transaction.transaction_id) for transaction in found]
    hold, void = found[3:]
    assert hold.hold_state == ledger_pb2.Transaction.HOLD_STATE_VOIDED
    assert list(hold.later_transaction_ids) == [void.transaction_id]
    assert void.related_transaction_id == hold.transaction_id


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"source_id": "pay_1"}, [1, 3]),
        ({"source_id": "pay_1", "kind": KIND_HOLD}, [3]),
        ({"kind": KIND_HOLD}, [3]),
        ({"kind": ledger_pb2.Transaction.KIND_HOLD_VOID}, [4]),
        ({"kind": ledger_pb2.Transaction.KIND_REVERSAL}, []),
        ({"metadata": {"order": "2"}}, [2]),
        ({"metadata": {"order": "2"}, "source_id": "pay_1"}, []),
        ({"start_time": timestamp(START + DAY)}, [1, 2, 3, 4]),
        ({"start_time": timestamp(START + DAY + MICROSECOND)}, [2, 3, 4]),
        ({"end_time": timestamp(START + DAY)}, [0]),
        ({"end_time": timestamp(START + DAY + MICROSECOND)}, [0, 1]),
        ({"start_time": timestamp(START + DAY), "end_time": timestamp(START + 3 * DAY), "source_id": "pay_1"}, [1]),
        ({"end_time": timestamp(START)}, []),
        ({"book_name": "other"}, [5]),
        ({"book_name": "other", "source_id": "pay_1"}, [5]),
        ({"book_name": "nowhere"}, []),
    ],
)
async def test_filters_let_through_what_they_say(used_book: Book, filters: dict[str, Any], expected: list[int]) -> None:
    assert [transaction.leaf_index for transaction in await transactions(used_book, **filters)] == expected


async def test_a_tenant_without_a_book_has_no_transactions(book: Book) -> None:
    assert await transactions(book) == []


async def test_a_transaction_that_does_not_exist_is_not_found(used_book: Book) -> None:
    transaction_id = new_id("txn")

    problem = await refusal(used_book.transaction(transaction_id))

    assert problem.reason is Reason.RESOURCE_NOT_FOUND
    assert problem.metadata == {"transaction_id": transaction_id}


async def test_a_page_token_is_for_the_same_filters_only(used_book: Book) -> None:
    page = await used_book.stub.ListTransactions(pb2.ListTransactionsRequest(page_size=1))

    for other in (
        pb2.ListTransactionsRequest(page_token=page.next_page_token, source_id="pay_1"),
        pb2.ListTransactionsRequest(page_token=page.next_page_token, kind=KIND_HOLD),
        pb2.ListTransactionsRequest(page_token=page.next_page_token, book_name="other"),
        pb2.ListTransactionsRequest(page_token=page.next_page_token, end_time=timestamp(START)),
    ):
        assert (await refusal(used_book.stub.ListTransactions(other))).reason is Reason.PAGE_TOKEN_INVALID


@pytest.mark.parametrize("leaf_index", [-1, "1", 2**63])
async def test_a_forged_page_token_is_refused(used_book: Book, leaf_index: int | str) -> None:
    arguments = {
        "list": "transactions",
        "tenant_id": used_book.tenant_id,
        "wanted": repr(TransactionFilter(book_name="main")),
    }
    good = pb2.ListTransactionsRequest(page_token=encode_page_token({"leaf_index": 3}, arguments))
    bad = pb2.ListTransactionsRequest(page_token=encode_page_token({"leaf_index": leaf_index}, arguments))

    assert [each.leaf_index for each in (await used_book.stub.ListTransactions(good)).transactions] == [4]
    assert (await refusal(used_book.stub.ListTransactions(bad))).reason is Reason.PAGE_TOKEN_INVALID


async def test_a_long_search_goes_on_in_the_next_page(used_book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions_repository, "MOST_LEAVES", 2)

    first = await used_book.stub.ListTransactions(pb2.ListTransactionsRequest(book_name="other"))

    assert (list(first.transactions), bool(first.next_page_token)) == ([], True)
    assert [each.leaf_index for each in await transactions(used_book, book_name="other")] == [5]
    assert [each.leaf_index for each in await transactions(used_book)] == [0, 1, 2, 3, 4]


async def test_metadata_that_are_far_are_found_by_their_index_and_only_the_tenants_own(
    used_book: Book, timed_ledger: TestMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions_repository, "_NEAR_LEAVES", 1)
    other = Book(timed_ledger.client("ledger", f"{used_book.tenant_id}x", SCOPES), f"{used_book.tenant_id}x")
    await other.open(BANK, PAYER)
    for _ in range(3):
        await other.post(debit(BANK, 1), credit(PAYER, 1), metadata={"order": "2"})

    assert [each.leaf_index for each in await transactions(used_book, metadata={"order": "2"}, page_size=1)] == [2]
    assert [entry.sequence for entry in await used_book.entries(metadata={"order": "2"}, page_size=1)] == [5, 6]
    assert [each.leaf_index for each in await transactions(other, metadata={"order": "2"}, page_size=1)] == [0, 1, 2]
