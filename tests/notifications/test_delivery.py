"""What becomes of a message when the mail server refuses it, is away, or leaves us in doubt."""

from __future__ import annotations

import asyncpg
import pytest
from kente.notifications.v1 import message_pb2
from nats.aio.client import Client

from mesh.bus import CloudEvent
from mesh.embedded.ports import find_free
from mesh.sandbox.server import Sandbox
from tests.harness import TestMesh, eventually
from tests.notifications.post_office import PostOffice, new_address

SENT, FAILED = message_pb2.Message.STATE_SENT, message_pb2.Message.STATE_FAILED
SENDING, QUEUED = message_pb2.Message.STATE_SENDING, message_pb2.Message.STATE_QUEUED

# How often a message's job has run.
_RUNS = "SELECT attempts FROM pgqueuer WHERE dedupe_key = $1"


@pytest.mark.parametrize(
    ("word", "failure"),
    [
        ("unknown", "RECIPIENT_UNKNOWN: The address does not exist. (550 5.1.1)"),
        ("disabled", "RECIPIENT_UNKNOWN: The mailbox is disabled. (550 5.2.1)"),
        ("moved", "RECIPIENT_MOVED: The mailbox has moved. (551 5.1.6)"),
        ("policy", "POLICY_REFUSED: The server refuses the message by its policy. (550 5.7.1)"),
    ],
)
async def test_a_refusal_for_good_ends_the_message(office: PostOffice, word: str, failure: str) -> None:
    """One try, state FAILED, and a reason without the recipient in it."""
    await office.connect()

    message = await office.until_final((await office.send(new_address(word))).message_id)

    assert (message.state, message.attempts, message.failure) == (FAILED, 1, failure)


@pytest.mark.parametrize(("word", "suppress"), [("unknown", True), ("policy", False)])
async def test_only_an_address_that_can_not_exist_is_marked_for_suppression(
    office: PostOffice, admin: asyncpg.Connection, word: str, *, suppress: bool
) -> None:
    """What a policy refuses today it may take tomorrow."""
    await office.connect()

    message = await office.until_final((await office.send(new_address(word))).message_id)

    marked = await admin.fetchval("SELECT suppress_recipient FROM messages WHERE message_id = $1", message.message_id)
    assert marked is suppress


@pytest.mark.parametrize("word", ["greylist", "busy", "closing"])
async def test_a_refusal_for_now_is_tried_again(office: PostOffice, word: str) -> None:
    """The second try is taken, under the same Message-ID."""
    await office.connect()
    recipient = new_address(word)

    message = await office.until_final((await office.send(recipient)).message_id)

    [delivery] = await office.mailbox(recipient)
    assert (message.state, message.attempts, message.failure) == (SENT, 2, "")
    assert delivery["message_id"].startswith(message.message_id)


async def test_a_mailbox_that_stays_full_keeps_the_message_in_the_queue(office: PostOffice) -> None:
    """552 is of the class "for good", but 5.2.2 is not; the reason is visible while it is tried again."""
    await office.connect()

    message = await office.until_failure((await office.send(new_address("overquota"))).message_id, "552 5.2.2")

    assert message.state in {QUEUED, SENDING}


async def test_a_mail_server_that_is_away_costs_nothing(office: PostOffice) -> None:
    """Nothing was sent, so the next connection of the tenant carries the message at once."""
    [port] = find_free(1)
    dead = await office.connect(f"smtp://127.0.0.1:{port}")
    alive = await office.connect()
    recipient = new_address()

    message = await office.until_final((await office.send(recipient)).message_id)

    assert dead.connection_id != alive.connection_id
    assert (message.state, message.connection_id) == (SENT, alive.connection_id)
    assert len(await office.mailbox(recipient)) == 1


async def test_a_connection_with_wrong_credentials_is_passed_over(office: PostOffice) -> None:
    """A connection whose settings don't fit is no end of the message either."""
    await office.connect(trace_delay_seconds="soon")
    alive = await office.connect()

    message = await office.until_final((await office.send(new_address())).message_id)

    assert (message.state, message.connection_id) == (SENT, alive.connection_id)


@pytest.mark.parametrize(
    "fault", ["reset_after_commit", "truncated_json", "html_502", "unknown_status", "timeout_after_commit"]
)
async def test_a_lost_answer_is_resolved_by_asking(office: PostOffice, fault: str) -> None:
    """The server took it, so it is SENT after one try, and the recipient has it once."""
    await office.connect()
    recipient = new_address()
    await office.plan_fault(fault)

    message = await office.until_final((await office.send(recipient)).message_id)

    assert (message.state, message.attempts) == (SENT, 1)
    assert message.provider_reference != ""
    assert len(await office.mailbox(recipient)) == 1


