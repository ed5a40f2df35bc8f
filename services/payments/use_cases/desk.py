"""What every use case works with, and the only ways in which payments and refunds are written.

A write compares before with after and adds, in the same transaction, the events and jobs that the difference calls
for. So nothing can be left open without the job that will end it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog
from google.protobuf.message import Message
from prometheus_client import Counter

from mesh import jobs, outbox
from mesh.clock import utc_now
from mesh.database import Connection, Database
from mesh.outbox import Event
from services.payments.model import AnomalyKind, LedgerState, Payment, Refund, RefundState
from services.payments.peers import Ledger, Providers
from services.payments.provider import Outcome
from services.payments.repository.payments import save_payment
from services.payments.repository.refunds import save_refund
from services.payments.repository.webhooks import insert_anomaly
from services.payments.settings import PaymentsSettings

log = structlog.get_logger()

PAYMENTS_MOVED = Counter(
    "kente_payments_moved_total", "Payments by provider and the state reached.", ["provider", "state"]
)
REFUNDS_MOVED = Counter(
    "kente_refunds_moved_total", "Refunds by provider and the state reached.", ["provider", "state"]
)
ANOMALIES = Counter("kente_payments_anomalies_total", "What providers said that does not fit.", ["provider", "kind"])


@dataclass(frozen=True, slots=True)
class Desk:
    """What every use case works with.

    Attributes:
        describe_payment, describe_refund: make the contract's message, for events.
    """

    database: Database
    settings: PaymentsSettings
    providers: Providers
    ledger: Ledger
    describe_payment: Callable[[Payment], Message]
    describe_refund: Callable[[Refund], Message]

    async def payment_event(self, connection: Connection, payment: Payment, what: str) -> None:
        """Tells the mesh what happened to a payment."""
        await outbox.add(
            connection,
            Event(f"payments.payment.{what}", payment.tenant_id, payment.payment_id, self.describe_payment(payment)),
        )

    async def refund_event(self, connection: Connection, refund: Refund, what: str) -> None:
        """Tells the mesh what happened to a refund."""
        await outbox.add(
            connection,
            Event(f"payments.refund.{what}", refund.tenant_id, refund.refund_id, self.describe_refund(refund)),
        )

    async def write_payment(self, connection: Connection, before: Payment, after: Payment) -> Payment:
        """Writes a locked payment with all that follows from its change; does nothing when it has not changed.

        Returns:
            The payment as it now stands.
        """
        if after == before:
            return before
        if after.version == before.version:
            after = after.changed(utc_now())
        await save_payment(connection, before, after)
        if after.state is not before.state:
            PAYMENTS_MOVED.labels(after.route.provider, after.state).inc()
            await self.payment_event(connection, after, after.state.lower())
        if after.ledger_state is not before.ledger_state:
            if after.ledger_state is LedgerState.QUEUED:
                await self._enqueue(connection, "post_to_ledger", after.tenant_id, payment_id=after.payment_id)
            else:
                await self.payment_event(connection, after, "posted")
        return after

    async def write_refund(self, connection: Connection, before: Refund, after: Refund, payment: Payment) -> Refund:
        """Writes a refund whose payment is locked, with all that follows; does nothing when it has not changed."""
        if after == before:
            return before
        await save_refund(connection, after)
        if after.state is not before.state:
            REFUNDS_MOVED.labels(after.call.provider, after.state).inc()
            await self.refund_event(connection, after, after.state.lower())
        if after.state is RefundState.FAILED and before.state is not RefundState.FAILED:
            await self.write_payment(connection, payment, payment.freed(after.amount))
        if after.ledger_state is not before.ledger_state:
            if after.ledger_state is LedgerState.QUEUED:
                await self._enqueue(
                    connection,
                    "post_to_ledger",
                    after.tenant_id,
                    payment_id=after.payment_id,
                    refund_id=after.refund_id,
                )
            else:
                await self.refund_event(connection, after, "posted")
        return after

    async def keep_anomaly(
        self,
        connection: Connection,
        payment: Payment,
        subject_id: str,
        kind: AnomalyKind,
        outcome: Outcome,
    ) -> bool:
        """Keeps what does not fit; False when the provider said the same before, so that people are told once."""
        fresh = await insert_anomaly(
            connection,
            tenant_id=payment.tenant_id,
            payment_id=payment.payment_id,
            subject_id=subject_id,
            kind=kind,
            reported_state=outcome.state.value,
            reported_amount=outcome.amount,
            reference=outcome.reference,
            now=utc_now(),
        )
        if fresh:
            ANOMALIES.labels(payment.route.provider, kind).inc()
            log.error("payment_anomaly", payment_id=payment.payment_id, subject_id=subject_id, kind=kind)
        return fresh

    async def watch_over(self, connection: Connection, job: str, tenant_id: str, **payload: str) -> None:
        """Adds the job that drives something to its end, whatever happens to this process."""
        delay_seconds = self.settings.poll_first_seconds
        await jobs.enqueue(connection, job, payload, tenant_id=tenant_id, delay_seconds=delay_seconds)

    async def _enqueue(self, connection: Connection, job: str, tenant_id: str, **payload: str) -> None:
        await jobs.enqueue(connection, job, payload, tenant_id=tenant_id)
