"""Checks an API key. Reads only: nothing is written on the path of every call."""

from __future__ import annotations

from mesh.clock import utc_now
from mesh.database import Database
from services.identity import repository
from services.identity.model import ApiKey, PresentedKey, credentials_invalid, opens


async def open_api_key(database: Database, presented: PresentedKey) -> ApiKey:
    """The key that a caller has shown to be its own.

    Raises:
        Problem: CREDENTIALS_INVALID; the same for an unknown, wrong, revoked and expired key, after the same work.
    """
    # Only the key tells whose it is.
    async with database.system_transaction() as connection:
        stored = await repository.find_stored_key(connection, presented.api_key_id)
    if not opens(presented, stored, utc_now()) or stored is None:
        raise credentials_invalid()
    return stored.key
