"""What the database itself refuses whatever the service does, tried by raw SQL: entries that do not add up."""

from __future__ import annotations

import asyncpg
import pytest

from tests.harness import TestMesh
from tests.ledger.book import BANK, PAYER, Book, credit, debit
from tests.ledger.intruder import Attack, act_for, filled_book, write

NO_RIGHT = asyncpg.InsufficientPrivilegeError


@pytest.fixture(scope="module")
async def used_book(ledger: TestMesh) -> Book:
    """A book with something in every table: a hold, a reversal, a refusal, and a full node of the tree."""
    return await filled_book(ledger)


@pytest.fixture(scope="module")
async def neighbour(ledger: TestMesh) -> Book:
    """The book of another tenant, with the same names."""
    return await filled_book(ledger)


@pytest.mark.parametrize(
    ("attack", "constraint"),
    [
        (Attack([(BANK, "debit", 5), (PAYER, "credit", 4)]), "transaction_balanced"),
        (Attack([(BANK, "debit", 5), (PAYER, "debit", 5)]), "transaction_balanced"),
        (Attack([(BANK, "debit", 5), ("assets:kes", "credit", 5)]), "transaction_balanced"),
        (Attack([(BANK, "debit", 5), (PAYER, "credit", 5)], entry_count=3), "transaction_complete"),
        (Attack([]), "transaction_complete"),
        (Attack([(BANK, "debit", 5)]), "transaction_complete"),
        (Attack([(BANK, "debit", 5), (PAYER, "credit", 3), (PAYER, "credit", 2)]), "transaction_complete"),
        (Attack([(BANK, "debit", 5), (PAYER, "credit", 5)], entry_count=0), "transaction_complete"),
        (Attack([(BANK, "debit", 5), (PAYER, "credit", 5)], sequences=[0, 2]), "transaction_complete"),
        (Attack([(BANK, "debit", 5), (PAYER, "credit", 5)], sequences=[1, 2]), "transaction_complete"),
        (Attack([(BANK, "debit", 0), (PAYER, "credit", 0)]), "entries_amount_minor_check"),
        (Attack([(BANK, "debit", -5), (PAYER, "credit", -5)]), "entries_amount_minor_check"),
        (Attack([(BANK, "left", 5), (PAYER, "right", 5)]), "entries_side_check"),
        (Attack([(BANK, "debit", 5)], entry_count=1), "transaction_has_entries"),
    ],
)
async def test_only_whole_and_balanced_transactions_are_written(
    used_book: Book, service_role: asyncpg.Connection, admin: asyncpg.Connection, attack: Attack, constraint: str
) -> None:
    await act_for(service_role, used_book.tenant_id)

    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await write(service_role, admin, used_book, attack)

    assert refused.value.constraint_name == constraint


async def test_what_the_guards_let_through_is_a_balanced_transaction(
    open_book: Book, service_role: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    """Else the tests above would show nothing."""
    await open_book.post(debit(BANK, 5), credit(PAYER, 5))
    await act_for(service_role, open_book.tenant_id)

    await write(service_role, admin, open_book, Attack([(BANK, "debit", 6), (PAYER, "credit", 6)]))

    assert await service_role.fetchval("SELECT count(*) FROM transactions") == 2
    assert await service_role.fetchval("SELECT sum(amount_minor) FROM entries") == 22


async def test_looking_away_does_not_help(
    used_book: Book, neighbour: Book, service_role: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    """The triggers see all rows, whatever the tenant of the session is by then."""
    unbalanced = Attack([(BANK, "debit", 5), (PAYER, "credit", 4)])
    await act_for(service_role, "*")
    with pytest.raises(asyncpg.CheckViolationError, match="not balanced in GHS"):
        await write(service_role, admin, used_book, unbalanced)

    await act_for(service_role, neighbour.tenant_id)
    with pytest.raises(NO_RIGHT, match="row-level security"):
        await write(service_role, admin, used_book, unbalanced)


@pytest.mark.parametrize("sequences", [[0, 1], [-2, -1]])
async def test_nothing_is_added_to_a_committed_transaction(
    used_book: Book, service_role: asyncpg.Connection, admin: asyncpg.Connection, sequences: list[int]
) -> None:
    await act_for(service_role, used_book.tenant_id)
    legs = [(BANK, "debit", 5), (PAYER, "credit", 5)]

    for leaf_index in (-1, -3):
        with pytest.raises((asyncpg.CheckViolationError, asyncpg.UniqueViolationError)):
            await write(
                service_role, admin, used_book, Attack(legs, entry_count=0, sequences=sequences, leaf_index=leaf_index)
            )


async def test_a_transaction_does_not_take_the_place_of_another(
    used_book: Book, service_role: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    await act_for(service_role, used_book.tenant_id)
    legs = [(BANK, "debit", 5), (PAYER, "credit", 5)]

    with pytest.raises(asyncpg.UniqueViolationError):
        await write(service_role, admin, used_book, Attack(legs, leaf_index=-1))


async def test_no_entry_lands_on_another_tenants_account(
    used_book: Book, neighbour: Book, service_role: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    stolen = await admin.fetchval(
        "SELECT account_key FROM accounts WHERE tenant_id = $1 AND account_name = $2", neighbour.tenant_id, BANK
    )
    await act_for(service_role, used_book.tenant_id)

    for other in (PAYER, stolen):
        with pytest.raises(asyncpg.CheckViolationError) as refused:
            await write(service_role, admin, used_book, Attack([(stolen, "debit", 5), (other, "credit", 5)]))
        assert refused.value.constraint_name == "transaction_balanced"


async def test_a_sum_that_does_not_fit_in_64_bits_is_refused(used_book: Book, service_role: asyncpg.Connection) -> None:
    await act_for(service_role, used_book.tenant_id)

    for column in ("debits_minor", "pending_credits_minor"):
        with pytest.raises(asyncpg.NumericValueOutOfRangeError):
            await service_role.execute(f"UPDATE accounts SET {column} = 9223372036854775807 + {column} + 1")  # noqa: S608 - a name of this file
        with pytest.raises(asyncpg.CheckViolationError):
            await service_role.execute(f"UPDATE accounts SET {column} = {column} - 1000000")  # noqa: S608 - a name of this file


async def test_an_entry_is_reversed_once(
    used_book: Book, service_role: asyncpg.Connection, admin: asyncpg.Connection
) -> None:
    (row,) = await admin.fetch("SELECT * FROM reversed_entries WHERE tenant_id = $1 LIMIT 1", used_book.tenant_id)
    await act_for(service_role, used_book.tenant_id)

    with pytest.raises(asyncpg.UniqueViolationError):
        await service_role.execute("INSERT INTO reversed_entries VALUES ($1, $2, $3, $4, $5)", *row.values())
