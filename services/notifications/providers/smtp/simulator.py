"""A mail server: SMTP on a port of its own (aiosmtpd), its mailboxes and its message trace over HTTP.

GET /smtp/mailbox?recipient=ama@example.com   what was delivered there, oldest first; every delivery, duplicates too
GET /smtp/trace?message_id=<key>              INFERRED, see the adapter's header

Replies as in RFC 5321 with enhanced status codes as in RFC 3463. AUTH is offered and needs no TLS, since only this
machine can reach it; a session without it is served all the same, as a relay does for hosts it knows.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import secrets
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, ClassVar, cast

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from mesh.logs import get_logger
from mesh.sandbox.faults import Fault
from mesh.sandbox.simulator import ProviderSimulator, Stage

# aiosmtpd logs every command, with the addresses in it.
logging.getLogger("mail.log").setLevel(logging.ERROR)

_log = get_logger()

USERNAME, PASSWORD, ACCESS_TOKEN = "sandbox@kente.example", "sandbox-password", "sandbox-access-token"

_SIZE_MAX = 10 * 1024 * 1024
_OPERATION = "send"

# By the local part of the recipient, before a plus sign: refused with this reply, every time or the first time only.
_ALWAYS = {
    "unknown": "550 5.1.1 <{address}>: Recipient address rejected: User unknown",
    "disabled": "550 5.2.1 <{address}>: Mailbox disabled, not accepting messages",
    "moved": "551 5.1.6 <{address}>: User has moved, no forwarding address",
    "policy": "550 5.7.1 <{address}>: Delivery not authorized, message refused",
    "full": "452 4.2.2 <{address}>: Mailbox full",
    "overquota": "552 5.2.2 <{address}>: Mailbox full",
}
_FIRST_TIME = {
    "greylist": "450 4.7.1 <{address}>: Greylisted, try again later",
    "busy": "451 4.3.0 <{address}>: Local error in processing",
}
# Sent instead of the answer to the final dot.
_STRANGE_ANSWERS: dict[Fault | None, str] = {
    Fault.HTML_502: "<html><head><title>502 Bad Gateway</title></head></html>",
    Fault.UNKNOWN_STATUS: "399 2.0.0 Perhaps: queued as {queue_id}",
}
_CLOSING = "closing"
_DROPPED, _LOST = "dropped", "lost"


class Simulator(ProviderSimulator):
    """The mail server of the sandbox."""

    magic_values: ClassVar = {
        "unknown@…": "550 5.1.1, no such user",
        "disabled@…": "550 5.2.1, mailbox disabled",
        "moved@…": "551 5.1.6, moved",
        "policy@…": "550 5.7.1, refused by policy",
        "full@…": "452 4.2.2, mailbox full for now",
        "overquota@…": "552 5.2.2, mailbox full for now, in a code of the fifth class",
        "greylist@…": "450 4.7.1 the first time, then accepted",
        "busy@…": "451 4.3.0 the first time, then accepted",
        "closing@…": "421 4.3.2 and the connection closed the first time, then accepted",
        "dropped@…": "accepted, but the connection is reset instead of an answer to the final dot; the first time",
        "lost@…": "the connection is reset at the final dot and nothing is accepted; the first time",
        "…+anything@…": "as without the plus sign; each address has a first time of its own",
    }
    extra_operations: ClassVar = frozenset({_OPERATION})

    def __init__(self, stage: Stage, tls_context: ssl.SSLContext | None = None) -> None:
        super().__init__(stage)
        self._tls_context = tls_context
        self._server: asyncio.Server | None = None
        self.port = 0

    def routes(self) -> Sequence[BaseRoute]:
        """The mailboxes and the message trace."""
        return [
            Route("/mailbox", self.get_mailbox, methods=["GET"], name="mailbox"),
            Route("/trace", self.get_trace, methods=["GET"], name="find_message"),
        ]

    async def start(self) -> None:
        """Listens for SMTP."""
        loop = asyncio.get_running_loop()
        port = self.stage.settings.smtp_port
        try:
            self._server = await loop.create_server(self._make_protocol, self.stage.host, port)
        except OSError:
            # Said here as well: what serves the sandbox reports only that its start failed.
            detail = f"KENTE_SANDBOX_SMTP_PORT: port {port} is taken; stop what uses it, or set another"
            _log.critical("mail_server_not_started", detail=detail)
            raise SystemExit(detail) from None
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stops listening."""
        if self._server is not None:
            self._server.close()

    async def get_mailbox(self, request: Request) -> Response:
        """Deliveries to one recipient, oldest first."""
        recipient = request.query_params.get("recipient", "").lower()
        if not recipient:
            return JSONResponse({"error": "name a recipient: /smtp/mailbox?recipient=ama@example.com"}, 400)
        queue_ids = (self.shelf.get("mailbox", recipient) or {"queue_ids": []})["queue_ids"]
        return JSONResponse([self.shelf.get("delivery", queue_id) for queue_id in queue_ids])

    async def get_trace(self, request: Request) -> Response:
        """Whether a message was taken."""
        message_id = request.query_params.get("message_id", "")
        queue_ids = (self.shelf.get("trace", message_id) or {"queue_ids": []})["queue_ids"]
        status = "perhaps" if self.fault_of(request) is Fault.UNKNOWN_STATUS else "accepted"
        messages = [{"message_id": message_id, "reference": queue_id, "status": status} for queue_id in queue_ids]
        return JSONResponse({"messages": messages})

    def is_first_time(self, address: str) -> bool:
        """Whether this address was not tried before; remembers that it was."""
        if self.shelf.get("tried", address):
            return False
        self.shelf.put("tried", address, {"tried": True})
        return True

    def deliver(self, envelope: Envelope) -> str:
        """Puts a message into the mailboxes of its recipients; its id in the queue."""
        queue_id = secrets.token_hex(6).upper()
        message = message_from_bytes(envelope.original_content or b"", policy=policy.default)
        message_id = str(message["Message-ID"] or "").strip().strip("<>")
        with self.shelf.transaction():
            self.shelf.put("delivery", queue_id, _describe(message, message_id, envelope.rcpt_tos))
            self._append("trace", message_id, queue_id)
            for recipient in envelope.rcpt_tos:
                self._append("mailbox", recipient.lower(), queue_id)
            self.shelf.move(_OPERATION, message_id, "1", "message")
        return queue_id

    def _append(self, kind: str, key: str, queue_id: str) -> None:
        record = self.shelf.get(kind, key) or {"queue_ids": []}
        self.shelf.put(kind, key, {"queue_ids": [*record["queue_ids"], queue_id]})

    def _make_protocol(self) -> SMTP:
        return SMTP(
            _Handler(self),
            data_size_limit=_SIZE_MAX,
            hostname="mx.sandbox.kente.example",
            ident="ESMTP",
            tls_context=self._tls_context,
            require_starttls=self._tls_context is not None,
            auth_require_tls=self._tls_context is not None,
            authenticator=_authenticate,
        )


