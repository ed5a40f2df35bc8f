"""The SMTP adapter where the contract suite does not reach: TLS, AUTH, settings, replies, and the server's words."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mesh.ids import new_id
from mesh.provider.connection import Connection, Environment
from mesh.provider.errors import BadCredentials, NotSent, OutcomeUnknown, RateLimited, UnexpectedResponse
from mesh.provider.registry import Registry
from mesh.sandbox.faults import FaultPlan
from mesh.sandbox.settings import SandboxSettings
from mesh.sandbox.simulator import Stage
from mesh.sandbox.store import Store
from services.notifications.provider import EmailOrder, FailureCode, Finding, Outcome, OutcomeState
from services.notifications.providers.smtp.adapter import Smtp
from services.notifications.providers.smtp.replies import Reply, read_refusal
from services.notifications.providers.smtp.simulator import ACCESS_TOKEN, PASSWORD, USERNAME, Simulator
from tests.notifications.certificates import make_authority

ORDER = EmailOrder(
    "msg_1@messages.kente.example", "Adom <receipts@adom.example>", "ama@example.com", "Receipt", "text", "<p>html</p>"
)
LOGIN = {"username": USERNAME, "password": PASSWORD}


@asynccontextmanager
async def mail_server(tls_context: ssl.SSLContext | None = None) -> AsyncIterator[Simulator]:
    """The sandbox's mail server alone."""
    settings = SandboxSettings.model_validate({"smtp_port": 0})
    store = Store(":memory:")
    faults = FaultPlan(store, settings)
    stage = Stage("smtp", store.shelf("smtp"), settings, "127.0.0.1", lambda operation: faults.take("smtp", operation))
    simulator = Simulator(stage, tls_context)
    await simulator.start()
    yield simulator
    await simulator.stop()
    store.close()


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    """The providers of notifications."""
    found = Registry("notifications")
    yield found
    await found.close()


def open_smtp(registry: Registry, base_url: str, credentials: dict[str, str] | None = None, **settings: str) -> Smtp:
    """An adapter of a production connection."""
    adapter = registry.open(
        Connection(
            connection_id=new_id("con"),
            tenant_id="ten_1",
            provider="smtp",
            environment=Environment.PRODUCTION,
            base_url=base_url,
            settings={"timeout_seconds": "2"} | settings,
            credentials=credentials or {},
            callback_url="",
        )
    )
    assert isinstance(adapter, Smtp)
    return adapter


def deliveries(server: Simulator) -> int:
    """How many messages the server took."""
    return len(server.shelf.newest("delivery"))


async def test_starttls_with_a_private_authority(registry: Registry, tmp_path: Path) -> None:
    """The server's certificate is checked against the connection's authority, then we authenticate and send."""
    authority = make_authority(tmp_path)
    async with mail_server(authority.context) as server:
        url = f"smtp://127.0.0.1:{server.port}"
        adapter = open_smtp(registry, url, LOGIN, security="starttls", ca_certificate=authority.certificate)

        outcome = await adapter.send(ORDER)

        assert outcome.state is OutcomeState.SENT
        assert deliveries(server) == 1


async def test_a_certificate_that_nobody_vouches_for_stops_everything(registry: Registry, tmp_path: Path) -> None:
    """Nothing is sent, no credentials either."""
    authority = make_authority(tmp_path)
    async with mail_server(authority.context) as server:
        adapter = open_smtp(registry, f"smtp://127.0.0.1:{server.port}", LOGIN, security="starttls")

        with pytest.raises(NotSent):
            await adapter.send(ORDER)
        assert deliveries(server) == 0


async def test_a_certificate_of_another_host_stops_everything(registry: Registry, tmp_path: Path) -> None:
    """A trusted authority is not enough: the host's name must be in the certificate."""
    authority = make_authority(tmp_path, host="127.0.0.2")
    async with mail_server(authority.context) as server:
        url = f"smtp://127.0.0.1:{server.port}"
        adapter = open_smtp(registry, url, LOGIN, security="starttls", ca_certificate=authority.certificate)

        with pytest.raises(NotSent):
            await adapter.send(ORDER)
        assert deliveries(server) == 0


async def test_no_fall_back_to_clear_text(registry: Registry) -> None:
    """A server that offers no STARTTLS where it is wanted gets nothing, no credentials either."""
    async with mail_server() as server:
        adapter = open_smtp(registry, f"smtp://127.0.0.1:{server.port}", LOGIN, security="starttls")

        with pytest.raises(NotSent, match="does not offer it"):
            await adapter.send(ORDER)
        assert deliveries(server) == 0


