"""Refuses to tell of a past whose entries are archived."""

from __future__ import annotations

from mesh.database import Connection
from mesh.errors import Problem, Reason, Violation
from services.ledger.repository.balances import Cut
from services.ledger.repository.journals import Journal
from services.ledger.repository.positions import find_archived


async def check_kept(connection: Connection, journal: Journal, cut: Cut, field: str) -> None:
    """Checks that all entries after a cut are here; then every balance at it and later can be told.

    Args:
        field: of the request, which said the time of the cut.

    Raises:
        Problem: FIELD_INVALID, some are archived.
    """
    if cut.base_sequence < await find_archived(connection, journal):
        description = "is before the entries that are kept at hand: use a later time, or ask for what was archived"
        raise Problem(Reason.FIELD_INVALID, violations=[Violation(field, description)])
