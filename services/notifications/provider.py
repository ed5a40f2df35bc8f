"""The port of notifications: what a message provider can do for us.

Each capability is a small interface; an adapter inherits those that its provider has. A refusal for good is an
Outcome; a refusal for now and a doubt are exceptions of mesh.provider.errors. A provider of messages has no idempotency
key, so a doubt is resolved by asking for the message_key, which the adapter puts into every copy of a message.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass


class OutcomeState(enum.StrEnum):
    """Where the provider says a message is."""

    SENT = "sent"
    FAILED = "failed"


class FailureCode(enum.StrEnum):
    """Why a provider refuses a message for good."""

    UNKNOWN = "UNKNOWN"
    RECIPIENT_UNKNOWN = "RECIPIENT_UNKNOWN"
    RECIPIENT_MOVED = "RECIPIENT_MOVED"
    ADDRESS_INVALID = "ADDRESS_INVALID"
    DOMAIN_REFUSED = "DOMAIN_REFUSED"
    POLICY_REFUSED = "POLICY_REFUSED"
    CONTENT_REFUSED = "CONTENT_REFUSED"
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    EXPIRED = "EXPIRED"
    REQUEST_REJECTED = "REQUEST_REJECTED"


@dataclass(frozen=True, slots=True)
class ProviderFailure:
    """A refusal for good.

    Attributes:
        message: for people; holds nothing personal.
        provider_code: the provider's own code, for support; empty when it gave none.
        suppress: whether nothing should be sent to this address any more.
    """

    code: FailureCode
    message: str
    provider_code: str = ""
    suppress: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the provider says about one message.

    Attributes:
        reference: the provider's id of it; empty when it gave none.
        failure: set when the state is FAILED.
    """

    state: OutcomeState
    reference: str = ""
    failure: ProviderFailure | None = None


@dataclass(frozen=True, slots=True)
class EmailOrder:
    """One e-mail to one recipient.

    Attributes:
        message_key: unique for the message and the same for every try, "<local part>@<domain>" without angle brackets.
        recipient: the bare address.
        sender: a mailbox such as "Adom Stores <receipts@adom.example>".
        subject: one line.
    """

    message_key: str
    sender: str
    recipient: str
    subject: str
    text: str
    html: str

    def __repr__(self) -> str:
        # The recipient and the content must not reach a log through a debug print.
        return f"EmailOrder({self.message_key})"


class Finding(enum.StrEnum):
    """What asking for a message has shown."""

    TAKEN = "taken"
    # The provider knows no such message. Proves that it was not taken only once the adapter's proof_seconds are over.
    NOT_FOUND = "not_found"
    # This connection has no way to ask.
    UNANSWERABLE = "unanswerable"


@dataclass(frozen=True, slots=True)
class FoundMessage:
    """The answer to the question whether a message was taken; `reference` is the provider's id of it."""

    finding: Finding
    reference: str = ""


class Email(ABC):
    """Carries e-mail."""

    @abstractmethod
    async def send(self, order: EmailOrder) -> Outcome:
        """Hands over one e-mail. SENT means that the provider took it for delivery.

        Raises:
            NotSent, CircuitOpen: it was not handed over.
            RateLimited: it was refused for now.
            BadCredentials: we were refused.
            OutcomeUnknown: it may have been taken.
        """


class FindMessage(ABC):
    """Can be asked whether it took a message."""

    @property
    @abstractmethod
    def proof_seconds(self) -> float:
        """How long after a hand-over began NOT_FOUND proves that it was not taken, and never will be."""

    @abstractmethod
    async def find_message(self, message_key: str) -> FoundMessage:
        """Asks for a message by its key.

        Raises:
            ProviderError: no answer that can be read; ask again later.
        """


CAPABILITIES: tuple[type, ...] = (Email, FindMessage)
