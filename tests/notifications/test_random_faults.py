"""Under a storm of faults of the mail server, every recipient has the message once."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kente.notifications.v1 import message_pb2

from mesh.sandbox.server import Sandbox
from mesh.sandbox.settings import SandboxSettings
from tests.notifications.post_office import PostOffice, new_address, smtp_url

_MESSAGES = 40


async def test_every_message_is_delivered_once_under_random_faults(office: PostOffice, tmp_path: Path) -> None:
    """Time-outs, resets and garbage at random, in the dialogue and in the trace: never none, never two."""
    settings = SandboxSettings.model_validate(
        {
            "port": 0,
            "smtp_port": 0,
            "hang_seconds": 30.0,
            "fault_rate": 0.5,
            "seed": 7,
        }
    )
    stormy = Sandbox(settings, "127.0.0.1", tmp_path / "stormy.db")
    await stormy.start()
    try:
        await office.connect(smtp_url(stormy), trace_url=f"{stormy.url}/smtp/trace", timeout_seconds="0.5")
        recipients = [new_address() for _ in range(_MESSAGES)]
        queued = await asyncio.gather(*(office.send(recipient) for recipient in recipients))

        ended = await asyncio.gather(*(office.until_final(message.message_id, 90.0) for message in queued))

        assert {message.state for message in ended} == {message_pb2.Message.STATE_SENT}
        shelf = stormy.simulators["smtp"].shelf
        delivered = [(shelf.get("mailbox", recipient) or {"queue_ids": []})["queue_ids"] for recipient in recipients]
        assert [len(queue_ids) for queue_ids in delivered] == [1] * _MESSAGES
        # Each message names the delivery that there was.
        assert [[message.provider_reference] for message in ended] == delivered
        assert max(message.attempts for message in ended) > 1
    finally:
        await stormy.stop()
