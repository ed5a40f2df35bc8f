"""SQL of what each request_id was used for."""

from __future__ import annotations

from mesh.database import Connection, affected_rows
from mesh.errors import Problem, Reason
from mesh.ids import derive_uuid
from services.ledger.model.changes import ChangeRequest


async def claim_request(connection: Connection, tenant_id: str, request: ChangeRequest) -> bool:
    """Whether the request is new; it is remembered for ever once the current transaction is committed.

    One that is not new changed what it was to change before. Done again, it would undo what others changed since.
    The caller has locked the tenant's journal.

    Raises:
        Problem: REQUEST_ID_REUSED, the id was used for something else.
    """
    # An id says nothing across methods, here as with the stored answers.
    key = derive_uuid(request.method, request.request_id.lower())
    status = await connection.execute(
        "INSERT INTO requests (tenant_id, request_id, request_hash, create_time)"
        " VALUES ($1, $2, $3, clock_timestamp()) ON CONFLICT (tenant_id, request_id) DO NOTHING",
        tenant_id,
        key,
        request.request_hash,
    )
    if affected_rows(status) == 1:
        return True
    claimed_hash = await connection.fetchval(
        "SELECT request_hash FROM requests WHERE tenant_id = $1 AND request_id = $2", tenant_id, key
    )
    if claimed_hash != request.request_hash:
        detail = f"request_id {request.request_id} was used for another request body"
        raise Problem(Reason.REQUEST_ID_REUSED, detail, request_id=request.request_id)
    return False
