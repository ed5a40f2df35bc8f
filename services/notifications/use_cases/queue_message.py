"""Saves a message, and the job that delivers it."""

from __future__ import annotations

from mesh import jobs
from mesh.clock import utc_now
from mesh.database import Connection
from mesh.ids import new_id
from services.notifications import repository
from services.notifications.model import Message, MessageDraft
from services.notifications.templates import Rendered

DELIVER_MESSAGE = "deliver_message"


def draft_message(
    rendered: Rendered, *, tenant_id: str, cause: str, template: str, recipient: str, source_id: str, domain: str
) -> MessageDraft:
    """A message to be queued.

    Args:
        rendered: the filled-in template.
        tenant_id: whose message it is.
        cause: what makes it be, once.
        template: name of the template.
        recipient: address that it goes to.
        source_id: event or resource that caused it, or empty.
        domain: of the Message-ID.
    """
    message_id = new_id("msg")
    return MessageDraft(
        message_id=message_id,
        message_key=f"{message_id}@{domain}",
        tenant_id=tenant_id,
        cause=cause,
        template=template,
        locale=rendered.locale,
        recipient=recipient,
        content=rendered.content,
        source_id=source_id,
    )


async def queue_message(connection: Connection, draft: MessageDraft) -> Message | None:
    """Saves a message and its delivery in the current transaction; None when its cause has a message."""
    message = await repository.insert_message(connection, draft, utc_now())
    if message is not None:
        await jobs.enqueue(
            connection,
            DELIVER_MESSAGE,
            {"message_id": message.message_id},
            tenant_id=message.tenant_id,
            key=message.message_id,
        )
    return message
