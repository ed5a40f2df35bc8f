"""Reads of payments and refunds."""

from __future__ import annotations

from mesh.database import Database
from mesh.pages import decode_page_token, encode_page_token, page_size
from services.payments.model import Payment, PaymentState, Refund
from services.payments.repository import payments, refunds


async def get_payment(database: Database, tenant_id: str, payment_id: str) -> Payment:
    """One payment.

    Raises:
        Problem: RESOURCE_NOT_FOUND.
    """
    async with database.transaction(tenant_id) as connection:
        return await payments.get_payment(connection, payment_id)


async def list_payments(
    database: Database,
    tenant_id: str,
    *,
    size: int,
    token: str,
    state: PaymentState | None,
    merchant_reference: str,
) -> tuple[list[Payment], str]:
    """A page of payments, newest first, and the token of the next.

    Raises:
        Problem: PAGE_TOKEN_INVALID.
    """
    arguments = {"list": "payments", "state": state or "", "merchant_reference": merchant_reference}
    position = decode_page_token(token, arguments)
    limit = page_size(size)
    async with database.transaction(tenant_id) as connection:
        found = await payments.list_payments(
            connection,
            tenant_id,
            limit=limit + 1,
            before_id=str(position["payment_id"]) if position else None,
            state=state,
            merchant_reference=merchant_reference,
        )
    page = found[:limit]
    more = len(found) > limit
    return page, encode_page_token({"payment_id": page[-1].payment_id}, arguments) if more else ""


async def get_refund(database: Database, tenant_id: str, payment_id: str, refund_id: str) -> Refund:
    """One refund of a payment.

    Raises:
        Problem: RESOURCE_NOT_FOUND.
    """
    async with database.transaction(tenant_id) as connection:
        return await refunds.get_refund(connection, refund_id, payment_id=payment_id)


async def list_refunds(
    database: Database, tenant_id: str, payment_id: str, *, size: int, token: str
) -> tuple[list[Refund], str]:
    """A page of refunds of a payment, newest first, and the token of the next.

    Raises:
        Problem: RESOURCE_NOT_FOUND, PAGE_TOKEN_INVALID.
    """
    arguments = {"list": "refunds", "payment_id": payment_id}
    position = decode_page_token(token, arguments)
    limit = page_size(size)
    async with database.transaction(tenant_id) as connection:
        await payments.get_payment(connection, payment_id)
        before_id = str(position["refund_id"]) if position else None
        found = await refunds.list_refunds(connection, payment_id, limit=limit + 1, before_id=before_id)
    page = found[:limit]
    more = len(found) > limit
    return page, encode_page_token({"refund_id": page[-1].refund_id}, arguments) if more else ""
