"""What the simulated providers remember, in one SQLite file.

Everything is committed before an answer leaves: a killed sandbox forgets nothing that it accepted. All calls are made
from the event loop's thread; each takes some tens of microseconds.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Body = dict[str, Any]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    sequence INTEGER PRIMARY KEY, slug TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL,
    UNIQUE (slug, kind, key)
);
CREATE TABLE IF NOT EXISTS movements (
    sequence INTEGER PRIMARY KEY, slug TEXT NOT NULL, operation TEXT NOT NULL, key TEXT NOT NULL,
    amount TEXT NOT NULL, currency TEXT NOT NULL, unix_seconds REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS movements_of_slug ON movements (slug, sequence);
CREATE TABLE IF NOT EXISTS timers (
    sequence INTEGER PRIMARY KEY, slug TEXT NOT NULL, name TEXT NOT NULL, payload TEXT NOT NULL,
    due_unix_seconds REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS timers_due ON timers (due_unix_seconds);
CREATE TABLE IF NOT EXISTS faults (
    sequence INTEGER PRIMARY KEY, slug TEXT NOT NULL, operation TEXT NOT NULL, fault TEXT NOT NULL, count INTEGER
);
"""


@dataclass(frozen=True, slots=True)
class Timer:
    """Something that a simulated provider will do later."""

    sequence: int
    slug: str
    name: str
    payload: Body
    due_unix_seconds: float


