"""Lists the public keys that checkpoints are signed with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from mesh import pages
from mesh.database import Database
from mesh.errors import Problem, Reason
from services.ledger.model.proofs import CheckpointKey
from services.ledger.repository import proofs as repository

_ARGUMENTS = {"list": "checkpoint_keys"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


async def list_checkpoint_keys(
    database: Database, *, tenant_id: str, page_size: int, page_token: str
) -> tuple[list[CheckpointKey], str]:
    """A page of keys, the newest first, and the token of the next page ("" on the last).

    Raises:
        Problem: PAGE_TOKEN_INVALID.
    """
    limit = pages.page_size(page_size)
    before = _position(pages.decode_page_token(page_token, _ARGUMENTS))
    async with database.transaction(tenant_id) as connection:
        keys = await repository.list_checkpoint_keys(connection, before=before, limit=limit + 1)
    if len(keys) <= limit:
        return keys, ""
    last = keys[limit - 1]
    position: dict[str, str | int] = {
        "microseconds": (last.create_time - _EPOCH) // _MICROSECOND,
        "verifier_key": last.verifier_key,
    }
    return keys[:limit], pages.encode_page_token(position, _ARGUMENTS)


def _position(position: dict[str, str | int] | None) -> tuple[datetime, str] | None:
    if position is None:
        return None
    microseconds, verifier_key = position.get("microseconds"), position.get("verifier_key")
    # A token is not signed: what it holds is input like any other.
    if not isinstance(microseconds, int) or not isinstance(verifier_key, str):
        raise Problem(Reason.PAGE_TOKEN_INVALID, "page_token was not made by this list")
    try:
        return _EPOCH + microseconds * _MICROSECOND, verifier_key
    except OverflowError:
        raise Problem(Reason.PAGE_TOKEN_INVALID, "page_token was not made by this list") from None
