"""The payer gets one receipt, wherever the process is killed."""

from __future__ import annotations

import asyncpg
import pytest
from kente.notifications.v1 import message_pb2

from tests.harness import eventually
from tests.notifications.post_office import PostOffice, make_payment, new_address
from tests.notifications.process import ServiceProcess

# The stream gives an event that a dead process took to another one after half a minute.
_REDELIVERY_SECONDS = 60.0


async def _until_sending(admin: asyncpg.Connection, payment_id: str) -> str:
    """Waits until a payment's receipt is being handed over; its message id."""

    async def sending() -> str | None:
        found: str | None = await admin.fetchval(
            "SELECT message_id FROM messages WHERE source_id = $1 AND state = 'sending'", payment_id
        )
        return found

    message_id: str = await eventually(sending)
    return message_id


async def test_killed_after_the_server_took_it_sends_no_second_one(
    process_office: PostOffice, process: ServiceProcess, admin: asyncpg.Connection
) -> None:
    """The only window in doubt: the mail server has the message, and our commit is missing."""
    await process_office.connect(timeout_seconds="5")
    payment = make_payment()
    process_office.payments.keep(process_office.tenant_id, payment)
    await process_office.plan_fault("timeout_after_commit")

    await process_office.publish_success(payment)

    async def delivered() -> bool:
        return bool(await process_office.mailbox(payment.payer.email))

    await eventually(delivered)
    message_id = await _until_sending(admin, payment.payment_id)
    await process.kill()
    await process.start()
    message = await process_office.until_final(message_id)

    assert (message.state, message.attempts) == (message_pb2.Message.STATE_SENT, 1)
    assert len(await process_office.mailbox(payment.payer.email)) == 1


async def test_killed_before_the_server_took_it_sends_it_after_all(
    process_office: PostOffice, process: ServiceProcess, admin: asyncpg.Connection
) -> None:
    """The mail server has read the message and did nothing with it: it is proven so, then sent again."""
    await process_office.connect(timeout_seconds="2")
    payment = make_payment()
    process_office.payments.keep(process_office.tenant_id, payment)
    await process_office.plan_fault("timeout_before")

    await process_office.publish_success(payment)
    message_id = await _until_sending(admin, payment.payment_id)
    await process_office.until_faults_are_taken()
    await process.kill()
    await process.start()
    message = await process_office.until_final(message_id)

    assert (message.state, message.attempts) == (message_pb2.Message.STATE_SENT, 2)
    assert len(await process_office.mailbox(payment.payer.email)) == 1


@pytest.mark.parametrize("queued", [0, 3])
async def test_killed_at_any_time_the_payer_has_one_receipt(
    process_office: PostOffice, process: ServiceProcess, admin: asyncpg.Connection, queued: int
) -> None:
    """Events arrive, the process dies somewhere between them and their last commit, and comes back."""
    await process_office.connect(timeout_seconds="2")
    made = [
        make_payment(payer={"email": new_address(word), "display_name": "Ama"})
        for word in ("ama", "dropped", "lost", "kofi", "esi", "closing")
    ]
    for payment in made:
        process_office.payments.keep(process_office.tenant_id, payment)
        await process_office.publish_success(payment)

    async def some_are_there() -> bool:
        count: int = await admin.fetchval(
            "SELECT count(*) FROM messages WHERE tenant_id = $1", process_office.tenant_id
        )
        return count >= queued

    await eventually(some_are_there)
    await process.kill()
    await process.start()

    for payment in made:
        receipt = await process_office.until_receipt(payment, _REDELIVERY_SECONDS)
        message = await process_office.until_final(receipt.message_id)
        assert message.state == message_pb2.Message.STATE_SENT
        assert len(await process_office.mailbox(payment.payer.email)) == 1
