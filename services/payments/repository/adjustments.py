"""Captures and cancellations."""

from __future__ import annotations

import asyncpg

from mesh.database import Connection
from mesh.errors import Problem, Reason
from mesh.money import Money
from services.payments.model import Adjustment, AdjustmentKind
from services.payments.repository.rows import CALL_COLUMNS, call_of, call_values

_INSERT = f"""
    INSERT INTO adjustments (adjustment_id, tenant_id, payment_id, attempt_id, request_id, request_fingerprint, kind,
        currency, amount_minor, create_time, state, update_time, {CALL_COLUMNS})
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
    """  # noqa: S608 - our own column names
_UPDATE = f"""
    UPDATE adjustments SET (state, update_time, {CALL_COLUMNS}) = ($2, $3, $4, $5, $6, $7, $8, $9, $10)
    WHERE adjustment_id = $1
    """  # noqa: S608 - our own column names


async def insert_adjustment(connection: Connection, adjustment: Adjustment) -> None:
    """Inserts an adjustment; its payment is locked."""
    await connection.execute(
        _INSERT,
        adjustment.adjustment_id,
        adjustment.tenant_id,
        adjustment.payment_id,
        adjustment.attempt_id,
        adjustment.request_id,
        adjustment.request_fingerprint,
        adjustment.kind,
        adjustment.amount.currency,
        adjustment.amount.amount_minor,
        adjustment.create_time,
        adjustment.call.state,
        adjustment.update_time,
        *call_values(adjustment.call),
    )


async def save_adjustment(connection: Connection, adjustment: Adjustment) -> None:
    """Writes what can change of an adjustment."""
    await connection.execute(
        _UPDATE,
        adjustment.adjustment_id,
        adjustment.call.state,
        adjustment.update_time,
        *call_values(adjustment.call),
    )


async def get_adjustment(connection: Connection, adjustment_id: str) -> Adjustment:
    """One adjustment.

    Raises:
        Problem: RESOURCE_NOT_FOUND.
    """
    row = await connection.fetchrow("SELECT * FROM adjustments WHERE adjustment_id = $1", adjustment_id)
    if row is None:
        raise Problem(Reason.RESOURCE_NOT_FOUND, f"adjustment {adjustment_id} does not exist")
    return _adjustment_of(row)


async def find_adjustment_by_request(
    connection: Connection, tenant_id: str, kind: AdjustmentKind, request_id: str
) -> Adjustment | None:
    """The adjustment that a request made, if there is one."""
    row = await connection.fetchrow(
        "SELECT * FROM adjustments WHERE tenant_id = $1 AND kind = $2 AND request_id = $3", tenant_id, kind, request_id
    )
    return _adjustment_of(row) if row else None


async def find_open_adjustment(connection: Connection, payment_id: str) -> Adjustment | None:
    """The capture or cancellation that is under way on a payment, if there is one."""
    row = await connection.fetchrow(
        "SELECT * FROM adjustments WHERE payment_id = $1 AND state IN ('STARTED', 'PENDING', 'UNKNOWN', 'NOT_SENT')",
        payment_id,
    )
    return _adjustment_of(row) if row else None


def _adjustment_of(row: asyncpg.Record) -> Adjustment:
    return Adjustment(
        tenant_id=row["tenant_id"],
        adjustment_id=row["adjustment_id"],
        payment_id=row["payment_id"],
        attempt_id=row["attempt_id"],
        request_id=row["request_id"],
        request_fingerprint=row["request_fingerprint"],
        kind=AdjustmentKind(row["kind"]),
        amount=Money(row["amount_minor"], row["currency"]),
        call=call_of(row, row["state"]),
        create_time=row["create_time"],
        update_time=row["update_time"],
    )
