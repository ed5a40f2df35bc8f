"""SQL of books. Every function runs in the caller's transaction, which is one tenant's."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from mesh.database import Connection
from services.ledger.model.accounts import Book
from services.ledger.repository.journals import Journal


async def ensure_books(
    connection: Connection, journal: Journal, book_names: Collection[str], create_time: datetime
) -> None:
    """Makes those of the books that are missing, in a journal that the caller has locked."""
    await connection.execute(
        """
        INSERT INTO books (journal_key, tenant_id, book_name, create_time)
        SELECT $1, $2, book_name, $4 FROM unnest($3::text[]) AS wanted (book_name)
        ON CONFLICT (tenant_id, book_name) DO NOTHING
        """,
        journal.journal_key,
        journal.tenant_id,
        list(book_names),
        create_time,
    )


async def find_book(connection: Connection, tenant_id: str, book_name: str) -> Book | None:
    """The book of that name."""
    row = await connection.fetchrow(
        "SELECT book_name, closed_time, create_time FROM books WHERE tenant_id = $1 AND book_name = $2",
        tenant_id,
        book_name,
    )
    return Book(*row) if row else None


async def save_closed_time(connection: Connection, tenant_id: str, book_name: str, closed_time: datetime) -> None:
    """Writes the time up to which a book is locked."""
    await connection.execute(
        "UPDATE books SET closed_time = $3 WHERE tenant_id = $1 AND book_name = $2", tenant_id, book_name, closed_time
    )
