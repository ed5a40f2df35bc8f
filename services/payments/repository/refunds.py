"""Refunds."""

from __future__ import annotations

import asyncpg

from mesh.database import Connection
from mesh.errors import Problem, Reason
from mesh.money import Money
from services.payments.model import AnomalyKind, LedgerState, Refund, RefundState
from services.payments.repository.rows import CALL_COLUMNS, call_of, call_values

_CHANGING = (
    "state, call_state, ledger_state, ledger_transaction_id, ledger_refusals, ledger_refusal_reason, anomaly,"
    f" update_time, {CALL_COLUMNS}"
)
_INSERT = f"""
    INSERT INTO refunds (refund_id, tenant_id, payment_id, request_id, request_fingerprint, attempt_key, currency,
        amount_minor, description, create_time,
        {_CHANGING})
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
        $24, $25)
    """  # noqa: S608 - our own column names
_UPDATE = f"""
    UPDATE refunds SET ({_CHANGING}) = ($2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
    WHERE refund_id = $1
    """  # noqa: S608 - our own column names


async def insert_refund(connection: Connection, refund: Refund) -> None:
    """Inserts a refund; its payment is locked and has the amount set aside."""
    await connection.execute(
        _INSERT,
        refund.refund_id,
        refund.tenant_id,
        refund.payment_id,
        refund.request_id,
        refund.request_fingerprint,
        refund.attempt_key,
        refund.amount.currency,
        refund.amount.amount_minor,
        refund.description,
        refund.create_time,
        *_changing_values(refund),
    )


async def save_refund(connection: Connection, refund: Refund) -> None:
    """Writes what can change of a refund."""
    await connection.execute(_UPDATE, refund.refund_id, *_changing_values(refund))


def _changing_values(refund: Refund) -> tuple[object, ...]:
    return (
        refund.state,
        refund.call.state,
        refund.ledger_state,
        refund.ledger_transaction_id,
        refund.ledger_refusals,
        refund.ledger_refusal_reason,
        refund.anomaly,
        refund.update_time,
        *call_values(refund.call),
    )


async def get_refund(connection: Connection, refund_id: str, *, payment_id: str = "", lock: bool = False) -> Refund:
    """One refund, of one payment if that is named. Lock its payment before locking it.

    Raises:
        Problem: RESOURCE_NOT_FOUND, also for another tenant's.
    """
    query = "SELECT * FROM refunds WHERE refund_id = $1 AND ($2 = '' OR payment_id = $2)"
    row = await connection.fetchrow(f"{query} FOR UPDATE" if lock else query, refund_id, payment_id)
    if row is None:
        raise Problem(Reason.RESOURCE_NOT_FOUND, f"refund {refund_id} does not exist", refund_id=refund_id)
    return _refund_of(row)


async def find_refund_by_request(connection: Connection, tenant_id: str, request_id: str) -> Refund | None:
    """The refund that a request made, if there is one."""
    row = await connection.fetchrow(
        "SELECT * FROM refunds WHERE tenant_id = $1 AND request_id = $2", tenant_id, request_id
    )
    return _refund_of(row) if row else None


async def list_refunds(connection: Connection, payment_id: str, *, limit: int, before_id: str | None) -> list[Refund]:
    """Refunds of a payment, newest first, that come after `before_id` in that order."""
    rows = await connection.fetch(
        "SELECT * FROM refunds WHERE payment_id = $1 AND ($2::text IS NULL OR refund_id < $2)"
        " ORDER BY refund_id DESC LIMIT $3",
        payment_id,
        before_id,
        limit,
    )
    return [_refund_of(row) for row in rows]


async def locate_refund(connection: Connection, connection_id: str, *, attempt_key: str, reference: str) -> str | None:
    """The refund_id of what a provider calls by our key or by its reference, if we have it."""
    row = await connection.fetchrow(
        "SELECT refund_id FROM refunds WHERE connection_id = $1"
        " AND (attempt_key = $2 OR ($3 <> '' AND reference = $3)) ORDER BY (attempt_key = $2) DESC LIMIT 1",
        connection_id,
        attempt_key,
        reference,
    )
    return row["refund_id"] if row else None


def _refund_of(row: asyncpg.Record) -> Refund:
    return Refund(
        tenant_id=row["tenant_id"],
        refund_id=row["refund_id"],
        payment_id=row["payment_id"],
        request_id=row["request_id"],
        request_fingerprint=row["request_fingerprint"],
        state=RefundState(row["state"]),
        amount=Money(row["amount_minor"], row["currency"]),
        description=row["description"],
        call=call_of(row, row["call_state"]),
        ledger_state=LedgerState(row["ledger_state"]),
        ledger_transaction_id=row["ledger_transaction_id"],
        ledger_refusals=row["ledger_refusals"],
        ledger_refusal_reason=row["ledger_refusal_reason"],
        anomaly=AnomalyKind(row["anomaly"]) if row["anomaly"] else None,
        create_time=row["create_time"],
        update_time=row["update_time"],
    )
