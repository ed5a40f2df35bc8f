"""Who calls: an API key, which is exchanged for an access token, or an access token as it is.

The gateway believes nobody: it passes a token on, and the service verifies it. It only spares the services from
seeing API keys.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Mapping
from typing import Any

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from gateway.contracts import Rpc
from gateway.remembered import Remembered
from gateway.settings import GatewaySettings
from gateway.upstream import Deadline, Upstream
from mesh.errors import Problem, Reason
from mesh.settings import MeshSettings

API_KEY_PREFIX = "kente_"

_API_KEY = re.compile(r"kente_[\x21-\x7e]{1,194}")
_JWT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_TOKEN_MAX_LENGTH = 8192
_EXCHANGE_SECONDS = 10.0
# A token is given up this long before it ends, so that it does not end on its way to a service.
_MARGIN_SECONDS = 30.0
_MARGIN_SHARE = 0.2


class Authenticator:
    """Finds the access token of a request."""

    def __init__(
        self, exchange: Rpc, upstream: Upstream, settings: GatewaySettings, mesh_settings: MeshSettings
    ) -> None:
        self._exchange = exchange
        self._upstream = upstream
        self._tokens: Remembered[str] = Remembered([Reason.CREDENTIALS_INVALID], settings.refusal_cache_seconds)
        # Checking a key costs identity a slow hash: a flood of unknown keys must not starve the known ones' renewals
        # of more than these.
        self._turns = asyncio.Semaphore(settings.key_exchanges_at_once)
        # Counted by each gateway for itself: this guards the work that refusals cost, and needs no other server for it.
        self._counter = MovingWindowRateLimiter(MemoryStorage())
        self._refusals = RateLimitItemPerMinute(mesh_settings.credential_rate_per_minute)

    async def access_token(self, headers: Mapping[str, str], client_address: str, deadline: Deadline) -> str:
        """The access token to send on.

        Args:
            headers: of the request, names in lower case.
            client_address: where it came from; an address that had many keys refused is not listened to for a while.
            deadline: when the caller gives up.

        Raises:
            Problem: CREDENTIALS_MISSING, CREDENTIALS_INVALID, RATE_LIMITED, or why identity can't be asked.
        """
        credential = credential_of(headers)
        if not credential.startswith(API_KEY_PREFIX):
            return credential
        try:
            async with asyncio.timeout(deadline.remaining_seconds()):
                return await self._tokens.get(_key(credential), lambda: self._exchange_key(credential, client_address))
        except TimeoutError:
            raise Problem(Reason.DEADLINE_PASSED, "the deadline passed while the API key was checked") from None

    async def forget(self, headers: Mapping[str, str]) -> None:
        """Drops the token of an API key, after a service refused it."""
        credential = credential_of(headers)
        if credential.startswith(API_KEY_PREFIX):
            await self._tokens.forget(_key(credential))

    async def _exchange_key(self, api_key: str, client_address: str) -> tuple[str, float]:
        counted = (self._refusals, "refused_api_keys", client_address)
        if not await self._counter.test(*counted):
            window = await self._counter.get_window_stats(*counted)
            retry_after_seconds = max(1.0, window.reset_time - time.time())
            detail = "too many API keys from this address were refused"
            raise Problem(Reason.RATE_LIMITED, detail, retry_after_seconds=retry_after_seconds)
        deadline = Deadline.after(_EXCHANGE_SECONDS)
        try:
            async with self._turns:
                answer: Any = await self._upstream.call_own(self._exchange, {"api_key": api_key}, deadline)
        except Problem as problem:
            if problem.reason is Reason.CREDENTIALS_INVALID:
                await self._counter.hit(*counted)
            raise
        lifetime = float(answer.expires_in_seconds)
        return answer.access_token, lifetime - min(_MARGIN_SECONDS, lifetime * _MARGIN_SHARE)


def credential_of(headers: Mapping[str, str]) -> str:
    """The API key or access token that a request carries.

    Raises:
        Problem: CREDENTIALS_MISSING, or CREDENTIALS_INVALID for what can be neither.
    """
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    bearer, api_key = bearer.strip(), headers.get("x-api-key", "").strip()
    if scheme and scheme.lower() != "bearer":
        raise Problem(Reason.CREDENTIALS_MISSING, "the Authorization header must be of the scheme Bearer")
    if bearer and api_key and bearer != api_key:
        raise Problem(Reason.CREDENTIALS_INVALID, "Authorization and X-Api-Key hold different credentials: send one")
    credential = bearer or api_key
    if not credential:
        raise Problem(Reason.CREDENTIALS_MISSING)
    if _API_KEY.fullmatch(credential):
        return credential
    if not api_key and len(credential) <= _TOKEN_MAX_LENGTH and _JWT.fullmatch(credential):
        return credential
    raise Problem(Reason.CREDENTIALS_INVALID, "the credential is neither an API key nor an access token")


def _key(api_key: str) -> str:
    return hashlib.sha256(api_key.encode()).hexdigest()
