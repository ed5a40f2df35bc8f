"""Books what was taken or given back. Tried until the ledger has it; its own transaction id makes it happen once.

A capture:  debit assets:providers:<provider>:<currency>, credit liabilities:merchant:<currency>.
A refund:   the reverse.
"""

from __future__ import annotations

from kente.ledger.v1 import ledger_pb2

from mesh.clock import utc_now
from mesh.ids import derive_id, derive_uuid
from services.payments.model import LedgerState, Payment, Refund
from services.payments.peers import Posting
from services.payments.repository.payments import get_payment
from services.payments.repository.refunds import get_refund
from services.payments.use_cases.desk import Desk


async def post_payment(desk: Desk, tenant_id: str, payment_id: str, run: int) -> None:
    """Posts the capture of a payment. The current call must be the tenant's; `run` counts the tries.

    Raises:
        Problem: the ledger could not do it; to be tried again.
    """
    async with desk.database.transaction(tenant_id) as connection:
        payment = await get_payment(connection, payment_id)
    if payment.ledger_state is not LedgerState.QUEUED:
        return
    charge = payment.charge
    provider = payment.route.provider if charge is None else charge.call.provider
    provider_account, merchant_account = await _accounts(desk, payment, provider)
    posting = Posting(
        transaction_id=derive_id("txn", payment_id, "capture"),
        source_id=payment_id,
        description=f"Payment {payment_id} by {provider}",
        amount=payment.money(payment.captured_minor),
        debit_account=provider_account,
        credit_account=merchant_account,
    )
    await desk.ledger.post(posting, request_id=derive_uuid(posting.transaction_id, str(run)))
    async with desk.database.transaction(tenant_id) as connection:
        before = await get_payment(connection, payment_id, lock=True)
        await desk.write_payment(connection, before, before.posted(posting.transaction_id))


async def post_refund(desk: Desk, tenant_id: str, refund_id: str, run: int) -> None:
    """Posts a refund. As post_payment."""
    async with desk.database.transaction(tenant_id) as connection:
        refund = await get_refund(connection, refund_id)
        payment = await get_payment(connection, refund.payment_id)
    if refund.ledger_state is not LedgerState.QUEUED:
        return
    provider_account, merchant_account = await _accounts(desk, payment, refund.call.provider)
    posting = _refund_posting(refund, provider_account, merchant_account)
    await desk.ledger.post(posting, request_id=derive_uuid(posting.transaction_id, str(run)))
    async with desk.database.transaction(tenant_id) as connection:
        payment = await get_payment(connection, refund.payment_id, lock=True)
        before = await get_refund(connection, refund_id, lock=True)
        await desk.write_refund(connection, before, before.posted(posting.transaction_id, utc_now()), payment)


def _refund_posting(refund: Refund, provider_account: str, merchant_account: str) -> Posting:
    return Posting(
        transaction_id=derive_id("txn", refund.refund_id, "refund"),
        source_id=refund.payment_id,
        description=f"Refund {refund.refund_id} of payment {refund.payment_id} by {refund.call.provider}",
        amount=refund.amount,
        debit_account=merchant_account,
        credit_account=provider_account,
    )


async def _accounts(desk: Desk, payment: Payment, provider: str) -> tuple[str, str]:
    currency = payment.amount.currency
    provider_account = f"assets:providers:{provider}:{currency.lower()}"
    merchant_account = f"liabilities:merchant:{currency.lower()}"
    tenant_id = payment.tenant_id
    await desk.ledger.ensure_account(tenant_id, provider_account, ledger_pb2.Account.TYPE_ASSET, currency)
    await desk.ledger.ensure_account(tenant_id, merchant_account, ledger_pb2.Account.TYPE_LIABILITY, currency)
    return provider_account, merchant_account
