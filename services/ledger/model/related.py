"""What a posting may end or reverse. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from services.ledger.model.postings import HoldState, Kind, Transaction

_WITHOUT_ENTRIES = {Kind.HOLD_VOID, Kind.HOLD_EXPIRY}


@dataclass(slots=True)
class Related:
    """A transaction that a later one may end or reverse, and what became of it.

    Attributes:
        hold_state: of a hold.
        ended_by: id of the transaction that ended the hold.
        reversed_by: by sequence of the entry, the id of the transaction that reversed it.
    """

    transaction: Transaction
    hold_state: HoldState | None
    ended_by: str
    reversed_by: dict[int, str]

    @property
    def is_archived(self) -> bool:
        """Whether it had entries, and they were taken away with their month."""
        return not self.transaction.entries and self.transaction.kind not in _WITHOUT_ENTRIES

    def save(self) -> tuple[HoldState | None, str, dict[int, str]]:
        """What `restore` needs to undo all that comes."""
        return self.hold_state, self.ended_by, self.reversed_by

    def restore(self, saved: tuple[HoldState | None, str, dict[int, str]]) -> None:
        """Undoes everything since `save`."""
        self.hold_state, self.ended_by, self.reversed_by = saved
