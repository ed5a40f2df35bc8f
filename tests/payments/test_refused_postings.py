"""What the ledger refuses is queued, says why, and is booked once when the cause is gone, whatever breaks meanwhile."""

from __future__ import annotations

import asyncio

import pytest
from kente.ledger.v1 import ledger_pb2, ledger_service_pb2
from kente.payments.v1 import payment_pb2, payment_service_pb2
from prometheus_client import REGISTRY

from mesh.ids import derive_id
from services.payments.use_cases.desk import Desk
from services.payments.use_cases.post_to_ledger import post_payment, post_refund
from tests.harness import eventually
from tests.payments.mortal import count_moments, live_until
from tests.payments.till import Till, money, new_request_id

Payment = payment_pb2.Payment
MERCHANT = "liabilities:merchant:ghs"


@pytest.fixture
async def paid(till: Till) -> Payment:
    """A payment of GHS 10.50 that is booked, so that the accounts are there."""
    return await till.ended((await till.create()).payment_id)


async def freeze(till: Till) -> None:
    """Lets nothing be posted to the merchant's account."""
    request = ledger_service_pb2.FreezeAccountRequest(request_id=new_request_id(), account_name=MERCHANT)
    await till.ledger.FreezeAccount(request)


async def reopen(till: Till) -> None:
    """Lets the merchant's account be posted to again."""
    request = ledger_service_pb2.OpenAccountRequest(request_id=new_request_id(), account_name=MERCHANT)
    await till.ledger.OpenAccount(request)


async def refused(till: Till, payment_id: str, reason: str) -> Payment:
    """The payment once the ledger has refused it for a reason."""

    async def check() -> Payment | None:
        found = await till.get(payment_id)
        return found if found.ledger_refusal_reason == reason else None

    found: Payment = await eventually(check)
    assert (found.state, found.ledger_state) == (Payment.STATE_SUCCEEDED, Payment.LEDGER_STATE_QUEUED)
    return found


async def refusals_of(till: Till, payment_id: str) -> int:
    """How many ids the ledger has refused for a payment, as payments wrote it down."""
    (row,) = await till.rows("SELECT ledger_refusals FROM payments WHERE payment_id = $1", payment_id)
    return int(row["ledger_refusals"])


def counted(reason: str) -> float:
    """What the metric says."""
    return REGISTRY.get_sample_value("kente_payments_ledger_refusals_total", {"reason": reason}) or 0.0


async def test_a_payment_to_a_frozen_account_is_queued_says_why_and_is_booked_once_it_is_opened(
    till: Till, paid: Payment
) -> None:
    await freeze(till)
    before = counted("ACCOUNT_NOT_OPEN")
    payment = await refused(till, (await till.create()).payment_id, "ACCOUNT_NOT_OPEN")
    assert counted("ACCOUNT_NOT_OPEN") > before
    assert await till.entries(payment.payment_id) == []
    await reopen(till)
    booked = await till.ended(payment.payment_id)
    refusals = await refusals_of(till, payment.payment_id)
    assert refusals > 0
    assert booked.ledger_refusal_reason == ""
    assert booked.ledger_transaction_id == derive_id("txn", payment.payment_id, "capture", str(refusals))
    assert len(await till.entries(payment.payment_id)) == 2
    assert await till.balance(MERCHANT) == 2 * paid.amount.amount_minor


async def test_a_payment_over_a_limit_is_booked_once_the_limit_is_raised(till: Till) -> None:
    limits = ledger_pb2.AccountLimits(max_balance_minor=1000)
    # The tenant may well have made the account for itself.
    await till.ledger.CreateAccount(
        ledger_service_pb2.CreateAccountRequest(
            request_id=new_request_id(),
            account_name=MERCHANT,
            type=ledger_pb2.Account.TYPE_LIABILITY,
            currency="GHS",
            limits=limits,
        )
    )
    payment = await refused(till, (await till.create()).payment_id, "BALANCE_LIMIT_EXCEEDED")
    limits.max_balance_minor = 1050
    request = ledger_service_pb2.UpdateAccountRequest(request_id=new_request_id(), account_name=MERCHANT, limits=limits)
    request.update_mask.paths.append("limits")
    await till.ledger.UpdateAccount(request)
    assert (await till.ended(payment.payment_id)).ledger_state == Payment.LEDGER_STATE_POSTED
    assert await till.balance(MERCHANT) == 1050


