"""Reads one book."""

from __future__ import annotations

from mesh.database import Database
from mesh.errors import Problem, Reason
from services.ledger.model.accounts import Book
from services.ledger.repository.books import find_book


async def get_book(database: Database, *, tenant_id: str, book_name: str) -> Book:
    """The book as it is now.

    Raises:
        Problem: RESOURCE_NOT_FOUND.
    """
    async with database.transaction(tenant_id) as connection:
        book = await find_book(connection, tenant_id, book_name)
    if book is None:
        raise book_not_found(book_name)
    return book


def book_not_found(book_name: str) -> Problem:
    """The problem of a book that does not exist."""
    return Problem(Reason.RESOURCE_NOT_FOUND, f"book {book_name} does not exist", book_name=book_name)
