"""The jobs of payments. None of them may ever give up: money is behind each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import structlog

from mesh.jobs import Job, JobHandler, RetryLater
from mesh.redaction import mask_text
from services.payments.use_cases.create_refund import resolve_refund
from services.payments.use_cases.desk import Desk
from services.payments.use_cases.post_to_ledger import post_payment, post_refund
from services.payments.use_cases.process_webhook import process_webhook
from services.payments.use_cases.resolve_payment import resolve_payment
from services.payments.use_cases.settle_adjustment import resolve_adjustment

log = structlog.get_logger()

_FIRST_PAUSE_SECONDS = 0.5
_DOUBLINGS_MAX = 10

Step = Callable[[Desk, str, str], Awaitable[float | None]]


def handlers(desk: Desk) -> Mapping[str, JobHandler]:
    """The handlers by the names that the jobs are enqueued under."""
    return {
        "resolve_payment": _persistent(desk, _stepwise(desk, resolve_payment, "payment_id")),
        "resolve_refund": _persistent(desk, _stepwise(desk, resolve_refund, "refund_id")),
        "resolve_adjustment": _persistent(desk, _stepwise(desk, resolve_adjustment, "adjustment_id")),
        "process_webhook": _persistent(desk, _stepwise(desk, process_webhook, "webhook_id")),
        "post_to_ledger": _persistent(desk, _posting(desk)),
    }


def _stepwise(desk: Desk, step: Step, subject: str) -> JobHandler:
    async def handle(job: Job) -> None:
        pause_seconds = await step(desk, job.tenant_id, job.payload[subject])
        if pause_seconds is not None:
            raise RetryLater(pause_seconds)

    return handle


def _posting(desk: Desk) -> JobHandler:
    async def handle(job: Job) -> None:
        refund_id = job.payload.get("refund_id")
        if refund_id:
            pause_seconds = await post_refund(desk, job.tenant_id, refund_id)
        else:
            pause_seconds = await post_payment(desk, job.tenant_id, job.payload["payment_id"])
        if pause_seconds is not None:
            raise RetryLater(pause_seconds)

    return handle


def _persistent(desk: Desk, handler: JobHandler) -> JobHandler:
    """A handler that runs again whatever it meets. The job runner would hold a job that failed too often."""

    async def handle(job: Job) -> None:
        try:
            await handler(job)
        except RetryLater:
            raise
        except Exception as error:
            longest = desk.settings.ledger_retry_longest_seconds
            pause_seconds = min(_FIRST_PAUSE_SECONDS * 2.0 ** min(job.attempt - 1, _DOUBLINGS_MAX), longest)
            failure = mask_text(f"{type(error).__name__}: {error}")[:300]
            log.warning("payments_job_waits", job=job.name, attempt=job.attempt, failure=failure, **job.payload)
            raise RetryLater(pause_seconds) from error

    return handle
