"""Ways to prove who we are to a provider, each an httpx.Auth."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Generator

import httpx

from mesh.provider.errors import BadCredentials, NotSent, RateLimited

# A token is renewed this long before it ends, so that it can't end on its way.
_MARGIN_SECONDS = 60.0
_DEFAULT_LIFETIME_SECONDS = 300.0


class BearerAuth(httpx.Auth):
    """`Authorization: Bearer <token>` with a token that does not change."""

    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Adds the header."""
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


class BasicAuth(httpx.BasicAuth):
    """`Authorization: Basic` (RFC 7617), in UTF-8."""


class ApiKeyAuth(httpx.Auth):
    """A key in a header of the provider's own name."""

    def __init__(self, header: str, key: str) -> None:
        self._header = header
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Adds the header."""
        request.headers[self._header] = self._key
        yield request


class SignedAuth(httpx.Auth):
    """Headers computed from the whole request, such as an HMAC of its body.

    Args:
        sign: gives the headers to add for a request whose body is read.
    """

    requires_request_body = True

    def __init__(self, sign: Callable[[httpx.Request], dict[str, str]]) -> None:
        self._sign = sign

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Adds the headers."""
        request.headers.update(self._sign(request))
        yield request


class TokenAuth(httpx.Auth, ABC):
    """A bearer token that is fetched, kept until shortly before its end, and fetched once however many ask for it.

    A 401 makes it fetch a new token and send the request once more: the provider did nothing with the first.
    """

    def __init__(self) -> None:
        self._token = ""
        self._end_monotonic = 0.0
        self._fetching = asyncio.Lock()

    @abstractmethod
    def build_token_request(self) -> httpx.Request:
        """The request that asks for a token."""

    def read_token(self, response: httpx.Response) -> tuple[str, float]:
        """The token and its lifetime in seconds, from a 200 answer. Standard OAuth2 (RFC 6749 section 5.1)."""
        try:
            answer = response.json()
            return str(answer["access_token"]), float(answer.get("expires_in") or _DEFAULT_LIFETIME_SECONDS)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise NotSent("the token endpoint answered with something that is no token") from None

    def sync_auth_flow(self, _request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Refused: adapters are asynchronous."""
        raise RuntimeError("use an asynchronous client")

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Adds the token, fetching it first where needed."""
        if self._is_stale():
            async with self._fetching:
                # Another call may have fetched it while this one waited.
                if self._is_stale():
                    await self._keep((yield self.build_token_request()))
        used = self._token
        request.headers["Authorization"] = f"Bearer {used}"
        response = yield request
        if response.status_code != httpx.codes.UNAUTHORIZED:
            return
        async with self._fetching:
            if self._token == used:
                await self._keep((yield self.build_token_request()))
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request

    def _is_stale(self) -> bool:
        return time.monotonic() >= self._end_monotonic

    async def _keep(self, response: httpx.Response) -> None:
        """Keeps the token of an answer.

        Raises:
            BadCredentials: our credentials were refused.
            RateLimited: too many tokens were asked for.
            NotSent: no token came, so that the request itself was never sent.
        """
        status = response.status_code
        if status in {400, 401, 403}:
            raise BadCredentials(f"the token endpoint answered {status}")
        if status == httpx.codes.TOO_MANY_REQUESTS:
            raise RateLimited("the token endpoint takes no more requests for now", 1.0)
        if status not in {200, 201}:
            raise NotSent(f"the token endpoint answered {status}")
        await response.aread()
        self._token, lifetime_seconds = self.read_token(response)
        # A lifetime shorter than the margin is used to its half.
        self._end_monotonic = time.monotonic() + max(lifetime_seconds - _MARGIN_SECONDS, lifetime_seconds / 2)


class ClientCredentialsAuth(TokenAuth):
    """OAuth2 client credentials (RFC 6749 section 4.4): the client id and secret as Basic, the grant as a form."""

    def __init__(self, token_url: str, client_id: str, client_secret: str, scope: str = "") -> None:
        super().__init__()
        self._token_url = token_url
        self._basic = httpx.BasicAuth(client_id, client_secret)
        self._scope = scope

    def build_token_request(self) -> httpx.Request:
        """The request that asks for a token."""
        form = {"grant_type": "client_credentials"}
        if self._scope:
            form["scope"] = self._scope
        return next(self._basic.auth_flow(httpx.Request("POST", self._token_url, data=form)))
