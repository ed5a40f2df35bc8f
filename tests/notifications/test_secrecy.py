"""Whoever reads logs, spans, events or jobs learns nothing about a payer, and no credential."""

from __future__ import annotations

import asyncpg
from kente.payments.v1.payment_pb2 import Payer

from services.notifications.providers.smtp.simulator import PASSWORD, USERNAME
from tests.notifications.post_office import VARIABLES, PostOffice, make_payment, new_address
from tests.notifications.process import ServiceProcess

# In what a message holds for its recipient, and nowhere else.
NAME, NOTE = "Akosua Nyarko-Sarpong", "chemotherapy instalment"


# What the owner of a message gets to read: the message, and the answer to its request.
_OWNERS = ("messages", "idempotency")


async def _tables(admin: asyncpg.Connection) -> str:
    """Everything in the tables that are not for the owner of a message."""
    names = await admin.fetch(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'notifications'"
        " AND table_type = 'BASE TABLE' AND NOT table_name = ANY($1)",
        _OWNERS,
    )
    rows = [row for name in names for row in await admin.fetch(f"SELECT * FROM {name[0]}")]  # noqa: S608 - its own tables
    return repr([tuple(row.values()) for row in rows])


async def test_nothing_about_a_payer_leaves_the_message(
    process_office: PostOffice, process: ServiceProcess, admin: asyncpg.Connection
) -> None:
    """Sent, refused, in doubt, and asked for by a caller who made mistakes: all at the most talkative log level."""
    office = process_office
    await office.connect()
    recipients = [new_address(word) for word in ("ama", "unknown", "greylist", "dropped", "policy")]
    for recipient in recipients:
        payment = make_payment(payer=Payer(display_name=NAME, email=recipient), description=NOTE)
        office.payments.keep(office.tenant_id, payment)
        await office.publish_success(payment)
        await office.until_final((await office.until_receipt(payment)).message_id)
    asked = new_address()
    await office.until_final((await office.send(asked, variables=VARIABLES | {"payer_name": NAME})).message_id)
    failures = [message.failure for message in (await office.page()).messages]
    await process.stop()

    told = process.output() + await _tables(admin) + "".join(failures)
    assert "message_ended" in told
    assert "provider_called" in told
    secrets = [*recipients, asked, NAME, NOTE, PASSWORD, USERNAME, *(value.split("@")[0] for value in recipients)]
    assert [secret for secret in secrets if secret in told] == []
