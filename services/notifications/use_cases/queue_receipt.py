"""Turns a payment that succeeded into a receipt to its payer."""

from __future__ import annotations

from datetime import UTC, datetime

import structlog

from mesh import jobs
from mesh.bus import CloudEvent
from mesh.database import Connection, Database
from mesh.jobs import Job
from mesh.money import Money
from services.notifications import templates
from services.notifications.peers import Payments
from services.notifications.settings import NotificationsSettings
from services.notifications.use_cases.queue_message import draft_message, queue_message

log = structlog.get_logger()

TEMPLATE = "payment_receipt"
PREPARE_RECEIPT = "prepare_receipt"


class ReceiptQueue:
    """Handles payments.payment.succeeded: first the event, then a job that reads the payment.

    The event's payer is masked, and asking another service inside of the event's transaction would hold it open.
    """

    def __init__(self, database: Database, payments: Payments, settings: NotificationsSettings) -> None:
        self._database = database
        self._payments = payments
        self._settings = settings

    async def handle_event(self, connection: Connection, event: CloudEvent) -> None:
        """Enqueues the receipt's preparation, in the transaction that remembers the event."""
        if not self._settings.receipts:
            return
        await jobs.enqueue(
            connection,
            PREPARE_RECEIPT,
            {"payment_id": event.subject_id, "succeed_time": event.time},
            tenant_id=event.tenant_id,
            key=f"{PREPARE_RECEIPT}:{event.subject_id}",
        )

    async def prepare_receipt(self, job: Job) -> None:
        """Queues the receipt, once for a payment; none when the payer gave no address.

        Raises:
            Problem: payments is away; the job is run again.
        """
        payment_id = str(job.payload["payment_id"])
        payment = await self._payments.read(payment_id)
        if not payment.payer_email:
            log.info("receipt_not_wanted", payment_id=payment_id)
            return
        variables = {
            "amount": amount_for_people(payment.amount),
            "payment_id": payment_id,
            "paid_time": time_for_people(datetime.fromisoformat(str(job.payload["succeed_time"]))),
            "payer_name": payment.payer_name,
            "description": payment.description,
            "merchant_reference": payment.merchant_reference,
            "method": payment.method,
        }
        draft = draft_message(
            templates.render(TEMPLATE, self._settings.receipt_locale, variables),
            tenant_id=job.tenant_id,
            cause=f"{TEMPLATE}:{payment_id}",
            template=TEMPLATE,
            recipient=payment.payer_email,
            source_id=payment_id,
            domain=self._settings.message_domain,
        )
        async with self._database.transaction(job.tenant_id) as connection:
            await queue_message(connection, draft)


def amount_for_people(amount: Money) -> str:
    """The amount with its currency and the currency's decimals: "GHS 1,250.50", "JPY 1,050", "BHD 1.050"."""
    return f"{amount.currency} {amount.to_decimal():,f}"


def time_for_people(time: datetime) -> str:
    """The time in UTC to the minute: "21 November 2026, 10:35 UTC"."""
    return f"{time.astimezone(UTC):%d %B %Y, %H:%M} UTC".lstrip("0")