async def test_oauth2(registry: Registry) -> None:
    """AUTH XOAUTH2 with the right token, and with a wrong one, whose refusal comes as a challenge."""
    async with mail_server() as server:
        url = f"smtp://127.0.0.1:{server.port}"

        outcome = await open_smtp(registry, url, {"username": USERNAME, "access_token": ACCESS_TOKEN}).send(ORDER)
        with pytest.raises(BadCredentials, match="535"):
            await open_smtp(registry, url, {"username": USERNAME, "access_token": "other"}).send(ORDER)

        assert outcome.state is OutcomeState.SENT
        assert deliveries(server) == 1


@pytest.mark.parametrize(
    ("base_url", "settings", "message"),
    [
        ("http://127.0.0.1:25", {}, "base_url"),
        ("smtp://", {}, "base_url"),
        ("smtp://127.0.0.1:99999", {}, "base_url"),
        ("smtp://127.0.0.1", {"security": "plain"}, "security"),
        ("smtps://127.0.0.1", {"ca_certificate": "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"}, "PEM"),
        ("smtp://127.0.0.1", {"trace_delay_seconds": "soon"}, "trace_delay_seconds"),
        ("smtp://127.0.0.1", {"trace_delay_seconds": "nan"}, "trace_delay_seconds"),
        ("smtp://127.0.0.1", {"trace_delay_seconds": "-1"}, "trace_delay_seconds"),
        ("smtp://127.0.0.1", {"trace_url": "http://mail.example.com/trace"}, "trace_url"),
        ("smtp://127.0.0.1", {"trace_url": "file:///etc/passwd"}, "trace_url"),
        ("smtp://127.0.0.1", {"trace_url": "http://[::1"}, "trace_url"),
    ],
)
def test_settings_that_do_not_fit_are_named(
    registry: Registry, base_url: str, settings: dict[str, str], message: str
) -> None:
    """Found when the connection is opened, before anything is sent anywhere."""
    with pytest.raises(BadCredentials, match=message):
        open_smtp(registry, base_url, None, **settings)


@pytest.mark.parametrize("recipient", ["ama", "ama@exämple.com", "a b@example.com", "a@b>\r\nDATA", ""])
async def test_a_recipient_that_can_not_be_written_is_a_refusal(registry: Registry, recipient: str) -> None:
    """For good, and before a connection is made."""
    order = EmailOrder("msg_1@d.example", ORDER.sender, recipient, "s", "t", "")

    outcome = await open_smtp(registry, "smtp://127.0.0.1:9").send(order)

    assert outcome.failure is not None
    assert outcome.failure.code is FailureCode.REQUEST_REJECTED


async def test_without_a_trace_nothing_can_be_asked(registry: Registry) -> None:
    """The connection says so; it does not guess."""
    found = await open_smtp(registry, "smtp://127.0.0.1:9").find_message(ORDER.message_key)

    assert found.finding is Finding.UNANSWERABLE


