"""What callers can change on accounts and books. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from mesh.errors import Problem, Reason
from mesh.ids import derive_uuid
from services.ledger.model.accounts import Account, AccountLimits


@dataclass(frozen=True, slots=True)
class AccountChanges:
    """What to change; None leaves it as it is.

    Attributes:
        account_number: "" takes the number away.
        metadata: takes the place of all there was.
        limits: take the place of all there were.
    """

    display_name: str | None = None
    account_number: str | None = None
    metadata: Mapping[str, str] | None = None
    limits: AccountLimits | None = None

    def applied_to(self, account: Account) -> Account:
        """The account with the changes."""
        return replace(
            account,
            display_name=account.display_name if self.display_name is None else self.display_name,
            account_number=account.account_number if self.account_number is None else self.account_number or None,
            metadata=account.metadata if self.metadata is None else self.metadata,
            limits=account.limits if self.limits is None else self.limits,
        )


@dataclass(frozen=True)
class ChangeRequest:
    """A caller's request for a change.

    Attributes:
        request_id: the caller's key, unique to the method.
        request_hash: SHA-256 of what was asked for.
    """

    method: str
    request_id: str
    request_hash: bytes

    @cached_property
    def key(self) -> str:
        """What it is remembered by, a UUID. An id says nothing across methods, here as with the stored answers."""
        return derive_uuid(self.method, self.request_id.lower())

    def reused(self) -> Problem:
        """What to answer when the id was used for something else."""
        detail = f"request_id {self.request_id} was used for another request body"
        return Problem(Reason.REQUEST_ID_REUSED, detail, request_id=self.request_id)
