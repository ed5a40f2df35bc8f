"""What is sent to a provider and what comes back, as adapters see it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from mesh.clock import utc_now
from mesh.provider.errors import BadCredentials, ProviderError, UnexpectedResponse

_SERVER_FAULT = 500
_GATEWAY_FAULTS = frozenset({502, 503, 504})
_RETRY_AFTER_MAX_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Operation:
    """What a call does, as far as sending it again is concerned.

    Attributes:
        name: for logs, metrics and traces, such as "collect".
        writes: whether it may change something at the provider.
        resend_safe: whether the same request again moves nothing twice because it carries an idempotency key, and
            its answer tells about the first. Then a reset or a server fault is retried with the same key; a time-out
            is not, since the time is better used by asking.
    """

    name: str
    writes: bool
    resend_safe: bool = False


@dataclass(frozen=True, slots=True)
class ProviderResponse:
    """An answer, whatever it says."""

    provider: str
    operation: Operation
    status_code: int
    headers: httpx.Headers
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return httpx.codes.is_success(self.status_code)

    @property
    def is_server_fault(self) -> bool:
        """Whether the provider is unwell. A 500 with a JSON object can be a business answer, so it is not counted."""
        if self.status_code in _GATEWAY_FAULTS:
            return True
        return self.status_code >= _SERVER_FAULT and self.json_object_or_none() is None

    def json_object(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises:
            UnexpectedResponse: it is none.
        """
        found = self.json_object_or_none()
        if found is None:
            raise self.unexpected("is not a JSON object")
        return found

    def json_object_or_none(self) -> dict[str, Any] | None:
        """The body as a JSON object, or None when it is none."""
        try:
            # Amounts must not pass through a float.
            found = json.loads(self.body, parse_float=str)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def unexpected(self, problem: str) -> UnexpectedResponse:
        """The error for an answer that is not in the provider's documentation."""
        return UnexpectedResponse(f"{self.provider} {self.operation.name}: answer {self.status_code} {problem}")

    def refusal(self, problem: str = "was not understood") -> ProviderError:
        """The error for an answer that is neither success nor a business answer: 401 and 403 are BadCredentials."""
        if self.status_code in {401, 403}:
            return BadCredentials(f"{self.provider} {self.operation.name}: answer {self.status_code}")
        return self.unexpected(problem)


def retry_after_seconds(headers: httpx.Headers, default: float = 1.0) -> float:
    """Seconds that Retry-After asks for: a number, or a date (RFC 9110 section 10.2.3); at least zero."""
    text = headers.get("retry-after", "").strip()
    seconds = default
    if text.isdigit():
        seconds = float(text[:6])
    elif text:
        try:
            seconds = (parsedate_to_datetime(text) - utc_now()).total_seconds()
        except (ValueError, TypeError):
            seconds = default
    return min(max(0.0, seconds), _RETRY_AFTER_MAX_SECONDS)
