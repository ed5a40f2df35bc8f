"""What somebody changes in the tables by SQL is found by checking the books, whatever it is."""

# ruff: noqa: S608 - statements of these tests, made of nothing but their own constants

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import asyncpg
import pytest
import structlog.testing
from kente.ledger.v1 import ledger_pb2

from mesh.database import Database
from mesh.errors import Problem, Reason
from services.ledger.model.merkle import Tree
from services.ledger.use_cases.verify_books import BookVerifier
from tests.harness import Infrastructure, TestMesh
from tests.ledger.auditor import Auditor, checks_of, fill, fill_many
from tests.ledger.book import BANK, FEES, PAYER, Book, credit, debit, refusal
from tests.ledger.forger import (
    CASH,
    EDITED_ACCOUNTS,
    EDITED_ENTRIES,
    EDITED_OTHERS,
    EDITED_TRANSACTIONS,
    ENDLESS,
    REVERSAL,
    change,
    cut_off_last,
    set_head_back,
)


@pytest.fixture
async def auditor(ledger: TestMesh, book: Book) -> Auditor:
    """Whoever checks the book of this test."""
    return Auditor.of(ledger, book)


@pytest.fixture
async def filled(book: Book) -> list[ledger_pb2.Transaction]:
    """The transactions of a book with something of every kind."""
    return await fill(book)


async def test_untouched_books_have_no_faults(auditor: Auditor, filled: list[ledger_pb2.Transaction]) -> None:
    answers = await auditor.verify()
    last = answers[-1]

    assert [fault for answer in answers for fault in answer.faults] == []
    assert last.done
    assert not any(answer.done for answer in answers[:-1])
    assert (last.checked_transactions, last.checkpoint) == (len(filled), await auditor.checkpoint())
    assert last.checked_entries == last.total_entries == sum(len(transaction.entries) for transaction in filled)


async def test_books_without_transactions_have_no_faults(auditor: Auditor, book: Book) -> None:
    assert [(answer.done, len(answer.faults)) for answer in await auditor.verify()] == [(True, 0)]

    await book.open(BANK)

    assert await auditor.faults() == []


@pytest.mark.parametrize(("leaf_index", "assignment", "check"), EDITED_TRANSACTIONS)
async def test_an_edited_transaction_is_found(  # noqa: PLR0917 - fixtures
    auditor: Auditor,
    filled: list[ledger_pb2.Transaction],
    admin: asyncpg.Connection,
    book: Book,
    leaf_index: int,
    assignment: str,
    check: str,
) -> None:
    assert len(filled) > leaf_index
    await change(admin, f"UPDATE transactions SET {assignment} WHERE leaf_index = {leaf_index}", book.tenant_id)

    assert check in checks_of(await auditor.faults())


# Of an entry of a posting, and one of a hold.
@pytest.mark.parametrize("sequence", [1, 10])
@pytest.mark.parametrize(("assignment", "check"), EDITED_ENTRIES)
@pytest.mark.usefixtures("filled")
async def test_an_edited_entry_is_found(  # noqa: PLR0917 - fixtures
    auditor: Auditor, admin: asyncpg.Connection, book: Book, sequence: int, assignment: str, check: str
) -> None:
    await change(admin, f"UPDATE entries SET {assignment} WHERE sequence = {sequence}", book.tenant_id)

    found = checks_of(await auditor.faults())

    # Only a posted amount changes a balance.
    assert (check if check != "balance" else "record") in found
    assert "record" in found or check == "entry"


@pytest.mark.parametrize(("assignment", "check"), EDITED_ACCOUNTS)
@pytest.mark.usefixtures("filled")
async def test_an_edited_account_is_found(
    auditor: Auditor, admin: asyncpg.Connection, book: Book, assignment: str, check: str
) -> None:
    await change(admin, f"UPDATE accounts SET {assignment} WHERE account_name = '{PAYER}'", book.tenant_id)

    assert check in checks_of(await auditor.faults())


@pytest.mark.parametrize(("statement", "check"), EDITED_OTHERS)
@pytest.mark.usefixtures("filled")
async def test_whatever_else_is_edited_or_dropped_is_found(
    auditor: Auditor, admin: asyncpg.Connection, book: Book, statement: str, check: str
) -> None:
    await change(admin, statement, book.tenant_id)

    assert check in checks_of(await auditor.faults())