class _Handler:
    """What aiosmtpd asks at each command; it finds the methods by their names."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._fault: Fault | None = None

    async def handle_EHLO(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        return [*responses[:-1], "250-ENHANCEDSTATUSCODES", responses[-1]]

    async def auth_XOAUTH2(self, server: SMTP, args: list[str]) -> AuthResult:  # noqa: N802 - aiosmtpd's name
        expected = f"user={USERNAME}\x01auth=Bearer {ACCESS_TOKEN}\x01\x01".encode()
        try:
            given = base64.b64decode(args[1], validate=True) if len(args) > 1 else b""
        except binascii.Error:
            given = b""
        if given == expected:
            return AuthResult(success=True)
        # The refusal comes as a challenge, which the client answers with an empty line.
        await server.challenge_auth('{"status":"400","schemes":"Bearer"}')
        return AuthResult(success=False, handled=False)

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self._fault = self._simulator.stage.take_fault(_OPERATION)
        if self._fault is Fault.STORM_429:
            return await _close(server, "421 4.7.0 Too many messages, try again later")
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 Ok"

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        word = _magic_word(address)
        reply = _ALWAYS["unknown"] if self._fault is Fault.DECLINE else _ALWAYS.get(word)
        if word in _FIRST_TIME and self._simulator.is_first_time(address):
            reply = _FIRST_TIME[word]
        if reply:
            return reply.format(address=address)
        if word == _CLOSING and self._simulator.is_first_time(address):
            return await _close(server, "421 4.3.2 Service shutting down, closing channel")
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        simulator, fault = self._simulator, self._fault
        words = {
            _magic_word(address)
            for address in envelope.rcpt_tos
            if _magic_word(address) in {_DROPPED, _LOST} and simulator.is_first_time(address)
        }
        if _LOST in words:
            return await _abort(server)
        if fault is Fault.TIMEOUT_BEFORE:
            return await self._say_nothing(server)
        queue_id = simulator.deliver(envelope)
        if _DROPPED in words or fault is Fault.RESET_AFTER_COMMIT:
            return await _abort(server)
        if fault is Fault.TIMEOUT_AFTER_COMMIT:
            return await self._say_nothing(server)
        if fault is Fault.TRUNCATED_JSON:
            _transport(server).write(b"25")
            _transport(server).close()
            return await _wait_for_the_end()
        return _STRANGE_ANSWERS.get(fault, "250 2.0.0 Ok: queued as {queue_id}").format(queue_id=queue_id)

    async def _say_nothing(self, server: SMTP) -> str:
        await asyncio.sleep(self._simulator.stage.settings.hang_seconds)
        return await _abort(server)


async def _close(server: SMTP, reply: str) -> str:
    """Says a last word and closes the connection."""
    await server.push(reply)
    _transport(server).close()
    return await _wait_for_the_end()


async def _abort(server: SMTP) -> str:
    """Breaks the connection off without a word."""
    _transport(server).abort()
    return await _wait_for_the_end()


async def _wait_for_the_end() -> str:
    # aiosmtpd cancels what handles a connection once that is gone; an answer would go into the void.
    never: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    return await never


def _transport(server: SMTP) -> asyncio.Transport:
    return cast("asyncio.Transport", server.transport)


def _authenticate(
    _server: SMTP, _session: Session, _envelope: Envelope, mechanism: str, data: LoginPassword
) -> AuthResult:
    known = mechanism in {"PLAIN", "LOGIN"} and data == LoginPassword(USERNAME.encode(), PASSWORD.encode())
    return AuthResult(success=known, handled=False)


def _magic_word(address: str) -> str:
    return address.partition("@")[0].partition("+")[0].lower()


def _describe(message: EmailMessage, message_id: str, recipients: list[str]) -> dict[str, Any]:
    parts = {kind: message.get_body((kind,)) for kind in ("plain", "html")}
    return {
        "message_id": message_id,
        "from": str(message["From"] or ""),
        "to": recipients,
        "subject": str(message["Subject"] or ""),
        "text": parts["plain"].get_content() if parts["plain"] else "",
        "html": parts["html"].get_content() if parts["html"] else "",
        "receive_time": datetime.now(UTC).isoformat(),
    }
