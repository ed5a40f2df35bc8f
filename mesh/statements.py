"""Statements that change rows: several of them in one round trip, and on their way while the next are made."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Self

from mesh.database import Connection

_PARAMETER = re.compile(r"\$(\d+)")
# Which statements go together depends on what there is to write: a few combinations for each place that writes.
_COMBINATIONS = 256


@dataclass(frozen=True, slots=True)
class Statement:
    """An INSERT, UPDATE or DELETE with its arguments; $1 in its text is the first of them."""

    sql: str
    arguments: Sequence[object]


async def execute(connection: Connection, statements: Sequence[Statement]) -> None:
    """Executes statements in one round trip, in the current transaction.

    All of them see the tables as they were before, and triggers run after all. No two may change the same row.
    """
    if statements:
        sql = _joined(tuple((statement.sql, len(statement.arguments)) for statement in statements))
        await connection.execute(sql, *(argument for statement in statements for argument in statement.arguments))


@lru_cache(_COMBINATIONS)
def _joined(statements: tuple[tuple[str, int], ...]) -> str:
    """One statement that does what all of them do. A connection prepares it once, as long as it is the same text."""
    if len(statements) == 1:
        return statements[0][0]
    steps: list[str] = []
    before = 0
    for number, (sql, argument_count) in enumerate(statements):
        steps.append(f"step_{number} AS ({_renumbered(sql, before)})")
        before += argument_count
    return f"WITH {', '.join(steps)} SELECT"


def _renumbered(sql: str, before: int) -> str:
    return _PARAMETER.sub(lambda parameter: f"${int(parameter[1]) + before}", sql)


class WriteBehind:
    """Executes statements in their order while whoever hands them over makes the next.

    At the end of its `async with` all are executed. One that fails raises at the next hand-over, or at the end.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._under_way: asyncio.Task[None] | None = None

    async def hand_over(self, statements: Sequence[Statement]) -> None:
        """Returns once those handed over before are executed and these are on their way."""
        await self._catch_up()
        self._under_way = asyncio.create_task(execute(self._connection, statements))
        # The task sends what it has on its first turn.
        await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self._catch_up()
        elif self._under_way is not None:
            # The connection must be at rest for the transaction to be taken back; the first fault is the one to raise.
            await asyncio.gather(self._under_way, return_exceptions=True)

    async def _catch_up(self) -> None:
        if self._under_way is not None:
            await self._under_way
            self._under_way = None
