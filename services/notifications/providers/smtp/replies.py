"""What the replies of a mail server mean: three digits (RFC 5321) and, mostly, an enhanced status code (RFC 3463).

Only the codes are read. The text after them is for people and often repeats the recipient's address, so it never
leaves this file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mesh.provider.errors import BadCredentials, RateLimited, UnexpectedResponse
from services.notifications.provider import FailureCode, Outcome, OutcomeState, ProviderFailure

_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?=\s|$)")
# Postfix, Exim, Exchange and others say the id in their queue in one of these ways.
_QUEUE_ID = re.compile(
    r"(?:queued as|OK id=|InternalId=|queued mail for delivery,? id)\s*<?([\w.@+-]{1,128})", re.IGNORECASE
)
_AUTHENTICATION_REPLIES = frozenset({530, 534, 535, 538})
_MAILBOX_FULL = "5.2.2"
_WAIT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply. `text` may be of several lines and is not to be shown."""

    code: int
    text: str

    def __repr__(self) -> str:
        return f"Reply({self.provider_code})"

    @property
    def enhanced_code(self) -> str:
        """The enhanced status code, such as "5.1.1"; empty when there is none or it contradicts the three digits."""
        found = _ENHANCED.match(self.text)
        return found[1] if found and found[1][0] == str(self.code)[0] else ""

    @property
    def provider_code(self) -> str:
        """Both codes, such as "550 5.1.1"."""
        return f"{self.code} {self.enhanced_code}".strip()

    @property
    def queue_id(self) -> str:
        """The server's id of an accepted message; empty when it says none."""
        found = _QUEUE_ID.search(self.text)
        return found[1] if found else ""


_Failure = tuple[FailureCode, bool, str]

_NO_MAILBOX: _Failure = (FailureCode.RECIPIENT_UNKNOWN, True, "The address does not exist.")
_NO_DOMAIN: _Failure = (FailureCode.DOMAIN_REFUSED, True, "The domain of the address takes no mail.")
_MOVED: _Failure = (FailureCode.RECIPIENT_MOVED, False, "The mailbox has moved.")
_BAD_ADDRESS: _Failure = (FailureCode.ADDRESS_INVALID, False, "The address is not valid.")
_BAD_SENDER: _Failure = (FailureCode.REQUEST_REJECTED, False, "The server refuses the sender's address.")
_TOO_LARGE: _Failure = (FailureCode.MESSAGE_TOO_LARGE, False, "The message is too large.")
_EXPIRED: _Failure = (FailureCode.EXPIRED, False, "The message could not be delivered in time.")
_NO_ROUTE: _Failure = (FailureCode.DOMAIN_REFUSED, False, "The server knows no way to the address.")
_COMMAND: _Failure = (FailureCode.REQUEST_REJECTED, False, "The server refuses the request.")
_CONTENT: _Failure = (FailureCode.CONTENT_REFUSED, False, "The server refuses the content.")
_POLICY: _Failure = (FailureCode.POLICY_REFUSED, False, "The server refuses the message by its policy.")
_UNKNOWN: _Failure = (FailureCode.UNKNOWN, False, "The server refuses the message.")

# By enhanced code, then by its subject (the first two numbers), then by the three digits. "True" suppresses.
FAILURES_BY_ENHANCED_CODE: dict[str, _Failure] = {
    "5.1.1": _NO_MAILBOX,
    "5.1.2": _NO_DOMAIN,
    "5.1.3": _BAD_ADDRESS,
    "5.1.6": _MOVED,
    "5.1.7": _BAD_SENDER,
    "5.1.8": _BAD_SENDER,
    "5.1.10": _NO_DOMAIN,
    "5.2.1": (FailureCode.RECIPIENT_UNKNOWN, True, "The mailbox is disabled."),
    "5.2.3": _TOO_LARGE,
    "5.3.2": _NO_DOMAIN,
    "5.3.4": _TOO_LARGE,
    "5.4.7": _EXPIRED,
}
FAILURES_BY_SUBJECT: dict[str, _Failure] = {
    "5.1": _NO_MAILBOX,
    "5.4": _NO_ROUTE,
    "5.5": _COMMAND,
    "5.6": _CONTENT,
    "5.7": _POLICY,
}
FAILURES_BY_CODE: dict[int, _Failure] = {
    500: _COMMAND,
    501: _COMMAND,
    502: _COMMAND,
    503: _COMMAND,
    504: _COMMAND,
    521: _NO_DOMAIN,
    551: _MOVED,
    552: _TOO_LARGE,
    553: _BAD_ADDRESS,
    555: _COMMAND,
    556: _NO_DOMAIN,
}


def read_refusal(reply: Reply, step: str) -> Outcome:
    """What a reply that is no success means: FAILED when it is for good.

    Args:
        reply: the reply.
        step: what was answered, such as "RCPT"; for the message of an error.

    Raises:
        RateLimited: refused for now.
        BadCredentials: we are refused.
        UnexpectedResponse: no refusal.
    """
    where = f"smtp {step}: answer {reply.provider_code}"
    if reply.code in _AUTHENTICATION_REPLIES:
        raise BadCredentials(where)
    if 400 <= reply.code < 500 or reply.enhanced_code == _MAILBOX_FULL:  # noqa: PLR2004 - the class of codes
        raise RateLimited(where, _WAIT_SECONDS)
    if not 500 <= reply.code < 600:  # noqa: PLR2004 - the class of codes
        raise UnexpectedResponse(where)
    subject = reply.enhanced_code.rpartition(".")[0]
    if step == "MAIL" and subject == "5.1":
        # An address that is refused here is the sender's.
        return _failed(_BAD_SENDER, reply)
    return _failed(
        FAILURES_BY_ENHANCED_CODE.get(reply.enhanced_code)
        or FAILURES_BY_SUBJECT.get(subject)
        or FAILURES_BY_CODE.get(reply.code)
        or _UNKNOWN,
        reply,
    )


def _failed(failure: _Failure, reply: Reply) -> Outcome:
    code, suppress, message = failure
    return Outcome(OutcomeState.FAILED, failure=ProviderFailure(code, message, reply.provider_code, suppress))