@pytest.mark.parametrize("time", ENDLESS)
async def test_what_comes_after_a_time_without_end_is_checked_too(
    auditor: Auditor, filled: list[ledger_pb2.Transaction], admin: asyncpg.Connection, book: Book, time: str
) -> None:
    for column in ("create_time", "effective_time", "expire_time"):
        await change(admin, f"UPDATE transactions SET {column} = '{time}' WHERE leaf_index = {CASH}", book.tenant_id)
    await change(admin, f"UPDATE transactions SET description = 'x' WHERE leaf_index = {REVERSAL}", book.tenant_id)

    faults = await auditor.faults()

    assert {fault.transaction_id for fault in faults if fault.check == "record"} == {
        filled[CASH].transaction_id,
        filled[REVERSAL].transaction_id,
    }


@pytest.mark.parametrize("time", ENDLESS)
async def test_an_entry_that_was_moved_to_the_end_of_time_is_found(
    auditor: Auditor, filled: list[ledger_pb2.Transaction], admin: asyncpg.Connection, book: Book, time: str
) -> None:
    # Entries lie in one table for each month.
    start, end = ("MINVALUE", "'0001-01-01'") if time.startswith("-") else ("'9999-01-01'", "MAXVALUE")
    await admin.execute(f"CREATE TABLE entries_endless PARTITION OF entries FOR VALUES FROM ({start}) TO ({end})")
    try:
        await change(admin, f"UPDATE entries SET create_time = '{time}' WHERE sequence = 1", book.tenant_id)
        faults = await auditor.faults()
    finally:
        await admin.execute("DROP TABLE entries_endless")

    assert filled[CASH].transaction_id in {fault.transaction_id for fault in faults if fault.check == "entry"}


async def test_a_fault_names_the_transaction_and_the_account(
    auditor: Auditor, filled: list[ledger_pb2.Transaction], admin: asyncpg.Connection, book: Book
) -> None:
    await change(admin, "UPDATE entries SET amount_minor = 5 WHERE sequence = 1", book.tenant_id)

    faults = await auditor.faults()

    assert filled[CASH].transaction_id in {fault.transaction_id for fault in faults if fault.check == "record"}
    assert {BANK} == {fault.account_name for fault in faults if fault.check == "account"}


@pytest.mark.usefixtures("filled")
async def test_two_transactions_that_changed_places_are_found(
    auditor: Auditor, admin: asyncpg.Connection, book: Book
) -> None:
    for old, new in ((0, 1000), (1, 0), (1000, 1)):
        await change(admin, f"UPDATE transactions SET leaf_index = {new} WHERE leaf_index = {old}", book.tenant_id)
        await change(admin, f"UPDATE entries SET leaf_index = {new} WHERE leaf_index = {old}", book.tenant_id)

    assert checks_of(await auditor.faults()) >= {"record", "tree"}


@pytest.mark.usefixtures("filled")
async def test_two_entries_that_changed_places_are_found(
    auditor: Auditor, admin: asyncpg.Connection, book: Book
) -> None:
    for old, new in ((1, 1000), (2, 1), (1000, 2)):
        await change(admin, f"UPDATE entries SET sequence = {new} WHERE sequence = {old}", book.tenant_id)

    assert "record" in checks_of(await auditor.faults())


async def test_a_forger_who_makes_the_hashes_right_has_no_signature(
    auditor: Auditor, filled: list[ledger_pb2.Transaction], admin: asyncpg.Connection, book: Book
) -> None:
    await change(admin, "UPDATE transactions SET description = 'x' WHERE leaf_index = 8", book.tenant_id)
    (record,) = await auditor.records(start=8)
    rows = await admin.fetch(
        "SELECT leaf_hash FROM transactions WHERE tenant_id = $1 ORDER BY leaf_index", book.tenant_id
    )
    hash_ = await admin.fetchval("SELECT sha256($1)", b"\x00" + record)
    growth = Tree().grow([*(row["leaf_hash"] for row in rows[:8]), hash_])
    await change(admin, f"UPDATE transactions SET leaf_hash = '\\x{hash_.hex()}' WHERE leaf_index = 8", book.tenant_id)
    await change(admin, f"UPDATE journals SET frontier = '\\x{growth.frontier.hex()}'", book.tenant_id)
    await change(
        admin, f"UPDATE checkpoints SET root_hash = '\\x{growth.root.hex()}' WHERE tree_size = 9", book.tenant_id
    )

    assert len(filled) == 9
    assert checks_of(await auditor.faults()) == {"checkpoint"}


