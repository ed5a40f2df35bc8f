"""Lists messages."""

from __future__ import annotations

from mesh import pages
from mesh.database import Database
from mesh.errors import Problem, Reason
from services.notifications import repository
from services.notifications.model import Message


async def list_messages(
    database: Database, *, tenant_id: str, source_id: str, page_size: int, page_token: str
) -> tuple[list[Message], str]:
    """A page of messages, newest first, and the token of the next page ("" on the last).

    Only those with this cause, where source_id is not "".

    Raises:
        Problem: PAGE_TOKEN_INVALID.
    """
    limit = pages.page_size(page_size)
    arguments = {"list": "messages", "tenant_id": tenant_id, "source_id": source_id}
    position = pages.decode_page_token(page_token, arguments)
    before = position.get("message_id") if position else None
    # A token is not signed: what it holds is input like any other.
    if position is not None and (not isinstance(before, str) or "\x00" in before):
        raise Problem(Reason.PAGE_TOKEN_INVALID, "page_token was not made by this list")
    async with database.transaction(tenant_id) as connection:
        messages = await repository.list_messages(
            connection,
            tenant_id,
            source_id=source_id,
            before=str(before) if before is not None else None,
            limit=limit + 1,
        )
    if len(messages) <= limit:
        return messages, ""
    messages = messages[:limit]
    return messages, pages.encode_page_token({"message_id": messages[-1].message_id}, arguments)