@asynccontextmanager
async def scripted(*replies: str, tls_context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that answers each line in turn with the next reply; "" closes the connection. Its address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number, reply in enumerate(replies):
            if number:
                line = await reader.readline()
                if replies[number - 1].startswith("354"):
                    while line not in {b".\r\n", b""}:
                        line = await reader.readline()
            if not reply:
                break
            writer.write(reply.encode() + b"\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls_context)
    async with server:
        yield f"{'smtps' if tls_context else 'smtp'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"


UNTIL_DATA = ("220 mx", "250 mx", "250 ok", "250 ok")


async def test_tls_from_the_first_byte(registry: Registry, tmp_path: Path) -> None:
    """smtps:// with a certificate that is vouched for, and with one that is not."""
    authority = make_authority(tmp_path)
    async with scripted(*UNTIL_DATA, "354 go", "250 ok", tls_context=authority.context) as url:
        trusting = open_smtp(registry, url, ca_certificate=authority.certificate)

        assert (await trusting.send(ORDER)).state is OutcomeState.SENT
        with pytest.raises(NotSent):
            await open_smtp(registry, url).send(ORDER)


@pytest.mark.parametrize(
    "replies",
    [
        ("554 5.7.1 we do not like your address",),
        ("220 mx", "502 what is EHLO"),
        ("220 mx", "250 mx", ""),
        ("220 mx", "250 mx", "hello there"),
        (*UNTIL_DATA, ""),
        (*UNTIL_DATA, "250 no, I don't want your message yet"),
        ("",),
    ],
)
async def test_what_breaks_off_before_the_content_was_not_sent(registry: Registry, replies: tuple[str, ...]) -> None:
    """The message is as it was: it can go elsewhere."""
    async with scripted(*replies) as url:
        with pytest.raises(NotSent):
            await open_smtp(registry, url).send(ORDER)


@pytest.mark.parametrize(
    "replies", [(*UNTIL_DATA, "354 go", ""), (*UNTIL_DATA, "354 go", "250"[:2]), (*UNTIL_DATA, "354 go", "354 more?")]
)
async def test_what_breaks_off_after_the_content_is_a_doubt(registry: Registry, replies: tuple[str, ...]) -> None:
    """The server may have it."""
    async with scripted(*replies) as url:
        with pytest.raises(OutcomeUnknown):
            await open_smtp(registry, url).send(ORDER)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("450 4.7.1 later", RateLimited),
        ("421 4.3.2 closing", RateLimited),
        ("552 5.2.2 full", RateLimited),
        ("552 5.3.4 too large", FailureCode.MESSAGE_TOO_LARGE),
        ("554 5.6.0 bad content", FailureCode.CONTENT_REFUSED),
        ("554 5.7.26 no DMARC", FailureCode.POLICY_REFUSED),
        ("554 no", FailureCode.UNKNOWN),
    ],
)
async def test_a_refusal_of_the_content_is_certain(
    registry: Registry, reply: str, expected: type[Exception] | FailureCode
) -> None:
    """A refusal after the final dot means that the message was not taken (RFC 5321 section 4.2.5)."""
    async with scripted(*UNTIL_DATA, "354 go", reply) as url:
        adapter = open_smtp(registry, url)
        if isinstance(expected, FailureCode):
            outcome = await adapter.send(ORDER)
            assert outcome.failure is not None
            assert outcome.failure.code is expected
        else:
            with pytest.raises(expected):
                await adapter.send(ORDER)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("250 2.0.0 Ok: queued as 4XyZ12", "4XyZ12"),
        ("250 OK id=1sAbCd-0001-Ef", "1sAbCd-0001-Ef"),
        ("250 2.6.0 <a@b> [InternalId=12345, Hostname=x] Queued mail for delivery", "12345"),
        ("250-2.0.0 first\r\n250 2.0.0 Ok: queued as AB", "AB"),
        ("250 thank you", ""),
        ("251 forwarded", ""),
    ],
)
async def test_the_queue_id_is_the_reference(registry: Registry, text: str, reference: str) -> None:
    """In the words of the common servers; none where it says none."""
    async with scripted(*UNTIL_DATA, "354 go", text) as url:
        assert await open_smtp(registry, url).send(ORDER) == Outcome(OutcomeState.SENT, reference)


@pytest.mark.parametrize(
    ("code", "text", "step", "failure", "suppress"),
    [
        (550, "5.1.1 no", "RCPT", FailureCode.RECIPIENT_UNKNOWN, True),
        (550, "5.1.2 no", "RCPT", FailureCode.DOMAIN_REFUSED, True),
        (556, "5.1.10 null MX", "RCPT", FailureCode.DOMAIN_REFUSED, True),
        (550, "5.1.1 no", "MAIL", FailureCode.REQUEST_REJECTED, False),
        (553, "5.1.8 no", "MAIL", FailureCode.REQUEST_REJECTED, False),
        (553, "5.1.3 no", "RCPT", FailureCode.ADDRESS_INVALID, False),
        (550, "5.7.1 no", "RCPT", FailureCode.POLICY_REFUSED, False),
        (550, "no", "RCPT", FailureCode.UNKNOWN, False),
        (550, "2.1.1 contradiction", "RCPT", FailureCode.UNKNOWN, False),
        (550, "5.9.99 no", "RCPT", FailureCode.UNKNOWN, False),
        (501, "no", "RCPT", FailureCode.REQUEST_REJECTED, False),
        (521, "no", "RCPT", FailureCode.DOMAIN_REFUSED, True),
        (554, "5.4.6 loop", "content", FailureCode.DOMAIN_REFUSED, False),
    ],
)
def test_a_reply_is_read_by_its_codes(code: int, text: str, step: str, failure: FailureCode, *, suppress: bool) -> None:
    """Enhanced code first, then its subject, then the three digits; suppression only where the address is at fault."""
    found = read_refusal(Reply(code, text), step).failure

    assert found is not None
    assert (found.code, found.suppress) == (failure, suppress)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (530, BadCredentials),
        (535, BadCredentials),
        (454, RateLimited),
        (399, UnexpectedResponse),
        (-1, UnexpectedResponse),
    ],
)
def test_replies_that_are_no_refusal_of_the_message(code: int, error: type[Exception]) -> None:
    """They say something about us, about now, or nothing."""
    with pytest.raises(error):
        read_refusal(Reply(code, "5.1.1 <ama@example.com>"), "RCPT")


def test_the_words_of_a_server_are_not_repeated() -> None:
    """They often hold the recipient's address."""
    reply = Reply(550, "5.1.1 <ama@example.com>: no such user")

    assert "ama" not in repr(reply) + repr(read_refusal(reply, "RCPT"))
