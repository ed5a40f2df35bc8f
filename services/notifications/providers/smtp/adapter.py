"""E-mail through any mail server that a customer owns.

Source: RFC 5321 with STARTTLS (3207), AUTH (4954), SIZE (1870) and enhanced status codes (3463); submission as in
RFC 6409 and 8314; checked 2026-11.

base_url is smtp://host:port (587 by default; STARTTLS, or clear text to this machine only) or smtps://host:port (465 by
default; TLS from the first byte). Settings of a connection, all optional: "sender", a mailbox such as
"Adom Stores <receipts@adom.example>"; "security", "starttls" where this machine's own server must offer it too;
"ca_certificate", PEM of a private authority; "ehlo_name"; "trace_url" and "trace_delay_seconds", see below.

What surprised us:
- SMTP has no idempotency key, and can't be asked. Whether a message was taken is known only from the reply to the final
  dot; when that reply is lost, it may be at the recipient or nowhere. The Message-ID is the same for every try, so that
  a duplicate can at least be recognised.
- 552 is for good when the message is too large and for now when the mailbox is full: only the enhanced code tells.
- The text of a reply often repeats the recipient's address, so no text of a server is ever logged or passed on.

INFERRED: "trace_url" is how relays that can be asked (message trace, delivery logs) are asked: GET
{trace_url}?message_id={key} with a bearer token answers {"messages": [{"message_id": key, "reference": id, "status":
"accepted"}]}, an empty list when there is none; a status is one of TAKEN. A trace may lag: "trace_delay_seconds" says
by how much at most. INFERRED: which refusals suppress an address. UNVERIFIED: XOAUTH2 against real servers.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import policy
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from typing import ClassVar
from urllib.parse import urlsplit

import httpx
from aiosmtplib import SMTPException, SMTPResponseException
from opentelemetry import trace

from mesh.clock import utc_now
from mesh.context import remaining_seconds
from mesh.logs import get_logger
from mesh.provider.adapter import Adapter, AmountFormat
from mesh.provider.auth import BearerAuth
from mesh.provider.connection import Connection, Environment
from mesh.provider.errors import (
    BadCredentials,
    NotSent,
    ProviderError,
    RateLimited,
)
from mesh.provider.http import Operation, ProviderClient
from mesh.provider.metrics import IN_FLIGHT, SECONDS, TRIES
from services.notifications.provider import (
    Email,
    EmailOrder,
    FailureCode,
    Finding,
    FindMessage,
    FoundMessage,
    Outcome,
    OutcomeState,
    ProviderFailure,
)
from services.notifications.providers.smtp.replies import Reply
from services.notifications.providers.smtp.session import Login, Server, Session, tls_context

FIND_MESSAGE = Operation("find_message", writes=False)

# What a trace says of a message that the server took, whatever became of it later.
TAKEN = frozenset({"accepted", "delivered", "deferred", "bounced"})

_OUTCOMES: dict[type[ProviderError], str] = {
    NotSent: "not_sent",
    RateLimited: "rate_limited",
    BadCredentials: "bad_credentials",
}
_PORTS = {"smtp": 587, "smtps": 465}
# Kept back of the time that the caller has left, for saving what came out.
_RESERVE_SECONDS = 1.0
_TIMEOUT_MAX_SECONDS = 25.0
_TRACE_DELAY_SECONDS = 60.0
_SETTING_MAX_SECONDS = 86_400.0
# 7-bit encodings only, so that no extension of the server is needed; CRLF line ends; a header of two lines is refused.
_POLICY = policy.SMTP.clone(cte_type="7bit")

_LINE_BREAK = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# What the library raises for an address or header that can't be written; some of it stumbles rather than refuses.
_UNWRITABLE = (ValueError, IndexError, MessageError)

_log = get_logger()
_tracer = trace.get_tracer("kente.provider.smtp")


@dataclass(frozen=True, slots=True)
class SmtpCredentials:
    """What the server asks for; nothing for a relay that knows us by our address."""

    username: str = field(default="", repr=False, metadata={"description": "User of AUTH, mostly the mail address."})
    password: str = field(default="", repr=False, metadata={"description": "Password, or app password, of the user."})
    access_token: str = field(
        default="", repr=False, metadata={"description": "OAuth2 token for AUTH XOAUTH2, instead of a password."}
    )
    trace_token: str = field(
        default="", repr=False, metadata={"description": "Bearer token of the message trace at trace_url."}
    )


class Smtp(Adapter, Email, FindMessage):
    """E-mail through a mail server."""

    slug = "smtp"
    display_name = "SMTP mail server"
    countries = frozenset[str]()
    currencies = frozenset[str]()
    base_urls: ClassVar = {
        Environment.SANDBOX: "smtp://127.0.0.1:7425",
        # Every production connection names its own server in base_url.
        Environment.PRODUCTION: "smtp://localhost:587",
    }
    amount_format = AmountFormat.NONE
    Credentials = SmtpCredentials
    timeout_seconds = 20.0
    sandbox_credentials: ClassVar = {"username": "sandbox@kente.example", "password": "sandbox-password"}
    sandbox_settings: ClassVar = {
        "sender": "Kente sandbox <receipts@sandbox.kente.example>",
        "trace_url": "{sandbox_url}/smtp/trace",
        "trace_delay_seconds": "1",
        "timeout_seconds": "5",
    }

    def __init__(self, connection: Connection, http: ProviderClient) -> None:
        super().__init__(connection, http)
        self._server = _read_server(self.base_url, connection)
        self._login = Login(self.credentials.username, self.credentials.password, self.credentials.access_token)
        self._ehlo_name = connection.settings.get("ehlo_name", "")
        self._seconds = min(_read_seconds(connection, "timeout_seconds", self.timeout_seconds), _TIMEOUT_MAX_SECONDS)
        self._trace_url = _read_trace_url(connection)
        self._trace_delay_seconds = _read_seconds(connection, "trace_delay_seconds", _TRACE_DELAY_SECONDS)

    async def send(self, order: EmailOrder) -> Outcome:
        """Hands over one e-mail in a session of its own."""
        try:
            sender, content = _sender_address(order), compose(order)
        except _UNWRITABLE:
            message = "The e-mail can't be written: an address or a header is not valid."
            return Outcome(OutcomeState.FAILED, failure=ProviderFailure(FailureCode.REQUEST_REJECTED, message))
        seconds = min(self._seconds, remaining_seconds(self._seconds + _RESERVE_SECONDS) - _RESERVE_SECONDS)
        if seconds <= 0:
            raise NotSent("smtp send: no time is left for it")
        session = Session(self._server, self._ehlo_name or sender.rpartition("@")[2], seconds)
        with self._observed() as note:
            try:
                async with asyncio.timeout(seconds):
                    outcome = await session.hand_over(self._login, sender, order.recipient, content)
            except SMTPResponseException as error:
                outcome = session.read_refusal(Reply(int(error.code), str(error.message)))
            except (SMTPException, OSError, EOFError, TimeoutError) as error:
                # Texts of these errors can hold the server's words: only their kind is passed on.
                raise session.doubt(type(error).__name__) from None
            finally:
                session.close()
            note(outcome.failure.provider_code if outcome.failure else "sent")
        return outcome

    @property
    def proof_seconds(self) -> float:
        """Our own time limit, after which the server can get no more of it, and the delay of the trace."""
        return self._seconds + self._trace_delay_seconds

    async def find_message(self, message_key: str) -> FoundMessage:
        """Asks the message trace."""
        if not self._trace_url:
            return FoundMessage(Finding.UNANSWERABLE)
        token = self.credentials.trace_token
        response = await self.http.send(
            FIND_MESSAGE,
            "GET",
            self._trace_url,
            params={"message_id": message_key},
            auth=BearerAuth(token) if token else None,
        )
        messages = response.json_object().get("messages") if response.status_code == httpx.codes.OK else None
        if not isinstance(messages, list):
            raise response.refusal()
        for message in messages:
            # A trace that ignores the question must not pass for an answer.
            if not isinstance(message, dict) or message.get("message_id") != message_key:
                raise response.unexpected("is about another message")
            if message.get("status") not in TAKEN:
                raise response.unexpected("has a status that is not known")
            return FoundMessage(Finding.TAKEN, str(message.get("reference") or ""))
        return FoundMessage(Finding.NOT_FOUND)

    @contextmanager
    def _observed(self) -> Iterator[Callable[[str], None]]:
        """Counts, times, logs and traces one try; the caller notes how the server answered."""
        outcome, start = "canceled", time.monotonic()

        def note(answer: str) -> None:
            nonlocal outcome
            outcome = "answered_2xx" if answer == "sent" else "answered_5xx"
            span.set_attribute("smtp.answer", answer)

        with (
            _tracer.start_as_current_span("smtp send", kind=trace.SpanKind.CLIENT, record_exception=False) as span,
            IN_FLIGHT.labels(self.slug).track_inprogress(),
        ):
            problem = None
            try:
                yield note
            except ProviderError as error:
                outcome, problem = _OUTCOMES.get(type(error), "unknown"), str(error)
                raise
            finally:
                seconds = time.monotonic() - start
                TRIES.labels(self.slug, "send", outcome).inc()
                SECONDS.labels(self.slug, "send").observe(seconds)
                (_log.debug if outcome == "answered_2xx" else _log.info)(
                    "provider_called",
                    provider=self.slug,
                    connection_id=self.connection.connection_id,
                    operation="send",
                    outcome=outcome,
                    seconds=round(seconds, 4),
                    problem=problem,
                )


def _sender_address(order: EmailOrder) -> str:
    _, address = parseaddr(order.sender)
    if "@" not in address:
        raise ValueError("the sender has no address")
    return address


def compose(order: EmailOrder) -> bytes:
    """The message as it goes over the wire, before dots are doubled.

    Raises:
        ValueError, IndexError, MessageError: a header or an address can't be written.
    """
    if _LINE_BREAK.search(f"{order.message_key}{order.sender}{order.recipient}{order.subject}"):
        # The library lets some of them pass, and what follows would be read as part of the body.
        raise ValueError("a header has a control character")
    name, address = parseaddr(order.sender)
    message = EmailMessage(_POLICY)
    message["From"] = Address(name, addr_spec=address)
    message["To"] = Address(addr_spec=order.recipient)
    message["Subject"] = order.subject
    message["Date"] = format_datetime(utc_now())
    message["Message-ID"] = f"<{order.message_key}>"
    # No holiday notes in answer (RFC 3834).
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(order.text)
    if order.html:
        message.add_alternative(order.html, subtype="html")
    order.recipient.encode("ascii")
    # No line ends in CR or LF alone: servers differ on whether such a line can hold the final dot.
    return b"".join(line + b"\r\n" for line in message.as_bytes().splitlines())


def _read_server(base_url: str, connection: Connection) -> Server:
    try:
        url = urlsplit(base_url)
        port = url.port
    except ValueError:
        raise BadCredentials("base_url of smtp is not an address") from None
    if url.scheme not in _PORTS or not url.hostname:
        raise BadCredentials("base_url of smtp is not smtp://host:port or smtps://host:port")
    security = connection.settings.get("security", "")
    if security not in {"", "starttls"}:
        raise BadCredentials('setting security of smtp is not "starttls"')
    in_clear = url.scheme == "smtp" and not security and _is_this_machine(url.hostname)
    certificate = connection.settings.get("ca_certificate", "")
    return Server(
        url.hostname,
        port or _PORTS[url.scheme],
        None if in_clear else tls_context(certificate),
        url.scheme == "smtps",
    )


def _read_trace_url(connection: Connection) -> str:
    text = connection.settings.get("trace_url", "")
    try:
        url = urlsplit(text)
        host = url.hostname or ""
    except ValueError:
        raise BadCredentials("setting trace_url of smtp is not an address") from None
    if text and not (host and (url.scheme == "https" or (url.scheme == "http" and _is_this_machine(host)))):
        raise BadCredentials("setting trace_url of smtp is not https://, or http:// to this machine")
    return text


def _read_seconds(connection: Connection, name: str, default: float) -> float:
    text = connection.settings.get(name, "")
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    # Also false for "nan".
    if not 0.0 <= seconds <= _SETTING_MAX_SECONDS:
        raise BadCredentials(f"setting {name} of smtp is not a number of seconds from 0 to {_SETTING_MAX_SECONDS:g}")
    return seconds


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
