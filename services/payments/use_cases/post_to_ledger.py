"""Books what was taken or given back. Tried until the ledger has it, and booked once.

A capture:  debit assets:providers:<provider>:<currency>, credit liabilities:merchant:<currency>.
A refund:   the reverse.

The transaction id makes a posting happen once. The ledger remembers a refusal by it as well, for ever, and what was
refused, such as a posting to a frozen account, can be right later. So after a refusal the next id is used. That
it is its turn is written down before it is sent, and only after the ledger has refused the id before; never after
silence, for then that may have been booked. So of all these ids at most one is ever booked.
"""

from __future__ import annotations

from typing import Final

import grpc
import structlog
from kente.ledger.v1 import ledger_pb2
from prometheus_client import Counter

from mesh.clock import utc_now
from mesh.errors import Problem, Reason
from mesh.ids import derive_id
from services.payments.model import LedgerState, Payment, Refund
from services.payments.peers import Posting
from services.payments.repository.payments import get_payment
from services.payments.repository.refunds import get_refund
from services.payments.use_cases.desk import Desk

log = structlog.get_logger()

LEDGER_REFUSALS = Counter(
    "kente_payments_ledger_refusals_total",
    "Postings that the ledger refused, by reason. They are tried again.",
    ["reason"],
)

_FIRST_PAUSE_SECONDS = 0.5
_DOUBLINGS_MAX = 20
# What the ledger answers for ever to the same id.
_FINAL_CODES: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
    }
)
# Said about the form of a request, before the ledger looks whether it has the id.
_FORMAL_REASONS: Final = frozenset({Reason.FIELD_INVALID, Reason.BODY_MALFORMED})


async def post_payment(desk: Desk, tenant_id: str, payment_id: str) -> float | None:
    """Posts the capture of a payment. The current call must be the tenant's.

    Returns:
        Seconds to wait before another try, or None when it is booked.

    Raises:
        Problem: the ledger is away, or did not say whether it booked it; to be tried again.
    """
    async with desk.database.transaction(tenant_id) as connection:
        payment = await get_payment(connection, payment_id)
    if payment.ledger_state is not LedgerState.QUEUED:
        return None
    charge = payment.charge
    provider = payment.route.provider if charge is None else charge.call.provider
    provider_account, merchant_account = await _accounts(desk, payment, provider)
    posting = Posting(
        transaction_id=_transaction_id(payment_id, "capture", payment.ledger_refusals),
        source_id=payment_id,
        description=f"Payment {payment_id} by {provider}",
        amount=payment.money(payment.captured_minor),
        debit_account=provider_account,
        credit_account=merchant_account,
    )
    refusal = await _post(desk, tenant_id, posting)
    async with desk.database.transaction(tenant_id) as connection:
        before = await get_payment(connection, payment_id, lock=True)
        if refusal is None:
            await desk.write_payment(connection, before, before.posted(posting.transaction_id))
            return None
        # Another run may have been here meanwhile.
        if _is_open(before, payment):
            after = before.refused(refusal.reason_name, is_final=_is_final(refusal))
            await desk.write_payment(connection, before, after)
    return _pause_seconds(desk, refusal, payment.ledger_refusals)


async def post_refund(desk: Desk, tenant_id: str, refund_id: str) -> float | None:
    """Posts a refund. As post_payment."""
    async with desk.database.transaction(tenant_id) as connection:
        refund = await get_refund(connection, refund_id)
        payment = await get_payment(connection, refund.payment_id)
    if refund.ledger_state is not LedgerState.QUEUED:
        return None
    provider_account, merchant_account = await _accounts(desk, payment, refund.call.provider)
    posting = Posting(
        transaction_id=_transaction_id(refund_id, "refund", refund.ledger_refusals),
        source_id=refund.payment_id,
        description=f"Refund {refund_id} of payment {refund.payment_id} by {refund.call.provider}",
        amount=refund.amount,
        debit_account=merchant_account,
        credit_account=provider_account,
    )
    refusal = await _post(desk, tenant_id, posting)
    async with desk.database.transaction(tenant_id) as connection:
        payment = await get_payment(connection, refund.payment_id, lock=True)
        before = await get_refund(connection, refund_id, lock=True)
        if refusal is None:
            await desk.write_refund(connection, before, before.posted(posting.transaction_id, utc_now()), payment)
            return None
        if _is_open(before, refund):
            after = before.refused(refusal.reason_name, is_final=_is_final(refusal))
            await desk.write_refund(connection, before, after, payment)
    return _pause_seconds(desk, refusal, refund.ledger_refusals)


def _transaction_id(subject_id: str, what: str, refusals: int) -> str:
    return derive_id("txn", subject_id, what, *([str(refusals)] if refusals else []))


async def _post(desk: Desk, tenant_id: str, posting: Posting) -> Problem | None:
    """Posts; None when it is booked, else what the ledger refuses it for.

    Raises:
        Problem: nobody knows whether it is booked, or the ledger could not look at it.
    """
    try:
        await desk.ledger.post(tenant_id, posting)
    except Problem as problem:
        # Under the same id the ledger has something else: a fault of ours, and another id could book it twice.
        is_conflict = problem.code is grpc.StatusCode.ALREADY_EXISTS
        if not is_conflict and not _is_final(problem):
            raise
        LEDGER_REFUSALS.labels(problem.reason_name).inc()
        told = log.error if is_conflict else log.warning
        told(
            "posting_refused",
            reason=problem.reason_name,
            transaction_id=posting.transaction_id,
            source_id=posting.source_id,
            metadata=problem.metadata,
        )
        return problem
    return None


def _is_final(problem: Problem) -> bool:
    return problem.code in _FINAL_CODES and problem.reason not in _FORMAL_REASONS


def _is_open(found: Payment | Refund, tried: Payment | Refund) -> bool:
    return found.ledger_state is LedgerState.QUEUED and found.ledger_refusals == tried.ledger_refusals


def _pause_seconds(desk: Desk, refusal: Problem, refusals: int) -> float:
    longest = desk.settings.ledger_refused_longest_seconds
    if not _is_final(refusal):
        return longest
    # Every try leaves a refusal in the ledger for ever, so the pauses grow longer than those of an outage.
    growing: float = _FIRST_PAUSE_SECONDS * 2.0 ** min(refusals, _DOUBLINGS_MAX)
    return min(growing, longest)


async def _accounts(desk: Desk, payment: Payment, provider: str) -> tuple[str, str]:
    currency = payment.amount.currency
    provider_account = f"assets:providers:{provider}:{currency.lower()}"
    merchant_account = f"liabilities:merchant:{currency.lower()}"
    tenant_id = payment.tenant_id
    await desk.ledger.ensure_account(tenant_id, provider_account, ledger_pb2.Account.TYPE_ASSET, currency)
    await desk.ledger.ensure_account(tenant_id, merchant_account, ledger_pb2.Account.TYPE_LIABILITY, currency)
    return provider_account, merchant_account
