"""Creates an API key."""

from __future__ import annotations

from collections.abc import Callable, Collection

from google.protobuf.message import Message

from mesh import outbox
from mesh.clock import utc_now
from mesh.database import Database
from mesh.errors import Problem, Reason
from mesh.ids import new_id
from mesh.tokens import Principal
from services.identity import repository
from services.identity.model import ApiKey, ApiKeyDraft, PresentedKey, StoredKey, check_scopes


async def create_api_key(
    database: Database,
    *,
    tenant_id: str,
    request_id: str,
    draft: ApiKeyDraft,
    creator: Principal,
    known_scopes: Collection[str],
    describe: Callable[[ApiKey], Message],
) -> tuple[ApiKey, str]:
    """Creates a key and returns it with its whole text, which is shown this once.

    A repeated request gets the key made first, and "" for its text: that is stored nowhere, so it can't be told again.

    Args:
        creator: who asks; a client gives only scopes that it holds.
        known_scopes: every scope that a client can hold.
        describe: gives the key as its event carries it, without its secret.

    Raises:
        Problem: FIELD_INVALID, SCOPE_MISSING, REQUEST_ID_REUSED, or RESOURCE_NOT_FOUND for the tenant.
    """
    check_scopes(draft.scopes, known=known_scopes, creator=creator)
    key = ApiKey(new_id("key"), tenant_id, draft.display_name, draft.scopes, utc_now(), expire_time=draft.expire_time)
    presented = PresentedKey.generate(key.api_key_id)
    async with database.transaction(tenant_id) as connection:
        if await repository.find_tenant(connection, tenant_id) is None:
            raise Problem(Reason.RESOURCE_NOT_FOUND, f"tenant {tenant_id} does not exist", tenant_id=tenant_id)
        if await repository.insert_api_key(connection, StoredKey(key, presented.secret_digest()), request_id):
            event = outbox.Event("identity.api_key.created", tenant_id, key.api_key_id, describe(key))
            await outbox.add(connection, event)
            return key, presented.to_text()
        earlier = await repository.api_key_of_request(connection, tenant_id, request_id)
    if not earlier.was_made_from(draft):
        raise Problem(Reason.REQUEST_ID_REUSED, api_key_id=earlier.api_key_id)
    return earlier, ""
