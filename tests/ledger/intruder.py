"""What somebody inside of the service could try, by raw SQL, on books with something of everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from kente.common.v1.money_pb2 import Money
from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.ids import new_id
from tests.harness import TestMesh
from tests.ledger.book import BANK, PAYER, SCOPES, Book, credit, debit, new_request_id, refusal

LEAVES_OF_ONE_NODE = 256


# The service writes a transaction and its entries by one statement, because the triggers look at each by itself.
WRITE = """
    WITH booked AS (
        INSERT INTO transactions (journal_key, tenant_id, create_time, leaf_index, book_key, transaction_id, kind,
                                  first_sequence, entry_count, description, source_id, metadata, leaf_hash)
        SELECT $1, $2, now(), $3, $4, $5, 'posting', $6, $7, '', '', '{}', '' WHERE $7 > 0
    )
    INSERT INTO entries (journal_key, tenant_id, create_time, leaf_index, sequence, account_key, side, pending,
                         amount_minor, balance_after_minor)
    SELECT $1, $2, now(), $3, sequence, account_key, side, false, amount_minor, 0
    FROM unnest($8::bigint[], $9::bigint[], $10::text[], $11::bigint[])
         AS leg (sequence, account_key, side, amount_minor)
"""


@dataclass(frozen=True)
class Attack:
    """A transaction as somebody inside the service could try to write it.

    Attributes:
        legs: account (its name, or its key), side, amount in minor units.
        entry_count: as the transaction says; 0 writes no transaction at all.
        sequences: places of the entries, from the first free one.
        leaf_index: from the first free one.
    """

    legs: Sequence[tuple[Any, str, int]]
    entry_count: int = 2
    sequences: Sequence[int] = field(default_factory=lambda: range(100))
    leaf_index: int = 0


async def filled_book(ledger: TestMesh) -> Book:
    """Books something of each kind, for a tenant of its own."""
    tenant_id = new_id("ten")
    book = Book(ledger.client("ledger", tenant_id, SCOPES), tenant_id)
    await book.open(BANK, PAYER)
    await book.open("assets:kes", currency="KES")
    transfers = [
        ledger_pb2.Transfer(
            transaction_id=new_id("txn"),
            debit_account_name=BANK,
            credit_account_name=PAYER,
            amount=Money(amount_minor=5, currency="GHS"),
        )
        for _ in range(LEAVES_OF_ONE_NODE)
    ]
    await book.stub.CreateTransfers(pb2.CreateTransfersRequest(request_id=new_request_id(), transfers=transfers))
    await book.post(debit(BANK, 7), credit(PAYER, 7), pending=True)
    await book.stub.ReverseTransaction(
        pb2.ReverseTransactionRequest(
            request_id=new_request_id(),
            transaction_id=new_id("txn"),
            reversed_transaction_id=transfers[0].transaction_id,
        )
    )
    await refusal(book.post(debit(BANK, 5), credit(PAYER, 6)))
    return book


async def act_for(connection: asyncpg.Connection, tenant_id: str) -> None:
    """Sets the tenant that row-level security lets through, for the session."""
    await connection.execute("SELECT set_config('kente.tenant', $1, false)", tenant_id)


async def write(connection: asyncpg.Connection, admin: asyncpg.Connection, book: Book, attack: Attack) -> None:
    """Writes a transaction as the service would, without its checks."""
    (journal,) = await admin.fetch("SELECT * FROM journals WHERE tenant_id = $1", book.tenant_id)
    accounts = await admin.fetch("SELECT tenant_id, account_name, account_key FROM accounts")
    keys = {(row["tenant_id"], row["account_name"]): row["account_key"] for row in accounts}
    await connection.execute(
        WRITE,
        journal["journal_key"],
        book.tenant_id,
        journal["tree_size"] + attack.leaf_index,
        await admin.fetchval("SELECT book_key FROM books WHERE tenant_id = $1", book.tenant_id),
        new_id("txn"),
        journal["last_sequence"] + 1,
        attack.entry_count,
        [journal["last_sequence"] + 1 + sequence for sequence, _ in zip(attack.sequences, attack.legs, strict=False)],
        [keys.get((book.tenant_id, account_name), account_name) for account_name, _, _ in attack.legs],
        [side for _, side, _ in attack.legs],
        [amount_minor for _, _, amount_minor in attack.legs],
    )
