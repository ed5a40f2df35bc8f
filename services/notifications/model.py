"""Messages, their states and legal moves, and what is known about payments and connections. No I/O."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime

from mesh.money import Money


class MessageState(enum.StrEnum):
    """Where a message is."""

    QUEUED = "queued"
    # Saved before the hand-over: whoever finds it so without being at work on it must ask whether it was taken.
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"


LEGAL_MOVES: dict[MessageState, frozenset[MessageState]] = {
    MessageState.QUEUED: frozenset({MessageState.SENDING, MessageState.FAILED}),
    # Back to QUEUED only when it is proven that nobody took it.
    MessageState.SENDING: frozenset({MessageState.SENT, MessageState.FAILED, MessageState.QUEUED}),
    MessageState.SENT: frozenset(),
    MessageState.FAILED: frozenset(),
}
"""From each state, the states that it can move to."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a recipient reads. The subject is one line; html is a whole document."""

    subject: str
    text: str
    html: str


@dataclass(frozen=True, slots=True)
class MessageDraft:
    """A message to be queued.

    Attributes:
        cause: what makes it be; a tenant has one message for a cause, however often it is asked for.
        locale: language that the content is in, a BCP 47 tag.
        source_id: event or resource that caused it, or empty.
    """

    message_id: str
    message_key: str
    tenant_id: str
    cause: str
    template: str
    locale: str
    recipient: str
    content: Content
    source_id: str

    def __repr__(self) -> str:
        # The recipient and the content must not reach a log through a debug print.
        return f"MessageDraft({self.message_id}, {self.template})"


@dataclass(frozen=True, slots=True)
class Message:
    """One message to one recipient.

    Attributes:
        message_key: how providers know it, for good: an e-mail's Message-ID without the angle brackets.
        provider, connection_id: what carries it; empty before the first try.
        provider_reference: the provider's id of it, once it took it.
        attempts: times that it was handed over, or that this was tried.
        failure: why it was refused, or why the last try failed; holds nothing personal.
        send_time: when the last try began.
    """

    message_id: str
    message_key: str
    tenant_id: str
    state: MessageState
    template: str
    locale: str
    recipient: str
    content: Content
    source_id: str
    provider: str
    connection_id: str
    provider_reference: str
    attempts: int
    failure: str
    send_time: datetime | None
    create_time: datetime
    update_time: datetime

    def __repr__(self) -> str:
        # The recipient and the content must not reach a log through a debug print.
        return f"Message({self.message_id}, {self.state}, {self.attempts} attempts)"

    def was_made_from(self, draft: MessageDraft) -> bool:
        """Whether the same request made this message."""
        return (
            self.template == draft.template
            and self.locale == draft.locale
            and self.recipient == draft.recipient
            and self.content == draft.content
            and self.source_id == draft.source_id
        )


@dataclass(frozen=True, slots=True)
class ConnectionSummary:
    """A connection that could carry messages."""

    connection_id: str
    provider: str


@dataclass(frozen=True, slots=True)
class PaidPayment:
    """What a receipt says about a payment.

    Attributes:
        amount: what was taken.
        payer_email: empty when the payer gave none.
        method: how it was paid, for people.
    """

    payment_id: str
    amount: Money
    payer_email: str
    payer_name: str
    description: str
    merchant_reference: str
    method: str

    def __repr__(self) -> str:
        # The payer must not reach a log through a debug print.
        return f"PaidPayment({self.payment_id}, {self.amount})"


def next_connection(candidates: list[ConnectionSummary], message: Message) -> ConnectionSummary | None:
    """The connection for the next try: the oldest at first, and after a try that sent nothing the one after it."""
    if not candidates:
        return None
    used = [index for index, candidate in enumerate(candidates) if candidate.connection_id == message.connection_id]
    return candidates[(used[0] + 1) % len(candidates)] if used else candidates[0]


def pause_seconds(attempt: int, first_seconds: float, longest_seconds: float) -> float:
    """Pause before the try after try number `attempt`, doubling from the first to the longest."""
    return min(first_seconds * 2.0 ** min(max(attempt - 1, 0), 30), longest_seconds)