async def test_a_refund_from_a_frozen_account_is_queued_says_why_and_is_booked_once_it_is_opened(
    till: Till, paid: Payment
) -> None:
    await freeze(till)
    created = await till.refund(paid.payment_id, money(300))
    request = payment_service_pb2.GetRefundRequest(payment_id=paid.payment_id, refund_id=created.refund_id)

    async def check() -> bool:
        found = (await till.payments.GetRefund(request)).refund
        return found.ledger_refusal_reason == "ACCOUNT_NOT_OPEN"

    await eventually(check)
    # Another process is at the same posting, and dies.
    for moment in range(1, 8):
        await live_until(till, moment, lambda desk: post_refund(desk, till.tenant_id, created.refund_id))
    await reopen(till)
    refund = await till.refund_ended(created)
    assert (refund.ledger_state, refund.ledger_refusal_reason) == (Payment.LEDGER_STATE_POSTED, "")
    assert refund.ledger_transaction_id != derive_id("txn", created.refund_id, "refund")
    assert len(await till.entries(paid.payment_id)) == 4
    assert await till.balance(MERCHANT) == 750


async def test_a_refused_posting_survives_a_kill_at_every_moment(till: Till, paid: Payment) -> None:
    async def post(desk: Desk) -> None:
        await post_payment(desk, till.tenant_id, payment_id)

    await freeze(till)
    payment_id = (await refused(till, (await till.create()).payment_id, "ACCOUNT_NOT_OPEN")).payment_id
    moments = await count_moments(till, post)
    assert moments == 6
    for moment in range(1, moments + 1):
        assert await live_until(till, moment, post)
    # What was tried next is the id after the last that was refused: no id is passed over.
    tried = await refusals_of(till, payment_id)
    answered = [
        row["transaction_id"]
        for row in await till.rows("SELECT transaction_id FROM ledger.refusals WHERE tenant_id = $1", till.tenant_id)
    ]
    ids = [derive_id("txn", payment_id, "capture", *([str(n)] if n else [])) for n in range(tried)]
    assert set(ids) <= set(answered)
    await reopen(till)
    assert (await till.ended(payment_id)).ledger_state == Payment.LEDGER_STATE_POSTED
    assert len(await till.entries(payment_id)) == 2
    assert await till.balance(MERCHANT) == 2 * paid.amount.amount_minor


async def test_many_processes_at_one_refused_posting_book_it_once(till: Till, paid: Payment) -> None:
    async def post(desk: Desk) -> None:
        for _ in range(5):
            await post_payment(desk, till.tenant_id, payment_id)

    await freeze(till)
    payment_id = (await refused(till, (await till.create()).payment_id, "ACCOUNT_NOT_OPEN")).payment_id
    await asyncio.gather(reopen(till), *(live_until(till, 0, post) for _ in range(8)))
    await till.ended(payment_id)
    assert len(await till.entries(payment_id)) == 2
    assert await till.balance(MERCHANT) == 2 * paid.amount.amount_minor


async def test_what_the_ledger_has_otherwise_is_said_and_never_tried_under_another_id(
    till: Till, paid: Payment
) -> None:
    # As a fault would leave it: queued again, with another amount.
    await till.rows(
        "UPDATE payments SET ledger_state = 'QUEUED', captured_minor = 1000, capture_minor = 1000,"
        " version = version + 1 WHERE payment_id = $1",
        paid.payment_id,
    )

    async def post(desk: Desk) -> None:
        assert await post_payment(desk, till.tenant_id, paid.payment_id) is not None

    for _ in range(2):
        await live_until(till, 0, post)
    await refused(till, paid.payment_id, "RESOURCE_ALREADY_EXISTS")
    assert await refusals_of(till, paid.payment_id) == 0
    assert len(await till.entries(paid.payment_id)) == 2
    assert await till.balance(MERCHANT) == 1050
