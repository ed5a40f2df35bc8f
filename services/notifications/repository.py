"""All SQL of notifications. Row-level security limits each statement to the transaction's tenant.

What a try found out is written only while that try is the last one: `attempts` is the fence.
"""

# ruff: noqa: S608 - the only text put into a statement is this file's own list of columns

from __future__ import annotations

from datetime import datetime

from mesh.database import Connection, Row
from services.notifications.model import Content, Message, MessageDraft, MessageState

_MESSAGE = (
    "message_id, message_key, tenant_id, state, template, locale, recipient, subject, text, html, source_id, provider,"
    " connection_id, provider_reference, attempts, failure, send_time, create_time, update_time"
)


async def insert_message(connection: Connection, draft: MessageDraft, now: datetime) -> Message | None:
    """Adds a message; None when its cause has one."""
    row = await connection.fetchrow(
        f"""
        INSERT INTO messages (message_id, message_key, tenant_id, cause, source_id, template, locale, recipient,
                              subject, text, html, state, create_time, update_time)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'queued', $12, $12)
        ON CONFLICT (tenant_id, cause) DO NOTHING
        RETURNING {_MESSAGE}
        """,
        draft.message_id,
        draft.message_key,
        draft.tenant_id,
        draft.cause,
        draft.source_id,
        draft.template,
        draft.locale,
        draft.recipient,
        draft.content.subject,
        draft.content.text,
        draft.content.html,
        now,
    )
    return _message(row) if row else None


async def find_message(connection: Connection, message_id: str) -> Message | None:
    """The message, or None."""
    row = await connection.fetchrow(f"SELECT {_MESSAGE} FROM messages WHERE message_id = $1", message_id)
    return _message(row) if row else None


async def find_message_of_cause(connection: Connection, tenant_id: str, cause: str) -> Message | None:
    """The tenant's message for a cause, or None."""
    row = await connection.fetchrow(
        f"SELECT {_MESSAGE} FROM messages WHERE tenant_id = $1 AND cause = $2", tenant_id, cause
    )
    return _message(row) if row else None


async def list_messages(
    connection: Connection, tenant_id: str, *, source_id: str, before: str | None, limit: int
) -> list[Message]:
    """Messages of the tenant, newest first.

    Args:
        source_id: only those with this cause; empty for all.
        before: id of the last message of the page before; None for the first page.
        limit: most messages to return.
    """
    # Two statements, so that each has its index.
    of_source = "AND source_id = $4 AND source_id <> ''" if source_id else ""
    rows = await connection.fetch(
        f"SELECT {_MESSAGE} FROM messages WHERE tenant_id = $1 AND ($2::text IS NULL OR message_id < $2) {of_source}"
        " ORDER BY message_id DESC LIMIT $3",
        tenant_id,
        before,
        limit,
        *([source_id] if source_id else []),
    )
    return [_message(row) for row in rows]


async def start_sending(
    connection: Connection, message: Message, *, provider: str, connection_id: str, now: datetime
) -> Message | None:
    """Moves a queued message to SENDING; None when it is no longer as it was read."""
    row = await connection.fetchrow(
        f"""
        UPDATE messages
        SET state = 'sending', provider = $3, connection_id = $4, attempts = attempts + 1, send_time = $5,
            update_time = $5
        WHERE message_id = $1 AND attempts = $2 AND state = 'queued'
        RETURNING {_MESSAGE}
        """,
        message.message_id,
        message.attempts,
        provider,
        connection_id,
        now,
    )
    return _message(row) if row else None


async def move_message(
    connection: Connection,
    message: Message,
    state: MessageState,
    *,
    now: datetime,
    failure: str = "",
    provider_reference: str = "",
    suppress_recipient: bool = False,
) -> Message | None:
    """Moves a message on from the state it was read in; None when it is no longer as it was read.

    With the state it has, only the failure is noted.
    """
    row = await connection.fetchrow(
        f"""
        UPDATE messages
        SET state = $4, failure = $5, provider_reference = $6, suppress_recipient = $7, update_time = $8
        WHERE message_id = $1 AND attempts = $2 AND state = $3
        RETURNING {_MESSAGE}
        """,
        message.message_id,
        message.attempts,
        message.state.value,
        state.value,
        failure,
        provider_reference,
        suppress_recipient,
        now,
    )
    return _message(row) if row else None


async def note_connection(connection: Connection, message: Message, *, provider: str, connection_id: str) -> None:
    """Remembers which connection was tried, so that the next try takes another, although nothing was handed over."""
    await connection.execute(
        "UPDATE messages SET provider = $3, connection_id = $4"
        " WHERE message_id = $1 AND attempts = $2 AND state = 'queued'",
        message.message_id,
        message.attempts,
        provider,
        connection_id,
    )


def _message(row: Row) -> Message:
    return Message(
        message_id=row["message_id"],
        message_key=row["message_key"],
        tenant_id=row["tenant_id"],
        state=MessageState(row["state"]),
        template=row["template"],
        locale=row["locale"],
        recipient=row["recipient"],
        content=Content(row["subject"], row["text"], row["html"]),
        source_id=row["source_id"],
        provider=row["provider"],
        connection_id=row["connection_id"],
        provider_reference=row["provider_reference"],
        attempts=row["attempts"],
        failure=row["failure"],
        send_time=row["send_time"],
        create_time=row["create_time"],
        update_time=row["update_time"],
    )
