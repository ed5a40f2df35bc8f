"""Between the contracts of accounts and books and their model. Pure functions."""

from __future__ import annotations

from kente.ledger.v1 import ledger_pb2, ledger_service_pb2

from mesh.errors import Problem, Reason, Violation
from mesh.money import INT64_MAX, exponent_of
from services.ledger.convert.common import (
    SIDES_TO_PROTO,
    STATES_TO_PROTO,
    TYPES_FROM_PROTO,
    TYPES_TO_PROTO,
    book_name_from_proto,
    metadata_from_proto,
    money_to_proto,
    time_to_proto,
)
from services.ledger.model.accounts import NO_LIMITS, Account, AccountDraft, AccountLimits, Book
from services.ledger.model.changes import AccountChanges

_INT64_MIN = -INT64_MAX - 1
_CHANGEABLE = ("display_name", "account_number", "metadata", "limits")
# The answer repeats what a batch asks for and adds to it, and must fit in a message of 4 MiB.
_BATCH_BYTES_MAX = 3 * 1024 * 1024


def account_draft_from_proto(
    draft: ledger_service_pb2.CreateAccountRequest | ledger_service_pb2.AccountDraft, parent: str = ""
) -> AccountDraft:
    """The account that a request asks for.

    Args:
        parent: what goes before the names of fields in errors, such as "accounts[3].".

    Raises:
        Problem: FIELD_INVALID, of the scale, the metadata or the limits.
    """
    return AccountDraft(
        book_name=book_name_from_proto(draft.book_name),
        account_name=draft.account_name,
        account_number=draft.account_number or None,
        type=TYPES_FROM_PROTO[draft.type],
        currency=draft.currency,
        scale=_scale_from_proto(draft, parent),
        display_name=draft.display_name,
        metadata=metadata_from_proto(draft.metadata, f"{parent}metadata"),
        limits=limits_from_proto(draft.limits, f"{parent}limits") if draft.HasField("limits") else NO_LIMITS,
    )


def account_drafts_from_proto(request: ledger_service_pb2.BatchCreateAccountsRequest) -> list[AccountDraft]:
    """The accounts that a request asks for, in its order.

    Raises:
        Problem: FIELD_INVALID.
    """
    if request.ByteSize() > _BATCH_BYTES_MAX:
        description = f"hold more than {_BATCH_BYTES_MAX} bytes in all: send fewer at once"
        raise Problem(Reason.FIELD_INVALID, violations=[Violation("accounts", description)])
    return [account_draft_from_proto(draft, f"accounts[{index}].") for index, draft in enumerate(request.accounts)]


def account_changes_from_proto(request: ledger_service_pb2.UpdateAccountRequest) -> AccountChanges:
    """What a request changes: the fields in its mask, and no other.

    Raises:
        Problem: FIELD_INVALID, of the mask, the metadata or the limits.
    """
    paths = set(request.update_mask.paths)
    unknown = sorted(paths.difference(_CHANGEABLE))
    if unknown or not paths:
        named = f"names {unknown[0][:60]!r}" if unknown else "names no field"
        description = f"{named}: name one or more of {', '.join(_CHANGEABLE)}"
        raise Problem(Reason.FIELD_INVALID, violations=[Violation("update_mask", description)])
    return AccountChanges(
        display_name=request.display_name if "display_name" in paths else None,
        account_number=request.account_number if "account_number" in paths else None,
        metadata=metadata_from_proto(request.metadata, "metadata") if "metadata" in paths else None,
        limits=limits_from_proto(request.limits, "limits") if "limits" in paths else None,
    )


