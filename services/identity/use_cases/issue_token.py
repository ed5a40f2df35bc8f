"""Issues an access token to a client (RFC 6749, section 4.4)."""

from __future__ import annotations

from dataclasses import dataclass

from mesh.clock import utc_now
from mesh.database import Database
from mesh.tokens import Identity
from services.identity.model import PresentedKey, credentials_invalid, grant_scopes, token_lifetime_seconds
from services.identity.use_cases.open_api_key import open_api_key


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token for a client.

    Attributes:
        access_token: signed JWT.
        lifetime_seconds: from now on.
        scopes: as granted, sorted.
    """

    access_token: str
    lifetime_seconds: int
    scopes: tuple[str, ...]

    def __repr__(self) -> str:
        # The token must not reach a log through a debug print.
        return f"IssuedToken({self.lifetime_seconds} s)"


async def issue_token(
    database: Database, identity: Identity, *, client_id: str, client_secret: str, scope: str, longest_seconds: int
) -> IssuedToken:
    """A token with the scopes that a client asks for.

    Args:
        client_id: id of an API key.
        client_secret: the whole API key.
        scope: scopes wanted, divided by blanks; all of the key's when empty.
        longest_seconds: lifetime of a token, unless its key ends sooner.

    Raises:
        Problem: CREDENTIALS_INVALID; SCOPE_MISSING, the key lacks a scope that is asked for.
    """
    key = await open_api_key(database, PresentedKey.from_text(client_secret))
    if key.api_key_id != client_id:
        raise credentials_invalid()
    scopes = grant_scopes(key.scopes, scope)
    lifetime_seconds = token_lifetime_seconds(key, utc_now(), longest_seconds)
    token = identity.access_token(key.api_key_id, key.tenant_id, scopes, lifetime_seconds)
    return IssuedToken(token, lifetime_seconds, scopes)
