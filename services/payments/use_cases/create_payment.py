"""CreatePayment: choose a connection, write the payment, give it to the provider."""

from __future__ import annotations

from dataclasses import dataclass, field

from mesh.clock import utc_now
from mesh.errors import Problem, Reason, Violation
from mesh.ids import new_id
from mesh.money import Money, check_currency
from services.payments.model import CaptureMethod, Card, MobileMoney, Payer, Payment, Route
from services.payments.repository.payments import find_payment_by_request, insert_payment
from services.payments.routing import choose
from services.payments.use_cases.desk import Desk
from services.payments.use_cases.drive_payment import drive_payment, next_step, raise_if_credentials_refused
from services.payments.use_cases.resolve_payment import resolve_payment


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPayment:
    """What the caller asks for. `connection_id` replaces routing; empty for routing."""

    request_id: str
    request_fingerprint: bytes = field(repr=False)
    amount: Money
    method: MobileMoney | Card
    payer: Payer
    connection_id: str
    description: str
    merchant_reference: str
    capture_method: CaptureMethod


async def create_payment(desk: Desk, tenant_id: str, order: NewPayment) -> Payment:
    """Creates a payment and gives it to a provider; finds the payment of an earlier run of the same request.

    Raises:
        Problem: FIELD_INVALID, NO_ROUTE, CONNECTION_CREDENTIALS_REFUSED, REQUEST_ID_REUSED.
    """
    payment = await _existing(desk, tenant_id, order)
    if payment is not None:
        # A process died over the first run, or the caller's patience ended: go on where it left off.
        await resolve_payment(desk, tenant_id, payment.payment_id)
        payment = await _existing(desk, tenant_id, order) or payment
    else:
        check_currency(order.amount.currency, "amount.currency")
        payment = await _created(desk, tenant_id, order, await _route(desk, tenant_id, order))
    raise_if_credentials_refused(payment)
    return payment


async def _existing(desk: Desk, tenant_id: str, order: NewPayment) -> Payment | None:
    async with desk.database.transaction(tenant_id) as connection:
        payment = await find_payment_by_request(connection, tenant_id, order.request_id)
    if payment is not None and payment.request_fingerprint != order.request_fingerprint:
        detail = f"request_id {order.request_id} was used for another payment"
        raise Problem(Reason.REQUEST_ID_REUSED, detail, request_id=order.request_id)
    return payment


async def _route(desk: Desk, tenant_id: str, order: NewPayment) -> Route:
    links = await desk.providers.links(tenant_id)
    if order.connection_id:
        links = [link for link in links if link.connection_id == order.connection_id]
        if not links:
            detail = "is not a connection to a payment provider: choose one of ListConnections, or leave it out"
            raise Problem(Reason.FIELD_INVALID, violations=[Violation("connection_id", detail)])
    return choose(order.method, order.amount.currency, links, desk.providers.adapter_classes())


async def _created(desk: Desk, tenant_id: str, order: NewPayment, route: Route) -> Payment:
    now = utc_now()
    created = Payment(
        tenant_id=tenant_id,
        payment_id=new_id("pay"),
        request_id=order.request_id,
        request_fingerprint=order.request_fingerprint,
        amount=order.amount,
        method=order.method,
        payer=order.payer,
        description=order.description,
        merchant_reference=order.merchant_reference,
        capture_method=order.capture_method,
        route=route,
        create_time=now,
        update_time=now,
    )
    async with desk.database.transaction(tenant_id) as connection:
        if not await insert_payment(connection, created):
            attempt_id = None
        else:
            await desk.payment_event(connection, created, "created")
            payment, attempt_id = next_step(created, desk.settings, now)
            payment = await desk.write_payment(connection, created, payment)
            await desk.watch_over(connection, "resolve_payment", tenant_id, payment_id=payment.payment_id)
    if attempt_id is None:
        # The same request at the same time: the other run has the payment and sends it.
        return await _existing(desk, tenant_id, order) or created
    return await drive_payment(desk, payment, attempt_id)
