"""Books and the closing of their periods, through the contract."""

from __future__ import annotations

from datetime import datetime, timedelta
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
from tests.harness import Infrastructure, TestMesh
from tests.ledger.book import BANK, PAYER, SCOPES, Book, credit, debit, new_request_id, refusal
from tests.ledger.chart import published

YESTERDAY = utc_now().replace(microsecond=250_000) - timedelta(days=1)


def timestamp(time: datetime) -> Timestamp:
    """A time as the contract has it."""
    moment = Timestamp()
    moment.FromDatetime(time)
    return moment


def closing(end: datetime, **fields: Any) -> pb2.ClosePeriodRequest:
    """A request to lock the main book."""
    values: dict[str, Any] = {"request_id": new_request_id(), "book_name": "main", "end_time": timestamp(end)}
    return pb2.ClosePeriodRequest(**(values | fields))


async def read(book: Book, book_name: str = "main") -> ledger_pb2.Book:
    """Reads a book."""
    return (await book.stub.GetBook(pb2.GetBookRequest(book_name=book_name))).book


@pytest.fixture
def neighbour(ledger: TestMesh) -> Book:
    """Another tenant."""
    neighbour_id = new_id("ten")
    return Book(ledger.client("ledger", neighbour_id, SCOPES), neighbour_id)


async def test_the_first_account_makes_the_book(book: Book) -> None:
    assert (await refusal(read(book))).reason is Reason.RESOURCE_NOT_FOUND
    await book.open(BANK)
    first = await read(book)
    await book.open(PAYER)

    assert first.book_name == "main"
    assert not first.HasField("closed_time")
    assert first.create_time == (await book.account(BANK)).create_time
    assert await read(book) == first


async def test_a_refused_account_makes_no_book(book: Book) -> None:
    await book.open(BANK, currency="GOLDGRAMS", scale=4)

    await refusal(book.open(PAYER, currency="GOLDGRAMS", scale=5, book_name="branch"))

    assert (await refusal(read(book, "branch"))).metadata == {"book_name": "branch"}


async def test_a_closed_period_takes_no_posting_and_the_time_after_it_does(open_book: Book) -> None:
    closed = (await open_book.stub.ClosePeriod(closing(YESTERDAY))).book
    moment = timedelta(microseconds=1)

    problem = await refusal(
        open_book.post(debit(BANK, 5), credit(PAYER, 5), effective_time=timestamp(YESTERDAY - moment))
    )
    await open_book.post(debit(BANK, 5), credit(PAYER, 5), effective_time=timestamp(YESTERDAY))
    await open_book.post(debit(BANK, 5), credit(PAYER, 5))

    assert closed.closed_time == timestamp(YESTERDAY)
    assert await read(open_book) == closed
    assert problem.reason is Reason.PERIOD_CLOSED
    assert problem.metadata["book_name"] == "main"
    assert datetime.fromisoformat(problem.metadata["closed_time"]) == YESTERDAY
    assert (await open_book.account(BANK)).balance.amount_minor == 10


async def test_one_book_is_locked_and_the_others_are_not(open_book: Book, neighbour: Book) -> None:
    await neighbour.open(BANK)
    await open_book.open(BANK, book_name="branch")

    await open_book.stub.ClosePeriod(closing(YESTERDAY))

    assert not (await read(open_book, "branch")).HasField("closed_time")
    assert not (await read(neighbour)).HasField("closed_time")


async def test_a_period_ends_later_than_the_last(open_book: Book) -> None:
    await open_book.stub.ClosePeriod(closing(YESTERDAY))

    for end_time in (YESTERDAY, YESTERDAY - timedelta(days=1)):
        problem = await refusal(open_book.stub.ClosePeriod(closing(end_time)))
        assert problem.reason is Reason.PERIOD_CLOSED
        assert datetime.fromisoformat(problem.metadata["closed_time"]) == YESTERDAY
    later = YESTERDAY + timedelta(hours=1)
    assert (await open_book.stub.ClosePeriod(closing(later))).book.closed_time == timestamp(later)


async def test_a_time_that_is_not_past_is_refused(open_book: Book) -> None:
    problem = await refusal(open_book.stub.ClosePeriod(closing(utc_now() + timedelta(minutes=1))))

    assert problem.reason is Reason.FIELD_INVALID
    assert [violation.field for violation in problem.violations] == ["end_time"]
    assert not (await read(open_book)).HasField("closed_time")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"request_id": "1"}, "request_id"),
        ({"book_name": ""}, "book_name"),
        ({"book_name": "Main"}, "book_name"),
        ({"end_time": None}, "end_time"),
        ({"end_time": Timestamp(seconds=300_000_000_000)}, "end_time"),
        ({"end_time": Timestamp(seconds=1, nanos=-1)}, "end_time"),
    ],
)
async def test_a_bad_field_is_named_and_nothing_is_locked(open_book: Book, fields: dict[str, Any], field: str) -> None:
    problem = await refusal(open_book.stub.ClosePeriod(closing(YESTERDAY, **fields)))

    assert problem.reason is Reason.FIELD_INVALID
    assert [violation.field for violation in problem.violations] == [field]
    assert not (await read(open_book)).HasField("closed_time")


async def test_another_tenants_book_is_not_found_and_not_locked(open_book: Book, neighbour: Book) -> None:
    for call in (read(neighbour), neighbour.stub.ClosePeriod(closing(YESTERDAY))):
        problem = await refusal(call)
        assert problem.reason is Reason.RESOURCE_NOT_FOUND
        assert problem.metadata == {"book_name": "main"}
    assert not (await read(open_book)).HasField("closed_time")


async def test_a_close_whose_answer_was_lost_in_a_crash_is_done_once(
    open_book: Book, admin: asyncpg.Connection
) -> None:
    request = closing(YESTERDAY)
    first = await open_book.stub.ClosePeriod(request)
    # What the interceptor leaves when the process dies between the commit and the storing of the answer.
    await admin.execute("DELETE FROM idempotency WHERE request_id = $1", request.request_id)

    assert await open_book.stub.ClosePeriod(request) == first


async def test_a_close_is_announced_with_the_book_after_it(open_book: Book, infrastructure: Infrastructure) -> None:
    closed = (await open_book.stub.ClosePeriod(closing(YESTERDAY))).book
    await refusal(open_book.stub.ClosePeriod(closing(YESTERDAY)))

    events = await published(infrastructure, open_book, "book", "ledger.book.period_closed")

    assert [(event["subject"], event["data"]) for event in events] == [("main", MessageToDict(closed))]
