"""What the planner of PostgreSQL is told about statements that read a page in order."""

from __future__ import annotations

from mesh.database import Connection


async def prefer_order(connection: Connection) -> None:
    """For the rest of the transaction: reads rows in the order of an index, and stops when the page is full.

    A page is a few rows of what may be very many. The planner takes every account for an average one and would gather
    and sort all entries of one that is in every other transaction, to give back the first fifty.
    """
    await connection.execute(
        "SET LOCAL enable_bitmapscan = off; SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off;"
        " SET LOCAL enable_mergejoin = off"
    )
