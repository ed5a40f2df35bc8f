"""Creates a connection."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import Message

from mesh import outbox
from mesh.clock import utc_now
from mesh.database import Database
from mesh.errors import Problem, Reason, Violation
from mesh.ids import new_id
from services.connections import repository
from services.connections.model import Connection, ConnectionDraft, KeyRing, Provider, StoredConnection, check_draft
from services.connections.peers import Listing, ProviderCatalogue

_RETRY_AFTER_SECONDS = 2.0


async def create_connection(
    database: Database,
    keys: KeyRing,
    catalogue: ProviderCatalogue,
    *,
    tenant_id: str,
    request_id: str,
    draft: ConnectionDraft,
    describe: Callable[[Connection], Message],
) -> Connection:
    """Checks what is asked for against the provider, seals the credentials, and saves both.

    A repeated request gets the connection made first.

    Args:
        describe: gives the connection as its event carries it.

    Raises:
        Problem: FIELD_INVALID, REQUEST_ID_REUSED, or SERVICE_UNAVAILABLE when a domain that could know the provider
            is away.
    """
    provider = _find(draft.provider, await catalogue.list())
    check_draft(draft, provider)
    now = utc_now()
    connection = Connection(
        connection_id=new_id("con"),
        tenant_id=tenant_id,
        provider=provider.slug,
        domain=provider.domain,
        display_name=draft.display_name,
        environment=draft.environment,
        base_url=draft.base_url,
        settings=draft.settings,
        credential_names=tuple(sorted(draft.credentials)),
        encryption_key_id=keys.current_key_id,
        create_time=now,
        update_time=now,
    )
    sealed = keys.seal(draft.credentials, tenant_id=tenant_id, connection_id=connection.connection_id)
    async with database.transaction(tenant_id) as database_connection:
        if await repository.insert_connection(database_connection, connection, sealed, request_id):
            event = outbox.Event(
                "connections.connection.created", tenant_id, connection.connection_id, describe(connection)
            )
            await outbox.add(database_connection, event)
            return connection
        earlier = await repository.connection_of_request(database_connection, tenant_id, request_id)
    if not _was_made_from(earlier, draft, keys):
        raise Problem(Reason.REQUEST_ID_REUSED, connection_id=earlier.connection.connection_id)
    return earlier.connection


def _find(slug: str, listing: Listing) -> Provider:
    provider = listing.providers.get(slug)
    if provider is not None:
        return provider
    if listing.domains_away:
        # It may well exist: to call it unknown would be to claim what nobody knows.
        away = ", ".join(listing.domains_away)
        raise Problem(
            Reason.SERVICE_UNAVAILABLE,
            f"{away} can't be asked about the provider {slug} now",
            retry_after_seconds=_RETRY_AFTER_SECONDS,
            provider=slug,
            services=away,
        )
    known = ", ".join(sorted(listing.providers)) or "none"
    raise Problem(Reason.FIELD_INVALID, violations=[Violation("provider", f"is not known: the providers are {known}")])


def _was_made_from(earlier: StoredConnection, draft: ConnectionDraft, keys: KeyRing) -> bool:
    """Compares credentials by opening them: a digest kept for this would help whoever guesses them."""
    connection = earlier.connection
    if not connection.was_made_from(draft):
        return False
    if earlier.sealed_credentials is None:
        return True
    opened = keys.open(
        earlier.sealed_credentials, tenant_id=connection.tenant_id, connection_id=connection.connection_id
    )
    return opened == dict(draft.credentials)
