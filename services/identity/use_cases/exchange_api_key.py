"""Turns an API key into an access token, for the gateway."""

from __future__ import annotations

from mesh.clock import utc_now
from mesh.database import Database
from mesh.tokens import Identity
from services.identity.model import PresentedKey, grant_scopes, token_lifetime_seconds
from services.identity.use_cases.open_api_key import open_api_key


async def exchange_api_key(
    database: Database, identity: Identity, *, api_key: str, longest_seconds: int
) -> tuple[str, int]:
    """A token with all scopes of the key, and its lifetime in seconds.

    Args:
        api_key: the whole key.
        longest_seconds: lifetime of a token, unless its key ends sooner.

    Raises:
        Problem: CREDENTIALS_INVALID.
    """
    key = await open_api_key(database, PresentedKey.from_text(api_key))
    lifetime_seconds = token_lifetime_seconds(key, utc_now(), longest_seconds)
    scopes = grant_scopes(key.scopes, "")
    return identity.access_token(key.api_key_id, key.tenant_id, scopes, lifetime_seconds), lifetime_seconds
