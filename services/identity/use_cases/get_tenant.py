"""Reads one tenant."""

from __future__ import annotations

from mesh.database import EVERY_TENANT, Database
from mesh.errors import Problem, Reason
from services.identity import repository
from services.identity.model import Tenant


async def get_tenant(database: Database, tenant_id: str, *, caller_tenant_id: str) -> Tenant:
    """Reads a tenant.

    Args:
        caller_tenant_id: a caller that acts for a tenant sees only that one; an operator, who acts for none, all.

    Raises:
        Problem: RESOURCE_NOT_FOUND.
    """
    async with database.transaction(caller_tenant_id or EVERY_TENANT) as connection:
        tenant = await repository.find_tenant(connection, tenant_id)
    if tenant is None:
        raise Problem(Reason.RESOURCE_NOT_FOUND, f"tenant {tenant_id} does not exist", tenant_id=tenant_id)
    return tenant