@pytest.mark.usefixtures("filled")
async def test_a_tail_that_was_cut_off_is_found(auditor: Auditor, admin: asyncpg.Connection, book: Book) -> None:
    await cut_off_last(admin, book.tenant_id)

    assert checks_of(await auditor.faults()) >= {"sequence", "account"}


@pytest.mark.usefixtures("filled")
async def test_a_tail_that_was_cut_off_with_all_its_traces_is_found_by_who_kept_a_checkpoint(
    auditor: Auditor, admin: asyncpg.Connection, book: Book
) -> None:
    before = (await auditor.checkpoint()).note
    await book.post(debit(BANK, 17), credit(FEES, 17))
    kept = (await auditor.checkpoint()).note
    await cut_off_last(admin, book.tenant_id)
    await set_head_back(admin, book.tenant_id, 17)

    # Nothing in the tables can tell any more.
    assert await auditor.faults() == []
    assert await auditor.faults(before) == []
    assert checks_of(await auditor.faults(kept)) == {"kept_note"}

    await book.post(debit(BANK, 18), credit(FEES, 18))

    assert await auditor.faults(before) == []
    assert checks_of(await auditor.faults(kept)) == {"kept_note"}


async def test_a_book_of_several_parts_is_checked_across_their_seams(
    auditor: Auditor, admin: asyncpg.Connection, open_book: Book
) -> None:
    await fill_many(open_book, 2_000)
    await fill_many(open_book, 2_500)
    kept = (await auditor.checkpoint(2_000)).note

    assert await auditor.faults(kept) == []

    tenant_id = open_book.tenant_id
    await change(admin, "UPDATE entries SET balance_after_minor = 0 WHERE sequence = 4097", tenant_id)
    await change(admin, "DELETE FROM transactions WHERE leaf_index = 4096", tenant_id)
    await change(admin, "UPDATE tree_nodes SET hash = sha256('x') WHERE node_index = 16", tenant_id)
    faults = await auditor.faults(kept)

    assert checks_of(faults) >= {"record", "balance", "sequence", "tree"}
    assert {fault.detail for fault in faults} >= {
        "the transaction at leaf 4096 is missing",
        "the stored node 16 of level 8 is not that of its leaves",
    }


@pytest.mark.parametrize(
    ("statement", "check"),
    [
        ("UPDATE tree_nodes SET hash = sha256('x')", "tree"),
        ("DELETE FROM tree_nodes", "tree"),
        ("UPDATE tree_nodes SET node_index = 7", "tree"),
        ("UPDATE tree_nodes SET level = 16", "tree"),
    ],
)
async def test_an_edited_node_of_the_tree_is_found(
    auditor: Auditor, admin: asyncpg.Connection, open_book: Book, statement: str, check: str
) -> None:
    await fill_many(open_book, 300)
    assert await auditor.faults() == []

    await change(admin, statement, open_book.tenant_id)

    assert check in checks_of(await auditor.faults())


async def test_a_note_that_is_none_of_this_tenants_is_refused(
    ledger: TestMesh, auditor: Auditor, book: Book, filled: list[ledger_pb2.Transaction]
) -> None:
    assert filled
    note = (await auditor.checkpoint()).note
    other = Auditor(ledger.client("ledger", "ten_00000000000000000000000000", ("ledger:read",)))

    for asker, text in ((auditor, "x"), (auditor, note.replace(book.tenant_id, "ten_x")), (other, note)):
        problem = await refusal(asker.verify(text))

        assert problem.reason is Reason.FIELD_INVALID
        assert [violation.field for violation in problem.violations] == ["note"]


