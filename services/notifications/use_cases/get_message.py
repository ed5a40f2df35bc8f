"""Reads one message."""

from __future__ import annotations

from mesh.database import Database
from mesh.errors import Problem, Reason
from services.notifications import repository
from services.notifications.model import Message


async def get_message(database: Database, *, tenant_id: str, message_id: str) -> Message:
    """The message.

    Raises:
        Problem: RESOURCE_NOT_FOUND.
    """
    async with database.transaction(tenant_id) as connection:
        message = await repository.find_message(connection, message_id)
    if message is None:
        raise Problem(Reason.RESOURCE_NOT_FOUND, f"message {message_id} does not exist", message_id=message_id)
    return message
