"""One dialogue with a mail server: connect, EHLO, STARTTLS, AUTH, MAIL, RCPT, DATA, and what each answer means."""

from __future__ import annotations

import re
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache

import certifi
from aiosmtplib import SMTP, SMTPAuthenticationError, SMTPException

from mesh.provider.errors import BadCredentials, NotSent, OutcomeUnknown, ProviderError, UnexpectedResponse
from services.notifications.provider import Outcome, OutcomeState
from services.notifications.providers.smtp.replies import Reply, read_refusal

_START_DATA = 354
_SUCCESS = range(200, 300)
_REFUSED_FOR_GOOD = range(500, 600)
_STEPS_BEFORE_THE_MESSAGE = frozenset({"connect", "EHLO", "STARTTLS", "AUTH"})
_LEADING_DOT = re.compile(rb"^\.", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Server:
    """Where the server is, and how the way there is kept private. `tls` is None for clear text to this machine."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    tls_at_once: bool


@dataclass(frozen=True, slots=True)
class Login:
    """Credentials of AUTH; no username for none."""

    username: str = field(repr=False)
    password: str = field(repr=False)
    access_token: str = field(repr=False)


class Session:
    """One connection for one message. Knows whether the message may have been taken.

    Args:
        server: where to.
        ehlo_name: what we call ourselves.
        seconds: longest that one step may take.
    """

    def __init__(self, server: Server, ehlo_name: str, seconds: float) -> None:
        self._server = server
        self._step = "connect"
        self._handed_over = False
        self._client = SMTP(
            hostname=server.host,
            port=server.port,
            local_hostname=ehlo_name,
            timeout=seconds,
            use_tls=server.tls_at_once,
            start_tls=False,
            tls_context=server.tls,
        )

    async def hand_over(self, login: Login, sender: str, recipient: str, content: bytes) -> Outcome:
        """Goes through the whole dialogue.

        Args:
            login: used where it has a username.
            sender, recipient: bare addresses.
            content: the message with CRLF line ends, the last line too.

        Raises:
            SMTPException, OSError, TimeoutError: see read_refusal and doubt.
            BadCredentials: the server can't be given the login.
            NotSent: it offers no TLS, or something that is no part of the protocol.
        """
        client = self._client
        await client.connect()
        self._step = "EHLO"
        await client.ehlo()
        if self._server.tls is not None and not self._server.tls_at_once:
            await self._start_tls()
        await self._authenticate(login)
        self._step = "MAIL"
        size = [f"SIZE={len(content)}"] if client.supports_extension("size") else []
        await client.mail(sender, options=size)
        self._step = "RCPT"
        await client.rcpt(recipient)
        return await self._send_data(content)

    async def _start_tls(self) -> None:
        self._step = "STARTTLS"
        if not self._client.supports_extension("starttls"):
            raise NotSent("smtp STARTTLS: the server does not offer it, and nothing is sent in the clear")
        await self._client.starttls()
        await self._client.ehlo()

    async def _authenticate(self, login: Login) -> None:
        if not login.username:
            return
        self._step = "AUTH"
        client, offered = self._client, self._client.server_auth_methods
        try:
            if login.access_token and "xoauth2" in offered:
                await client.auth_xoauth2(login.username, login.access_token)
            elif login.password and "plain" in offered:
                await client.auth_plain(login.username, login.password)
            elif login.password and "login" in offered:
                await client.auth_login(login.username, login.password)
            else:
                raise BadCredentials("smtp AUTH: the server offers no way that these credentials fit")
        except SMTPAuthenticationError as error:
            if error.code in _REFUSED_FOR_GOOD:
                raise BadCredentials(f"smtp AUTH: answer {Reply(error.code, error.message).provider_code}") from None
            raise

    async def _send_data(self, content: bytes) -> Outcome:
        # Not client.data(): whether the server asked for the content is what tells "not sent" from "unknown".
        self._step = "DATA"
        code, text = await self._client.execute_command(b"DATA")
        if code != _START_DATA:
            return self.read_refusal(Reply(code, text))
        protocol = self._client.protocol
        if protocol is None:
            raise NotSent("smtp DATA: the connection was lost")
        self._step, self._handed_over = "content", True
        protocol.write(_LEADING_DOT.sub(b"..", content) + b".\r\n")
        code, text = await protocol.read_response(self._client.timeout)
        reply = Reply(code, text)
        if code not in _SUCCESS:
            return self.read_refusal(reply)
        with suppress(SMTPException, OSError):
            # Not waited for: the message is taken, and saving that comes first.
            protocol.write(b"QUIT\r\n")
        return Outcome(OutcomeState.SENT, reply.queue_id)

    def read_refusal(self, reply: Reply) -> Outcome:
        """What a refusal means at this step of the session: FAILED when it is for good and about the message.

        Raises:
            NotSent, RateLimited, BadCredentials, UnexpectedResponse: otherwise.
        """
        try:
            outcome = read_refusal(reply, self._step)
        except UnexpectedResponse as error:
            raise (error if self._handed_over else NotSent(str(error))) from None
        if self._step in _STEPS_BEFORE_THE_MESSAGE:
            # Not this message is refused but we are, here and now.
            raise NotSent(f"smtp {self._step}: answer {reply.provider_code}")
        return outcome

    def doubt(self, kind: str) -> ProviderError:
        """The error for a session that broke off, by whether the content was on its way."""
        if self._handed_over:
            return OutcomeUnknown(f"smtp {self._step}: {kind} before the answer to the final dot")
        return NotSent(f"smtp {self._step}: {kind}")

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()


@cache
def tls_context(certificate: str) -> ssl.SSLContext:
    """What checks a server's certificate and host name.

    Args:
        certificate: PEM of a private authority, trusted alone; empty for the public ones.

    Raises:
        BadCredentials: it is no certificate.
    """
    try:
        context = ssl.create_default_context(
            cafile=None if certificate else certifi.where(), cadata=certificate or None
        )
    except (ssl.SSLError, ValueError):
        raise BadCredentials("setting ca_certificate of smtp is no certificate in PEM form") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
