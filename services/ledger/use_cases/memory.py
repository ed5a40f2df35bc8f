"""What this process remembers of the books of its tenants, from one batch of postings to the next.

It saves reading the same accounts again for every batch. It is never trusted as it is: whoever holds the lock of a
journal sees in it whether anything happened since, be it by another process or by hand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

from services.ledger.model.accounts import PostableAccount
from services.ledger.model.running import Running
from services.ledger.repository.journals import Journal


class RememberedBooks:
    """The books of one tenant as a journal left them, as far as they were read.

    Attributes:
        journal: what the books come after.
        books: key and closed time by name.
        accounts: by name of the book, by name of the account.
        is_alone: whether the books were still true when they were looked at last, and so may be the next time.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.books: dict[str, tuple[int, datetime | None]] = {}
        self.accounts: dict[str, dict[str, Running]] = defaultdict(dict)
        self.is_alone = False

    @property
    def book_keys(self) -> dict[str, int]:
        """The keys of the books, by name."""
        return {book_name: book_key for book_name, (book_key, _) in self.books.items()}

    def unknown(self, names: Mapping[str, Collection[str]]) -> dict[str, set[str]]:
        """Those of the accounts that are not remembered, by name of the book."""
        unknown = {
            book_name: set(of_book).difference(self.accounts.get(book_name, ())) for book_name, of_book in names.items()
        }
        return {book_name: of_book for book_name, of_book in unknown.items() if of_book}

    def add(self, accounts: Iterable[PostableAccount]) -> None:
        """Remembers accounts that were read."""
        for account in accounts:
            self.accounts[account.book_name][account.account_name] = Running(account)


class Memory:
    """The books that this process remembers.

    Whoever works with those of a tenant takes them away and gives them back when they are whole again, so that nobody
    finds them half changed.

    Args:
        limit: most accounts and tenants together.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        # With the size of each. Those that were given back last come last.
        self._by_tenant: dict[str, tuple[RememberedBooks, int]] = {}

    def take(self, tenant_id: str) -> RememberedBooks | None:
        """The books of a tenant; None when none are remembered, or somebody works with them."""
        books, size = self._by_tenant.pop(tenant_id, (None, 0))
        self._size -= size
        return books

    def give_back(self, tenant_id: str, books: RememberedBooks) -> None:
        """Remembers the books of a tenant instead of any before; forgets those that were not used for longest."""
        self.take(tenant_id)
        # Books without accounts take room too.
        size = 1 + sum(map(len, books.accounts.values()))
        if size > self._limit:
            return
        self._by_tenant[tenant_id] = books, size
        self._size += size
        while self._size > self._limit:
            self.take(next(iter(self._by_tenant)))
