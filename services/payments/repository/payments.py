"""Payments and their attempts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

from mesh.database import Connection
from mesh.errors import Problem, Reason
from mesh.money import Money
from services.payments.model import (
    AnomalyKind,
    Attempt,
    CaptureMethod,
    Card,
    LedgerState,
    MobileMoney,
    Payer,
    Payment,
    PaymentState,
)
from services.payments.repository.rows import (
    CALL_COLUMNS,
    call_of,
    call_values,
    failure_of,
    next_action_of,
    route_of,
    to_json,
)

# What is written once.
_FIXED = (
    "payment_id, tenant_id, request_id, request_fingerprint, currency, amount_minor, msisdn, card_token, operator,"
    " return_url, payer_display_name, payer_email, description, merchant_reference, capture_method, create_time"
)
# What changes.
_CHANGING = (
    "state, authorized_minor, captured_minor, refunded_minor, capture_minor, route, next_action, failure,"
    " ledger_state, ledger_transaction_id, ledger_refusals, ledger_refusal_reason, anomaly, held, update_time, version"
)


def _placeholders(first: int, columns: str) -> str:
    count = columns.count(",") + 1
    return ", ".join(f"${number}" for number in range(first, first + count))


_INSERT = f"""
    INSERT INTO payments ({_FIXED}, {_CHANGING}) VALUES ({_placeholders(1, _FIXED + "," + _CHANGING)})
    ON CONFLICT (tenant_id, request_id) DO NOTHING RETURNING true
    """  # noqa: S608 - our own column names
_UPDATE = f"UPDATE payments SET ({_CHANGING}) = ({_placeholders(2, _CHANGING)}) WHERE payment_id = $1"  # noqa: S608 - our own column names
_SAVE_ATTEMPT = f"""
    INSERT INTO attempts (attempt_id, tenant_id, payment_id, attempt_key, create_time, state, update_time,
        {CALL_COLUMNS})
    VALUES ({_placeholders(1, "1,2,3,4,5,6,7," + CALL_COLUMNS)})
    ON CONFLICT (attempt_id) DO UPDATE SET state = EXCLUDED.state, update_time = EXCLUDED.update_time,
        reference = EXCLUDED.reference, fault = EXCLUDED.fault, failure = EXCLUDED.failure,
        send_time = EXCLUDED.send_time, delay_reported = EXCLUDED.delay_reported
    """  # noqa: S608 - our own column names


async def insert_payment(connection: Connection, payment: Payment) -> bool:
    """Inserts a payment with its attempts; False when its request_id was there before."""
    method = payment.method
    wallet = method if isinstance(method, MobileMoney) else None
    card = method if isinstance(method, Card) else None
    fresh = await connection.fetchval(
        _INSERT,
        payment.payment_id,
        payment.tenant_id,
        payment.request_id,
        payment.request_fingerprint,
        payment.amount.currency,
        payment.amount.amount_minor,
        wallet.msisdn if wallet else None,
        card.token if card else None,
        wallet.operator if wallet else "",
        card.return_url if card else "",
        payment.payer.display_name,
        payment.payer.email,
        payment.description,
        payment.merchant_reference,
        payment.capture_method,
        payment.create_time,
        *_changing_values(payment),
    )
    if fresh:
        await _save_attempts(connection, payment, payment.attempts)
    return bool(fresh)


async def save_payment(connection: Connection, before: Payment, after: Payment) -> None:
    """Writes what changed since a payment was locked."""
    await connection.execute(_UPDATE, after.payment_id, *_changing_values(after))
    changed = [attempt for attempt in after.attempts if attempt not in before.attempts]
    await _save_attempts(connection, after, changed)


def _changing_values(payment: Payment) -> tuple[object, ...]:
    return (
        payment.state,
        payment.authorized_minor,
        payment.captured_minor,
        payment.refunded_minor,
        payment.capture_minor,
        to_json(payment.route),
        to_json(payment.next_action),
        to_json(payment.failure),
        payment.ledger_state,
        payment.ledger_transaction_id,
        payment.ledger_refusals,
        payment.ledger_refusal_reason,
        payment.anomaly,
        payment.held,
        payment.update_time,
        payment.version,
    )


async def _save_attempts(connection: Connection, payment: Payment, attempts: Sequence[Attempt]) -> None:
    # An attempt that ends is written before one that begins: only one may be live at any moment.
    for attempt in sorted(attempts, key=lambda attempt: attempt.call.live):
        await connection.execute(
            _SAVE_ATTEMPT,
            attempt.attempt_id,
            payment.tenant_id,
            payment.payment_id,
            attempt.attempt_key,
            attempt.create_time,
            attempt.call.state,
            attempt.update_time,
            *call_values(attempt.call),
        )


async def get_payment(connection: Connection, payment_id: str, *, lock: bool = False) -> Payment:
    """One payment with its attempts. With `lock`, nobody else changes it or what belongs to it until we are done.

    Raises:
        Problem: RESOURCE_NOT_FOUND, also for another tenant's.
    """
    query = "SELECT * FROM payments WHERE payment_id = $1"
    row = await connection.fetchrow(f"{query} FOR UPDATE" if lock else query, payment_id)
    if row is None:
        raise Problem(Reason.RESOURCE_NOT_FOUND, f"payment {payment_id} does not exist", payment_id=payment_id)
    return (await _with_attempts(connection, [row]))[0]


async def find_payment_by_request(connection: Connection, tenant_id: str, request_id: str) -> Payment | None:
    """The payment that a request made, if there is one."""
    row = await connection.fetchrow(
        "SELECT * FROM payments WHERE tenant_id = $1 AND request_id = $2", tenant_id, request_id
    )
    return (await _with_attempts(connection, [row]))[0] if row else None


async def list_payments(
    connection: Connection,
    tenant_id: str,
    *,
    limit: int,
    before_id: str | None,
    state: PaymentState | None,
    merchant_reference: str,
) -> list[Payment]:
    """Payments, newest first, that come after `before_id` in that order."""
    conditions, arguments = ["tenant_id = $1"], list[Any]([tenant_id])
    for condition, argument in (
        ("payment_id <", before_id),
        ("state =", state),
        ("merchant_reference =", merchant_reference),
    ):
        if argument:
            arguments.append(argument)
            conditions.append(f"{condition} ${len(arguments)}")
    arguments.append(limit)
    rows = await connection.fetch(
        f"SELECT * FROM payments WHERE {' AND '.join(conditions)}"  # noqa: S608 - conditions are the literals above
        f" ORDER BY payment_id DESC LIMIT ${len(arguments)}",
        *arguments,
    )
    return await _with_attempts(connection, rows)


async def locate_attempt(
    connection: Connection, connection_id: str, *, attempt_key: str, reference: str
) -> tuple[str, str] | None:
    """The payment_id and attempt_id of what a provider calls by our key or by its reference, if we have it."""
    row = await connection.fetchrow(
        "SELECT payment_id, attempt_id FROM attempts WHERE connection_id = $1"
        " AND (attempt_key = $2 OR ($3 <> '' AND reference = $3)) ORDER BY (attempt_key = $2) DESC LIMIT 1",
        connection_id,
        attempt_key,
        reference,
    )
    return (row["payment_id"], row["attempt_id"]) if row else None


async def _with_attempts(connection: Connection, rows: Sequence[asyncpg.Record]) -> list[Payment]:
    attempts: dict[str, list[Attempt]] = {row["payment_id"]: [] for row in rows}
    for row in await connection.fetch(
        "SELECT * FROM attempts WHERE payment_id = ANY($1) ORDER BY create_time, attempt_id", list(attempts)
    ):
        attempts[row["payment_id"]].append(
            Attempt(
                attempt_id=row["attempt_id"],
                call=call_of(row, row["state"]),
                create_time=row["create_time"],
                update_time=row["update_time"],
            )
        )
    return [_payment_of(row, tuple(attempts[row["payment_id"]])) for row in rows]


def _payment_of(row: asyncpg.Record, attempts: tuple[Attempt, ...]) -> Payment:
    method = (
        MobileMoney(row["msisdn"], row["operator"])
        if row["msisdn"] is not None
        else Card(row["card_token"], row["return_url"])
    )
    return Payment(
        tenant_id=row["tenant_id"],
        payment_id=row["payment_id"],
        request_id=row["request_id"],
        request_fingerprint=row["request_fingerprint"],
        state=PaymentState(row["state"]),
        amount=Money(row["amount_minor"], row["currency"]),
        authorized_minor=row["authorized_minor"],
        captured_minor=row["captured_minor"],
        refunded_minor=row["refunded_minor"],
        capture_minor=row["capture_minor"],
        method=method,
        payer=Payer(row["payer_display_name"], row["payer_email"]),
        description=row["description"],
        merchant_reference=row["merchant_reference"],
        capture_method=CaptureMethod(row["capture_method"]),
        route=route_of(row["route"]),
        attempts=attempts,
        next_action=next_action_of(row["next_action"]),
        failure=failure_of(row["failure"]),
        ledger_state=LedgerState(row["ledger_state"]),
        ledger_transaction_id=row["ledger_transaction_id"],
        ledger_refusals=row["ledger_refusals"],
        ledger_refusal_reason=row["ledger_refusal_reason"],
        anomaly=AnomalyKind(row["anomaly"]) if row["anomaly"] else None,
        held=row["held"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        version=row["version"],
    )
