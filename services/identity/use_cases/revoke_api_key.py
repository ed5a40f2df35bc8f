"""Revokes an API key."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import Message

from mesh import outbox
from mesh.clock import utc_now
from mesh.database import Database
from mesh.errors import Problem, Reason
from services.identity import repository
from services.identity.model import ApiKey


async def revoke_api_key(
    database: Database, *, tenant_id: str, api_key_id: str, describe: Callable[[ApiKey], Message]
) -> ApiKey:
    """Revokes a key for ever. One that is revoked already is returned as it is.

    Args:
        describe: gives the key as its event carries it.

    Raises:
        Problem: RESOURCE_NOT_FOUND.
    """
    async with database.transaction(tenant_id) as connection:
        revoked = await repository.revoke_api_key(connection, api_key_id, utc_now())
        if revoked:
            event = outbox.Event("identity.api_key.revoked", tenant_id, api_key_id, describe(revoked))
            await outbox.add(connection, event)
            return revoked
        key = await repository.find_api_key(connection, api_key_id)
    if key is None:
        raise Problem(Reason.RESOURCE_NOT_FOUND, f"API key {api_key_id} does not exist", api_key_id=api_key_id)
    return key
