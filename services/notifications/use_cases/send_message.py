"""Queues a message that a caller asks for."""

from __future__ import annotations

from collections.abc import Mapping

from mesh.database import Database
from mesh.errors import Problem, Reason
from services.notifications import repository, templates
from services.notifications.model import Message, MessageDraft
from services.notifications.peers import Providers
from services.notifications.use_cases.queue_message import draft_message, queue_message


async def send_message(
    database: Database,
    providers: Providers,
    *,
    tenant_id: str,
    request_id: str,
    template: str,
    locale: str,
    recipient: str,
    variables: Mapping[str, str],
    source_id: str,
    message_domain: str,
) -> Message:
    """Queues a message and returns it; a repeated request gets the message made first.

    Raises:
        Problem: RESOURCE_NOT_FOUND, there is no such template; FIELD_INVALID, the variables don't fit; NO_ROUTE, the
            tenant has no connection that carries e-mail; REQUEST_ID_REUSED; what a call to connections can meet.
    """
    rendered = templates.render(template, locale, variables)
    cause = f"request:{request_id}"
    draft = draft_message(
        rendered,
        tenant_id=tenant_id,
        cause=cause,
        template=template,
        recipient=recipient,
        source_id=source_id,
        domain=message_domain,
    )
    async with database.transaction(tenant_id) as connection:
        earlier = await repository.find_message_of_cause(connection, tenant_id, cause)
    if earlier is None:
        if not await providers.email_connections(tenant_id):
            raise Problem(Reason.NO_ROUTE, "no connection of the tenant can carry e-mail", template=template)
        async with database.transaction(tenant_id) as connection:
            message = await queue_message(connection, draft)
            if message is not None:
                return message
            # The same request won the race.
            earlier = await repository.find_message_of_cause(connection, tenant_id, cause)
    return _same(earlier, draft, request_id)


def _same(earlier: Message | None, draft: MessageDraft, request_id: str) -> Message:
    if earlier is None or not earlier.was_made_from(draft):
        raise Problem(
            Reason.REQUEST_ID_REUSED, f"request_id {request_id} queued another message", request_id=request_id
        )
    return earlier
