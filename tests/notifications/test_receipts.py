"""A payment that succeeded becomes one receipt to its payer."""

from __future__ import annotations

import asyncpg
import pytest
from kente.common.v1.money_pb2 import Money
from kente.notifications.v1 import message_pb2
from kente.payments.v1 import payment_pb2

from tests.harness import eventually
from tests.notifications.post_office import PostOffice, make_payment


async def test_the_payer_gets_a_receipt(office: PostOffice) -> None:
    """Amount, payment, time and the merchant's reference arrive by real SMTP, and the message says so."""
    connection = await office.connect()
    payment = make_payment()
    office.payments.keep(office.tenant_id, payment)

    await office.publish_success(payment)
    message = await office.until_final((await office.until_receipt(payment)).message_id)

    [delivery] = await office.mailbox(payment.payer.email)
    assert message.state == message_pb2.Message.STATE_SENT
    assert (message.provider, message.connection_id, message.attempts) == ("smtp", connection.connection_id, 1)
    assert message.provider_reference != ""
    assert message.failure == ""
    assert delivery["message_id"].startswith(f"{message.message_id}@")
    assert delivery["subject"] == message.subject == "Receipt: GHS 10.50 paid"
    assert delivery["from"] == "Kente sandbox <receipts@sandbox.kente.example>"
    for body in (delivery["text"], delivery["html"]):
        for part in ("Ama Mensah", "GHS 10.50", payment.payment_id, "order-17", "Two tickets", "ending in 567", "UTC"):
            assert part in body


@pytest.mark.parametrize(
    ("amount_minor", "currency", "shown"),
    [(125_050, "GHS", "GHS 1,250.50"), (1050, "JPY", "JPY 1,050"), (1050, "BHD", "BHD 1.050"), (5, "USD", "USD 0.05")],
)
async def test_amounts_have_the_decimals_of_their_currency(
    office: PostOffice, amount_minor: int, currency: str, shown: str
) -> None:
    """A receipt never shows a hundredth or a hundredfold of what was paid."""
    await office.connect()
    payment = make_payment(captured_amount=Money(amount_minor=amount_minor, currency=currency))
    office.payments.keep(office.tenant_id, payment)

    await office.publish_success(payment)
    message = await office.until_final((await office.until_receipt(payment)).message_id)

    [delivery] = await office.mailbox(payment.payer.email)
    assert message.subject == f"Receipt: {shown} paid"
    assert shown in delivery["text"]


async def test_an_event_published_twice_gives_one_receipt(office: PostOffice) -> None:
    """Neither the same event again nor another event about the same payment makes a second one."""
    await office.connect()
    payment, later = make_payment(), make_payment()
    for each in (payment, later):
        office.payments.keep(office.tenant_id, each)

    event_id = await office.publish_success(payment)
    await office.until_final((await office.until_receipt(payment)).message_id)
    await office.publish_success(payment, event_id)
    await office.publish_success(payment)
    await office.publish_success(later)
    await office.until_final((await office.until_receipt(later)).message_id)

    assert len((await office.page(source_id=payment.payment_id)).messages) == 1
    assert len(await office.mailbox(payment.payer.email)) == 1


async def test_no_address_means_no_receipt(office: PostOffice, admin: asyncpg.Connection) -> None:
    """A payer without an address is read once, and nothing is queued."""
    await office.connect()
    payment = make_payment(payer=payment_pb2.Payer(display_name="Ama Mensah"))
    office.payments.keep(office.tenant_id, payment)
    reads_before = office.payments.reads

    await office.publish_success(payment)

    async def was_read() -> bool:
        return office.payments.reads > reads_before

    async def is_over() -> bool:
        waiting = await admin.fetchval("SELECT count(*) FROM pgqueuer WHERE entrypoint = 'prepare_receipt'")
        return bool(waiting == 0)

    await eventually(was_read)
    await eventually(is_over)
    assert (await office.page()).messages == []


async def test_a_receipt_waits_for_payments_to_come_back(office: PostOffice) -> None:
    """While payments is away nothing is lost; the receipt follows."""
    await office.connect()
    payment = make_payment()
    office.payments.keep(office.tenant_id, payment)
    await office.payments.stop()

    await office.publish_success(payment)
    await office.payments.start()
    message = await office.until_final((await office.until_receipt(payment)).message_id)

    assert message.state == message_pb2.Message.STATE_SENT
    assert len(await office.mailbox(payment.payer.email)) == 1


async def test_a_receipt_waits_for_a_connection(office: PostOffice) -> None:
    """Without a connection the message is queued with a visible failure, and sent once there is one."""
    payment = make_payment()
    office.payments.keep(office.tenant_id, payment)

    await office.publish_success(payment)
    receipt = await office.until_receipt(payment)
    waiting = await office.until_failure(receipt.message_id, "no connection")
    await office.connect()
    sent = await office.until_final(receipt.message_id)

    assert waiting.state == message_pb2.Message.STATE_QUEUED
    assert waiting.attempts == 0
    assert sent.state == message_pb2.Message.STATE_SENT
    assert sent.failure == ""


async def test_text_of_a_payment_can_not_break_out(office: PostOffice) -> None:
    """What payer and merchant wrote stays one line of text, escaped in HTML, and never becomes a header."""
    await office.connect()
    payment = make_payment(description="<b>x</b>\r\nBcc: eve@example.com\r\n\r\nAmount: GHS 0.01 & {{ 7 * 7 }}")
    office.payments.keep(office.tenant_id, payment)

    await office.publish_success(payment)
    await office.until_final((await office.until_receipt(payment)).message_id)

    [delivery] = await office.mailbox(payment.payer.email)
    assert delivery["to"] == [payment.payer.email]
    assert "<b>x</b> Bcc: eve@example.com Amount: GHS 0.01 & {{ 7 * 7 }}" in delivery["text"]
    assert "&lt;b&gt;x&lt;/b&gt;" in delivery["html"]
    assert "<b>x</b>" not in delivery["html"]
    assert await office.mailbox("eve@example.com") == []
