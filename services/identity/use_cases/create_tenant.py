"""Creates a tenant."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import Message

from mesh import outbox
from mesh.clock import utc_now
from mesh.database import Database
from mesh.errors import Problem, Reason
from mesh.ids import new_id
from services.identity import repository
from services.identity.model import Tenant


async def create_tenant(
    database: Database, *, request_id: str, display_name: str, describe: Callable[[Tenant], Message]
) -> Tenant:
    """Creates the tenant that a request asks for, once however often it is repeated.

    Args:
        describe: gives the tenant as its event carries it.

    Raises:
        Problem: REQUEST_ID_REUSED, the request made a tenant of another name.
    """
    tenant = Tenant(new_id("ten"), display_name, utc_now())
    # A tenant that is being made belongs to no tenant yet.
    async with database.system_transaction() as connection:
        if await repository.insert_tenant(connection, tenant, request_id):
            event = outbox.Event("identity.tenant.created", tenant.tenant_id, tenant.tenant_id, describe(tenant))
            await outbox.add(connection, event)
            return tenant
        earlier = await repository.tenant_of_request(connection, request_id)
    if earlier.display_name != display_name:
        raise Problem(Reason.REQUEST_ID_REUSED, tenant_id=earlier.tenant_id)
    return earlier
