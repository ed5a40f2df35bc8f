"""The HTTP client that adapters use: one place for time limits, retries, breaker, bulkhead, quota, logs and metrics.

What a caller learns from a failed call is whether the provider may have acted. That is decided by whether the request
began to be written to a connection, which httpcore's trace tells, and never by guessing from the kind of error:

    nothing was written (refused, DNS, TLS, no free connection, no token)   NotSent
    not even tried: breaker open                                            CircuitOpen
    written, then time-out, reset, or a broken answer                       OutcomeUnknown
    429                                                                     RateLimited
    any other answer                                                        returned; the adapter reads it

A call that is cancelled by its caller after the request was written propagates CancelledError. The row that the caller
saved before the call is then in doubt just as with OutcomeUnknown, and is resolved the same way: by asking.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import certifi
import httpx
import stamina
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind

from mesh.context import remaining_seconds
from mesh.logs import get_logger
from mesh.provider.connection import ClientPolicy, Connection
from mesh.provider.errors import (
    BadCredentials,
    CircuitOpen,
    NotSent,
    OutcomeUnknown,
    ProviderError,
    RateLimited,
    UnexpectedResponse,
)
from mesh.provider.exchange import Operation, ProviderResponse, retry_after_seconds
from mesh.provider.guard import ConnectionGuard, Health
from mesh.provider.masking import shape_of
from mesh.provider.metrics import IN_FLIGHT, SECONDS, TRIES

__all__ = ["Operation", "ProviderClient", "ProviderResponse"]

# httpx logs addresses, which can hold a payer's number, and httpcore logs headers.
for _noisy in ("httpx", "httpcore"):
    logging.getLogger(_noisy).setLevel(logging.WARNING)

_log = get_logger()

_tracer = trace.get_tracer("mesh.provider")

# Answers to a second try that say nothing about the first one.
_SILENT_ABOUT_EARLIER_TRY = frozenset({401, 403, 408, 409, 425})


@dataclass(frozen=True, slots=True)
class _Call:
    operation: Operation
    method: str
    url: str
    auth: httpx.Auth | None
    headers: Mapping[str, str]
    params: Mapping[str, str] | None
    json: Any
    form: Mapping[str, str] | None


class _TimedOut(OutcomeUnknown):
    """No answer in time: the provider may have acted."""


class _ServerFault(OutcomeUnknown):
    """A server fault that can be tried again; carries the answer for the case that it was the last try."""

    def __init__(self, response: ProviderResponse) -> None:
        super().__init__(f"{response.provider} {response.operation.name}: answer {response.status_code}")
        self.response = response


class ProviderClient:
    """Calls one provider for one connection.

    Args:
        connection: whom it acts for.
        timeout_seconds: one try in all; the time that the caller has left caps it.
        guard: admits calls; shared by every client of the connection.
    """

    def __init__(
        self, connection: Connection, *, timeout_seconds: float, policy: ClientPolicy, guard: ConnectionGuard
    ) -> None:
        self._provider = connection.provider
        self._connection_id = connection.connection_id
        self._timeout_seconds = timeout_seconds
        self._policy = policy
        self._guard = guard
        self._client = httpx.AsyncClient(
            verify=_tls_context(),
            # No proxy and no .netrc of the process's owner: credentials come from the connection alone.
            trust_env=False,
            follow_redirects=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=policy.concurrent_requests),
        )

    async def close(self) -> None:
        """Closes its connections."""
        await self._client.aclose()

    async def send(
        self,
        operation: Operation,
        method: str,
        url: str,
        *,
        auth: httpx.Auth | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        json: Any = None,  # noqa: ANN401 - any JSON value
        form: Mapping[str, str] | None = None,
    ) -> ProviderResponse:
        """Sends one request, and again where that can't act twice.

        Args:
            operation: what it does; decides about tries.
            method: HTTP verb.
            url: full address.
            auth: adds credentials, perhaps after asking for a token.
            headers: besides those of the body and of auth.
            params: query string.
            json: body, sent as JSON. Amounts are ints or strings, never floats.
            form: body, sent as a form.

        Raises:
            NotSent: nothing was written to the provider.
            RateLimited: it says to come back later, and there is no time for that.
            BadCredentials: it gave no token for our credentials.
            OutcomeUnknown: written, but no whole answer came.
        """
        call = _Call(operation, method, url, auth, headers or {}, params, json, form)
        doubt: OutcomeUnknown | None = None
        tries = 0

        def may_try_again(error: Exception) -> bool | float:
            return self._pause_before_next_try(operation, error, tries)

        try:
            async for attempt in stamina.retry_context(
                on=may_try_again,
                attempts=self._policy.attempts,
                timeout=None,
                wait_initial=self._policy.wait_initial_seconds,
                wait_max=self._policy.wait_max_seconds,
                wait_jitter=self._policy.wait_jitter_seconds,
            ):
                with attempt:
                    tries += 1
                    try:
                        response = await self._try(call, tries)
                    except OutcomeUnknown as error:
                        doubt = doubt or error
                        raise
        except _ServerFault as error:
            return error.response
        except (NotSent, RateLimited, BadCredentials):
            # The last try did nothing, but an earlier one may have: that is what the caller must know.
            if doubt is not None and operation.writes:
                raise doubt from None
            raise
        if doubt is not None and operation.writes and response.status_code in _SILENT_ABOUT_EARLIER_TRY:
            raise doubt
        return response

    def _pause_before_next_try(self, operation: Operation, error: Exception, tries: int) -> bool | float:
        """Whether to try again: False, True for the exponential pause, or the pause that the provider asks for."""
        if isinstance(error, CircuitOpen | BadCredentials | UnexpectedResponse):
            return False
        if isinstance(error, OutcomeUnknown) and operation.writes:
            if isinstance(error, _TimedOut) or not operation.resend_safe:
                return False
        elif not isinstance(error, ProviderError):
            return False
        if isinstance(error, RateLimited):
            return error.retry_after_seconds if error.retry_after_seconds < self._seconds_left() else False
        policy = self._policy
        longest = min(policy.wait_initial_seconds * 2.0 ** (tries - 1), policy.wait_max_seconds)
        return longest + policy.wait_jitter_seconds < self._seconds_left()

    def _seconds_left(self) -> float:
        # Outside of a call nobody waits, but a job should not be held for longer than all tries can take.
        return remaining_seconds(self._policy.attempts * (self._timeout_seconds + self._policy.wait_max_seconds))

    async def _try(self, call: _Call, number: int) -> ProviderResponse:
        """One try, counted, timed and logged."""
        operation = call.operation
        start = time.monotonic()
        outcome = "canceled"
        error: ProviderError | None = None
        response: ProviderResponse | None = None
        with IN_FLIGHT.labels(self._provider).track_inprogress():
            try:
                with _tracer.start_as_current_span(f"{self._provider} {operation.name}", kind=SpanKind.CLIENT) as span:
                    _describe(span, call, number)
                    # The address is in no span, for it can hold a payer's number; nor is a provider told our trace ids.
                    response = await self._exchange(call)
                    span.set_attribute("http.response.status_code", response.status_code)
                outcome = f"answered_{response.status_code // 100}xx"
                self._raise_if_to_be_tried_again(response)
            except ProviderError as raised:
                error = raised
                if response is None or isinstance(raised, RateLimited):
                    outcome = _OUTCOMES.get(type(raised), "unknown")
                raise
            finally:
                seconds = time.monotonic() - start
                TRIES.labels(self._provider, operation.name, outcome).inc()
                SECONDS.labels(self._provider, operation.name).observe(seconds)
                (_log.debug if outcome == "answered_2xx" else _log.info)(
                    "provider_called",
                    provider=self._provider,
                    connection_id=self._connection_id,
                    operation=operation.name,
                    outcome=outcome,
                    attempt_number=number,
                    seconds=round(seconds, 4),
                    answer_shape=shape_of(response.body) if response is not None else None,
                    problem=str(error) if error is not None else None,
                )
        return response

    def _raise_if_to_be_tried_again(self, response: ProviderResponse) -> None:
        operation = response.operation
        if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            message = f"{self._provider} {operation.name}: takes no more requests for now"
            raise RateLimited(message, retry_after_seconds(response.headers))
        advice = response.headers.get(self._policy.resend_header, "") if self._policy.resend_header else ""
        again = advice == "true" or (advice != "false" and response.is_server_fault)
        if again and (operation.resend_safe or not operation.writes):
            raise _ServerFault(response)

    async def _exchange(self, call: _Call) -> ProviderResponse:
        """Writes one request and reads its answer, within the time left.

        Raises:
            NotSent, RateLimited, BadCredentials, OutcomeUnknown: see the module.
        """
        seconds = min(self._timeout_seconds, self._seconds_left())
        if seconds <= 0:
            raise NotSent(f"{self._provider} {call.operation.name}: no time is left for it")
        written = False

        async def watch(event: str, _info: Mapping[str, Any]) -> None:
            # Everything that httpcore does with a request but connecting comes after the first byte may have left.
            nonlocal written
            if not event.startswith("connection."):
                written = True

        async with self._guard.admit(seconds) as verdict:
            try:
                async with asyncio.timeout(seconds):
                    response = await self._perform(call, seconds, watch)
            except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
                verdict.health = Health.BAD
                raise self._classified(call.operation, error, written=written) from None
            except NotSent:
                # No token could be had.
                verdict.health = Health.BAD
                raise
            if response.status_code != httpx.codes.TOO_MANY_REQUESTS:
                verdict.health = Health.BAD if response.is_server_fault else Health.GOOD
            return response

    async def _perform(self, call: _Call, seconds: float, watch: Any) -> ProviderResponse:  # noqa: ANN401 - a callback
        request = self._client.build_request(
            call.method,
            call.url,
            headers=call.headers,
            params=call.params,
            json=call.json,
            data=call.form,
            timeout=seconds,
            extensions={"trace": watch},
        )
        response = await self._client.send(request, auth=call.auth, stream=True)
        try:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > self._policy.body_bytes_max:
                    problem = f"answer is longer than {self._policy.body_bytes_max} bytes"
                    raise UnexpectedResponse(f"{self._provider} {call.operation.name}: {problem}")
        finally:
            await response.aclose()
        return ProviderResponse(self._provider, call.operation, response.status_code, response.headers, bytes(body))

    def _classified(self, operation: Operation, error: Exception, *, written: bool) -> ProviderError:
        # The message of an httpx error can hold the address: only its kind is passed on.
        what = f"{self._provider} {operation.name}: {type(error).__name__}"
        if not written:
            return NotSent(f"{what} before anything was sent")
        if isinstance(error, httpx.TimeoutException | TimeoutError):
            return _TimedOut(f"{what} while waiting for the answer")
        return OutcomeUnknown(f"{what} after the request was sent")


_OUTCOMES: dict[type[ProviderError], str] = {
    NotSent: "not_sent",
    CircuitOpen: "circuit_open",
    RateLimited: "rate_limited",
    BadCredentials: "bad_credentials",
}


def _describe(span: Span, call: _Call, number: int) -> None:
    address = urlsplit(call.url)
    span.set_attribute("http.request.method", call.method)
    span.set_attribute("server.address", address.hostname or "")
    if number > 1:
        span.set_attribute("http.request.resend_count", number - 1)


@cache
def _tls_context() -> ssl.SSLContext:
    # Reading the certificates takes tens of milliseconds: once for all clients.
    return ssl.create_default_context(cafile=certifi.where())