def limits_from_proto(limits: ledger_pb2.AccountLimits, field: str) -> AccountLimits:
    """Limits of a balance.

    Raises:
        Problem: FIELD_INVALID, no balance could keep to them, or the lowest balance leaves int64.
    """
    kept = AccountLimits(
        min_balance_minor=limits.min_balance_minor if limits.HasField("min_balance_minor") else None,
        max_balance_minor=limits.max_balance_minor if limits.HasField("max_balance_minor") else None,
        credit_limit_minor=limits.credit_limit_minor if limits.HasField("credit_limit_minor") else None,
    )
    lowest_minor, highest_minor = kept.lowest_minor, kept.max_balance_minor
    if kept.min_balance_minor is not None and highest_minor is not None and kept.min_balance_minor > highest_minor:
        description = f"is below limits.min_balance_minor, which is {kept.min_balance_minor}: make it that or more"
        raise Problem(Reason.FIELD_INVALID, violations=[Violation(f"{field}.max_balance_minor", description)])
    if lowest_minor is not None and highest_minor is not None and lowest_minor > highest_minor:
        description = f"is below the lowest balance that the credit limit leaves, {lowest_minor}: make it that or more"
        raise Problem(Reason.FIELD_INVALID, violations=[Violation(f"{field}.max_balance_minor", description)])
    if lowest_minor is not None and lowest_minor < _INT64_MIN:
        description = f"goes {_INT64_MIN - lowest_minor} below the lowest amount of 64 bits: lower it by that much"
        raise Problem(Reason.FIELD_INVALID, violations=[Violation(f"{field}.credit_limit_minor", description)])
    return kept


def account_to_proto(account: Account) -> ledger_pb2.Account:
    """An account as callers see it."""
    currency, available_minor = account.currency, account.available_minor
    return ledger_pb2.Account(
        account_name=account.account_name,
        type=TYPES_TO_PROTO[account.type],
        currency=currency,
        state=STATES_TO_PROTO[account.state],
        display_name=account.display_name,
        balance=money_to_proto(account.balance_minor, currency),
        create_time=time_to_proto(account.create_time),
        book_name=account.book_name,
        account_number=account.account_number or "",
        normal_side=SIDES_TO_PROTO[account.type.normal_side],
        scale=account.scale,
        metadata=account.metadata,
        limits=_limits_to_proto(account.limits),
        debits=money_to_proto(account.debits_minor, currency),
        credits=money_to_proto(account.credits_minor, currency),
        pending_debits=money_to_proto(account.pending_debits_minor, currency),
        pending_credits=money_to_proto(account.pending_credits_minor, currency),
        # A large balance above a deep credit limit is more than an amount can say; no posting can move more anyway.
        available=None if available_minor is None else money_to_proto(available_minor, currency),
        update_time=time_to_proto(account.update_time),
    )


def book_to_proto(book: Book) -> ledger_pb2.Book:
    """A book as callers see it."""
    return ledger_pb2.Book(
        book_name=book.book_name,
        closed_time=time_to_proto(book.closed_time),
        create_time=time_to_proto(book.create_time),
    )


def _limits_to_proto(limits: AccountLimits) -> ledger_pb2.AccountLimits | None:
    if limits == NO_LIMITS:
        return None
    return ledger_pb2.AccountLimits(
        min_balance_minor=limits.min_balance_minor,
        max_balance_minor=limits.max_balance_minor,
        credit_limit_minor=limits.credit_limit_minor,
    )


def _scale_from_proto(
    draft: ledger_service_pb2.CreateAccountRequest | ledger_service_pb2.AccountDraft, parent: str
) -> int:
    """Decimals of the currency: its own, or as given for an asset that is not known to the mesh."""
    given = draft.scale if draft.HasField("scale") else None
    try:
        own = exponent_of(draft.currency)
    except ValueError:
        if given is not None:
            return given
        description = (
            f"{draft.currency!r} is no ISO 4217 currency or known asset: correct it, or give the asset's scale"
        )
        raise Problem(Reason.FIELD_INVALID, violations=[Violation(f"{parent}currency", description)]) from None
    if given not in (None, own):
        description = f"is not that of {draft.currency}, which is {own}: leave it out"
        raise Problem(Reason.FIELD_INVALID, violations=[Violation(f"{parent}scale", description)])
    return own
