"""Doubts and faults about a provider. A decline is no exception but a value, the domain's Outcome.

ProviderError
|-- NotSent                 nothing reached the provider: safe to send again or elsewhere
|   `-- CircuitOpen         not even tried: the breaker of this connection is open
|-- RateLimited             the provider did nothing and says when to come back: safe to send again
|-- BadCredentials          the provider did nothing and refuses our credentials
|-- OutcomeUnknown          the provider may have acted: ask it, never send again blindly
|   `-- UnexpectedResponse  it answered with something we do not understand
`-- WebhookUnverified       a callback whose sender is not proven
"""

from __future__ import annotations


class ProviderError(Exception):
    """Something other than an answer. The message holds no credentials and no personal data."""


class NotSent(ProviderError):  # noqa: N818 - says what is known, as a caller reads it
    """Nothing reached the provider."""


class CircuitOpen(NotSent):
    """The breaker of this connection is open."""


class RateLimited(ProviderError):  # noqa: N818 - says what is known, as a caller reads it
    """The provider takes no more for now and did nothing."""

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class BadCredentials(ProviderError):  # noqa: N818 - says what is known, as a caller reads it
    """The provider refuses the credentials of the connection and did nothing."""


class OutcomeUnknown(ProviderError):  # noqa: N818 - says what is known, as a caller reads it
    """The provider may have acted."""


class UnexpectedResponse(OutcomeUnknown):
    """The provider answered with something that is not in its documentation."""


class WebhookUnverified(ProviderError):  # noqa: N818 - says what is known, as a caller reads it
    """The sender of a callback is not proven."""