class Store:
    """The file of all simulated providers.

    Args:
        path: the file; made with its folder. ":memory:" keeps nothing.
        on_timer: called when a timer was added.
    """

    def __init__(self, path: Path | str, on_timer: Callable[[], None] = lambda: None) -> None:
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path, isolation_level=None)
        # WAL with NORMAL survives a killed process without waiting for the disk; only a power cut could lose a commit.
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "busy_timeout = 5000"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.executescript(_SCHEMA)
        self._depth = 0
        self.on_timer = on_timer

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    def shelf(self, slug: str) -> Shelf:
        """The part of one provider."""
        return Shelf(self, slug)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is kept together or not at all. No await inside: others would join in."""
        if self._depth == 0:
            self._database.execute("BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield
        except BaseException:
            self._depth -= 1
            if self._depth == 0:
                self._database.execute("ROLLBACK")
            raise
        self._depth -= 1
        if self._depth == 0:
            self._database.execute("COMMIT")

    def execute(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        """Runs one statement; committed at once outside of a transaction."""
        return self._database.execute(statement, values)

    def clear(self, slug: str | None = None) -> None:
        """Forgets what a provider did, or all did. Planned faults stay."""
        where, values = ("WHERE slug = ?", (slug,)) if slug else ("", ())
        with self.transaction():
            for table in ("records", "movements", "timers"):
                self.execute(f"DELETE FROM {table} {where}", values)  # noqa: S608 - names from the line above

    def due_timers(self, unix_seconds: float, limit: int) -> list[Timer]:
        """Timers that are due, the longest overdue first."""
        rows = self.execute(
            "SELECT sequence, slug, name, payload, due_unix_seconds FROM timers WHERE due_unix_seconds <= ? "
            "ORDER BY due_unix_seconds LIMIT ?",
            (unix_seconds, limit),
        )
        return [Timer(row[0], row[1], row[2], json.loads(row[3]), row[4]) for row in rows]

    def next_due(self, unix_seconds: float) -> float | None:
        """When the first timer after a moment is due."""
        row = self.execute("SELECT min(due_unix_seconds) FROM timers WHERE due_unix_seconds > ?", (unix_seconds,))
        found: float | None = row.fetchone()[0]
        return found

    def remove_timer(self, sequence: int) -> None:
        """Forgets a timer."""
        self.execute("DELETE FROM timers WHERE sequence = ?", (sequence,))

    def load_faults(self) -> list[tuple[str, str, str, int | None]]:
        """Planned faults: provider, operation, fault, count."""
        rows: list[tuple[str, str, str, int | None]] = self.execute(
            "SELECT slug, operation, fault, count FROM faults ORDER BY sequence"
        ).fetchall()
        return rows

    def save_faults(self, slug: str, rows: Sequence[tuple[str, str, int | None]]) -> None:
        """Replaces the planned faults of a provider."""
        with self.transaction():
            self.execute("DELETE FROM faults WHERE slug = ?", (slug,))
            for row in rows:
                self.execute("INSERT INTO faults (slug, operation, fault, count) VALUES (?, ?, ?, ?)", (slug, *row))


class Shelf:
    """What one simulated provider remembers: records by kind and key, money moved, and what it will do later."""

    def __init__(self, store: Store, slug: str) -> None:
        self._store = store
        self._slug = slug
        self.transaction = store.transaction

    def get(self, kind: str, key: str) -> Body | None:
        """A record, or None."""
        row = self._store.execute(
            "SELECT body FROM records WHERE slug = ? AND kind = ? AND key = ?", (self._slug, kind, key)
        ).fetchone()
        return json.loads(row[0]) if row else None

    def put(self, kind: str, key: str, body: Mapping[str, Any]) -> None:
        """Writes or replaces a record. Its place among its kind stays that of the first writing."""
        self._store.execute(
            "INSERT INTO records (slug, kind, key, body) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (slug, kind, key) DO UPDATE SET body = excluded.body",
            (self._slug, kind, key, json.dumps(body)),
        )

    def newest(self, kind: str, limit: int = 1000) -> list[Body]:
        """The records of a kind, newest first."""
        rows = self._store.execute(
            "SELECT body FROM records WHERE slug = ? AND kind = ? ORDER BY sequence DESC LIMIT ?",
            (self._slug, kind, limit),
        )
        return [json.loads(row[0]) for row in rows]

    def kinds(self) -> list[str]:
        """The kinds that have records."""
        rows = self._store.execute("SELECT DISTINCT kind FROM records WHERE slug = ? ORDER BY kind", (self._slug,))
        return [row[0] for row in rows]

    def move(self, operation: str, key: str, amount: str, currency: str) -> None:
        """Notes that money moved. Tests count these: one operation of ours must never leave two.

        Args:
            operation: as the simulator names it, such as "collect".
            key: what names the operation at the provider.
            amount: as this provider writes amounts.
            currency: as this provider writes currencies.
        """
        self._store.execute(
            "INSERT INTO movements (slug, operation, key, amount, currency, unix_seconds) VALUES (?, ?, ?, ?, ?, ?)",
            (self._slug, operation, key, amount, currency, time.time()),
        )

    def movements(self, limit: int = 100_000) -> list[Body]:
        """Money moved, oldest first."""
        rows = self._store.execute(
            "SELECT operation, key, amount, currency, unix_seconds FROM movements WHERE slug = ? "
            "ORDER BY sequence LIMIT ?",
            (self._slug, limit),
        )
        names = ("operation", "key", "amount", "currency", "unix_seconds")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def movement_counts(self) -> dict[str, int]:
        """How often money moved, by operation."""
        rows = self._store.execute(
            "SELECT operation, count(*) FROM movements WHERE slug = ? GROUP BY operation", (self._slug,)
        )
        return dict(rows.fetchall())

    def later(self, seconds: float, name: str, payload: Mapping[str, Any]) -> None:
        """Plans something: the simulator's on_timer is called with the name and payload, also after a restart."""
        self._store.execute(
            "INSERT INTO timers (slug, name, payload, due_unix_seconds) VALUES (?, ?, ?, ?)",
            (self._slug, name, json.dumps(payload), time.time() + seconds),
        )
        self._store.on_timer()

    def planned(self) -> int:
        """How many timers wait, callbacks among them."""
        row = self._store.execute("SELECT count(*) FROM timers WHERE slug = ?", (self._slug,)).fetchone()
        return int(row[0])
