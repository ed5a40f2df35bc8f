"""SQL of what each request_id was used for."""

from __future__ import annotations

from mesh.database import Connection, affected_rows
from services.ledger.model.changes import ChangeRequest


async def claim_request(connection: Connection, tenant_id: str, request: ChangeRequest) -> bool:
    """Whether the request is new; it is remembered for ever once the current transaction is committed.

    One that is not new changed what it was to change before. Done again, it would undo what others changed since.
    The caller has locked the tenant's journal.

    Raises:
        Problem: REQUEST_ID_REUSED, the id was used for something else.
    """
    status = await connection.execute(
        "INSERT INTO requests (tenant_id, request_id, request_hash, create_time)"
        " VALUES ($1, $2, $3, clock_timestamp()) ON CONFLICT (tenant_id, request_id) DO NOTHING",
        tenant_id,
        request.key,
        request.request_hash,
    )
    if affected_rows(status) == 1:
        return True
    claimed_hash = await connection.fetchval(
        "SELECT request_hash FROM requests WHERE tenant_id = $1 AND request_id = $2", tenant_id, request.key
    )
    if claimed_hash != request.request_hash:
        raise request.reused()
    return False