@pytest.mark.parametrize("word", ["dropped", "lost"])
async def test_a_connection_lost_at_the_final_dot_gives_one_delivery(office: PostOffice, word: str) -> None:
    """Whether it was taken or not, which the client can't see, the recipient has it once in the end."""
    await office.connect()
    recipient = new_address(word)

    message = await office.until_final((await office.send(recipient)).message_id)

    assert message.state == SENT
    assert message.attempts == {"dropped": 1, "lost": 2}[word]
    assert len(await office.mailbox(recipient)) == 1


async def test_a_trace_that_fails_is_asked_again(office: PostOffice) -> None:
    """No answer to the question is not taken for "not there"."""
    await office.connect()
    recipient = new_address("dropped")
    for fault in ("html_502", "truncated_json", "reset_after_commit"):
        await office.plan_fault(fault, operation="find_message")

    message = await office.until_final((await office.send(recipient)).message_id)

    assert (message.state, message.attempts) == (SENT, 1)
    assert len(await office.mailbox(recipient)) == 1


async def test_a_doubt_that_can_not_be_resolved_is_held_and_visible(
    office: PostOffice, admin: asyncpg.Connection
) -> None:
    """Without a message trace the state stays SENDING, with its reason; nothing is sent a second time."""
    await office.connect(trace=False)
    recipient = new_address("lost")

    message = await office.until_failure((await office.send(recipient)).message_id, "outcome unknown")
    runs = await admin.fetchval(_RUNS, message.message_id)

    async def looked_at_again() -> bool:
        return bool(await admin.fetchval(_RUNS, message.message_id) > runs)

    await eventually(looked_at_again)
    held = await office.get(message.message_id)

    assert (held.state, held.attempts) == (SENDING, 1)
    assert await office.mailbox(recipient) == []


async def test_an_order_to_resend_sends_once_more(
    office: PostOffice, notifications: TestMesh, sandbox: Sandbox, settings: pytest.MonkeyPatch
) -> None:
    """A person who prefers two receipts to none gets the second one under the same Message-ID."""
    await office.connect(trace=False)
    recipient = new_address("dropped")
    message = await office.until_failure((await office.send(recipient)).message_id, "outcome unknown")
    assert message.state == SENDING

    async def restart() -> None:
        await notifications.stop("notifications")
        await notifications.start("notifications", {"sandbox_url": sandbox.url})

    settings.setenv("KENTE_NOTIFICATIONS_UNKNOWN_OUTCOME", "resend")
    await restart()
    sent = await office.until_final(message.message_id)
    settings.delenv("KENTE_NOTIFICATIONS_UNKNOWN_OUTCOME")
    await restart()

    deliveries = await office.mailbox(recipient)
    assert (sent.state, sent.attempts) == (SENT, 2)
    assert len(deliveries) == 2
    assert len({delivery["message_id"] for delivery in deliveries}) == 1


async def test_a_message_is_given_up_after_its_window(office: PostOffice, admin: asyncpg.Connection) -> None:
    """What nobody took within the window is FAILED, with the last reason."""
    await office.connect()
    message = await office.until_failure((await office.send(new_address("full"))).message_id, "452 4.2.2")

    await admin.execute(
        "UPDATE messages SET create_time = create_time - interval '2 days' WHERE message_id = $1", message.message_id
    )
    ended = await office.until_final(message.message_id)

    assert ended.state == FAILED
    assert ended.failure == "given up: smtp RCPT: answer 452 4.2.2"


class _Events:
    """The events of one tenant about messages."""

    def __init__(self, client: Client, tenant_id: str) -> None:
        self._client = client
        self._subject = f"kente.{tenant_id}.notifications.>"

    async def read(self, count: int) -> list[CloudEvent]:
        """The first ones."""
        subscription = await self._client.jetstream().pull_subscribe(self._subject, stream="KENTE")
        found: list[CloudEvent] = []

        async def enough() -> bool:
            for message in await subscription.fetch(count - len(found), timeout=5):
                found.append(CloudEvent.from_json(message.data))
                await message.ack()
            return len(found) >= count

        await eventually(enough)
        await subscription.unsubscribe()
        return found


async def test_the_end_of_a_message_is_an_event_without_personal_data(office: PostOffice, nats_client: Client) -> None:
    """message.sent and message.failed carry the message with its recipient masked."""
    await office.connect()
    recipients = [new_address(), new_address("unknown")]

    for recipient in recipients:
        await office.until_final((await office.send(recipient, source_id="evt_1")).message_id)
    sent, failed = await _Events(nats_client, office.tenant_id).read(2)

    assert (sent.type, failed.type) == ("notifications.message.sent", "notifications.message.failed")
    assert sent.data["state"] == "STATE_SENT"
    assert sent.data["recipient"] == "a***@example.com"
    assert sent.data["sourceId"] == "evt_1"
    assert not any(recipient in str(event) for recipient in recipients for event in (sent, failed))