async def test_limits_that_were_set_below_a_balance_are_no_fault(
    auditor: Auditor, admin: asyncpg.Connection, filled: list[ledger_pb2.Transaction], book: Book
) -> None:
    assert filled
    await change(
        admin,
        f"UPDATE accounts SET max_balance_minor = 0, update_time = now() WHERE account_name = '{BANK}'",
        book.tenant_id,
    )

    assert await auditor.faults() == []


async def test_books_are_checked_as_of_one_moment_while_others_book(auditor: Auditor, open_book: Book) -> None:
    await fill_many(open_book, 3_000)
    stopping = asyncio.Event()

    async def go_on_booking() -> int:
        count = 0
        while not stopping.is_set():
            await open_book.post(debit(BANK, 1), credit(PAYER, 1))
            count += 1
        return count

    booking = asyncio.create_task(go_on_booking())
    faults = [await auditor.faults() for _ in range(3)]
    stopping.set()

    assert faults == [[], [], []]
    assert await booking > 0


async def test_parts_with_many_entries_are_of_fewer_transactions(
    infrastructure: Infrastructure, open_book: Book
) -> None:
    await fill_many(open_book, 2_000)
    database = await Database.connect(infrastructure.settings("ledger").database_url.get_secret_value(), pool_size=2)
    verifier = BookVerifier(database, processes=1, part_entries=1_100)

    steps = [progress async for progress in verifier.verify(open_book.tenant_id, "")]
    await database.close()

    assert [fault for progress in steps for fault in progress.faults] == []
    # Of two entries each, 512 transactions are the most that fit, in blocks of a tree.
    assert list(dict.fromkeys(progress.checked_transactions for progress in steps)) == [512, 1_024, 1_536, 2_000]


@pytest.fixture
async def miscounting_url(infrastructure: Infrastructure, admin: asyncpg.Connection) -> AsyncIterator[str]:
    """The ledger's database, for a session to which every text is empty: only the quick check asks for lengths."""
    await admin.execute("CREATE SCHEMA miscounting")
    await admin.execute("GRANT USAGE ON SCHEMA miscounting TO kente_ledger")
    await admin.execute("CREATE FUNCTION miscounting.octet_length(text) RETURNS integer LANGUAGE sql AS 'SELECT 0'")
    url = infrastructure.settings("ledger").database_url.get_secret_value()
    yield f"{url}{'&' if '?' in url else '?'}search_path=ledger,miscounting,pg_catalog"
    await admin.execute("DROP SCHEMA miscounting CASCADE")


@pytest.mark.parametrize("is_forged", [False, True])
async def test_a_doubt_without_a_fault_is_logged_once(
    miscounting_url: str, admin: asyncpg.Connection, open_book: Book, *, is_forged: bool
) -> None:
    await fill_many(open_book, 600)
    if is_forged:
        await change(admin, "UPDATE transactions SET description = 'x'", open_book.tenant_id)
    database = await Database.connect(miscounting_url, pool_size=2)
    verifier = BookVerifier(database, processes=1, part_entries=512)

    with structlog.testing.capture_logs() as logs:
        faults = [fault async for step in verifier.verify(open_book.tenant_id, "") for fault in step.faults]
    await database.close()

    assert bool(faults) is is_forged
    assert [line["start_leaf"] for line in logs if line["log_level"] == "warning"] == ([] if is_forged else [0])


async def test_one_check_runs_at_a_time(infrastructure: Infrastructure, open_book: Book) -> None:
    await open_book.post(debit(BANK, 1), credit(PAYER, 1))
    database = await Database.connect(infrastructure.settings("ledger").database_url.get_secret_value(), pool_size=2)
    verifier = BookVerifier(database, processes=1)

    async with aclosing(verifier.verify(open_book.tenant_id, "")) as steps:
        await anext(steps)
        with pytest.raises(Problem) as busy:
            await anext(verifier.verify(open_book.tenant_id, ""))
    again = [progress.done async for progress in verifier.verify(open_book.tenant_id, "")]
    await database.close()

    assert busy.value.reason is Reason.SERVICE_OVERLOADED
    assert busy.value.retry_after_seconds
    assert again[-1]
