"""Events from the transaction that writes them to the handler that they take effect in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from kente.payments.v1.payment_pb2 import Payment
from nats.aio.client import Client

import mesh.bus
import mesh.outbox
from mesh import outbox
from mesh.bus import CloudEvent, connect, ensure_stream, publish_again
from mesh.context import current_tenant_id
from mesh.database import Database
from mesh.errors import Problem, Reason
from mesh.outbox import OutboxRelay
from tests.harness import Infrastructure, eventually
from tests.mesh.stream import Recorder, published, running, write


@pytest.fixture
async def client(infrastructure: Infrastructure) -> AsyncIterator[Client]:
    """A connection to NATS."""
    opened = await connect(infrastructure.nats.url, "test")
    await ensure_stream(opened.jetstream(), 1)
    yield opened
    await opened.close()


@pytest.fixture
def recorder(database: Database, tenant_id: str) -> Recorder:
    """A consumer of this test's events."""
    return Recorder(database, tenant_id)


async def test_each_event_is_published_once_and_in_order_for_its_resource(
    database: Database, client: Client, tenant_id: str
) -> None:
    async with running(OutboxRelay(database, client, "ledger").run(), OutboxRelay(database, client, "ledger").run()):
        for step in range(20):
            await asyncio.gather(*(write(database, tenant_id, f"resource-{number}", step) for number in range(3)))

        async def all_out() -> bool:
            return len(await published(client, tenant_id)) == 60

        await eventually(all_out)
        events = await published(client, tenant_id)

    assert len({event["id"] for event in events}) == len(events) == 60
    for number in range(3):
        steps = [int(event["data"]["displayName"]) for event in events if event["subject"] == f"resource-{number}"]
        assert steps == list(range(20))


async def test_many_events_of_one_resource_written_before_the_relay_runs_keep_their_order(
    database: Database, client: Client, tenant_id: str
) -> None:
    for step in range(30):
        await write(database, tenant_id, "one", step)
        await write(database, tenant_id, f"other-{step}", step)
    async with running(OutboxRelay(database, client, "ledger").run()):

        async def all_out() -> bool:
            return len(await published(client, tenant_id)) == 60

        await eventually(all_out)
        events = await published(client, tenant_id)

    assert [event["data"]["displayName"] for event in events if event["subject"] == "one"] == [
        str(step) for step in range(30)
    ]


async def test_many_events_written_at_once_keep_their_order(database: Database, client: Client, tenant_id: str) -> None:
    events = [outbox.Event("ledger.account.created", tenant_id, "one", {"step": step}) for step in range(250)]
    async with running(OutboxRelay(database, client, "ledger").run()):
        async with database.transaction(tenant_id) as connection:
            event_ids = await outbox.add_all(connection, events)

        async def all_out() -> bool:
            return len(await published(client, tenant_id)) == len(events)

        await eventually(all_out)
        found = await published(client, tenant_id)

    assert [event["id"] for event in found] == event_ids
    assert [event["data"] for event in found] == [event.data for event in events]
    assert len({event["time"] for event in found}) == 1


async def test_of_many_events_all_are_written_or_none(database: Database, tenant_id: str) -> None:
    events = [
        outbox.Event("ledger.account.created", tenant_id, "one", {}),
        outbox.Event("ledger.account.created", tenant_id, "two", {"text": "x" * outbox.MAX_EVENT_BYTES}),
    ]
    async with database.transaction(tenant_id) as connection:
        with pytest.raises(ValueError, match="too large"):
            await outbox.add_all(connection, events)
        assert await outbox.add_all(connection, []) == []

        assert await connection.fetchval("SELECT count(*) FROM outbox") == 0


async def test_what_is_rolled_back_is_not_published(database: Database, client: Client, tenant_id: str) -> None:
    async def fail() -> None:
        async with database.transaction(tenant_id) as connection:
            await outbox.add(connection, outbox.Event("ledger.account.created", tenant_id, "never", Payment()))
            raise ValueError("rolled back")

    async with running(OutboxRelay(database, client, "ledger").run()):
        with pytest.raises(ValueError, match="rolled back"):
            await fail()
        event_id = await write(database, tenant_id, "one")

        async def out() -> bool:
            return bool(await published(client, tenant_id))

        await eventually(out)

    assert [event["id"] for event in await published(client, tenant_id)] == [event_id]


async def test_no_commit_is_missed_by_the_relay(
    database: Database, client: Client, recorder: Recorder, tenant_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It looks by itself only once an hour: all that is published, it was woken for.
    monkeypatch.setattr(mesh.outbox, "_POLL_SECONDS", 3600)
    async with running(OutboxRelay(database, client, "ledger").run(), recorder.runner(client).run()):
        for number in range(40):
            event_id = await write(database, tenant_id, f"resource-{number}")
            if number % 2:
                # Some while the relay is at work, some when it waits.
                continue

            async def handled(event_id: str = event_id) -> bool:
                return event_id in await recorder.effects()

            await eventually(handled)

        async def all_handled() -> bool:
            return len(await recorder.effects()) == 40

        await eventually(all_handled)


async def test_an_event_is_a_cloud_event_without_personal_data(
    database: Database, client: Client, tenant_id: str
) -> None:
    payment = Payment(payment_id="pay_01jd3x0r8v5m1q9z2k7c4b6t8n")
    payment.payer.email = "kofi@example.com"
    payment.method.mobile_money.msisdn = "+233241234567"
    payment.amount.amount_minor, payment.amount.currency = 1050, "GHS"
    async with running(OutboxRelay(database, client, "ledger").run()):
        event_id = await write(database, tenant_id, payment.payment_id, data=payment)

        async def out() -> bool:
            return bool(await published(client, tenant_id))

        await eventually(out)
    (event,) = await published(client, tenant_id)

    assert event["specversion"] == "1.0"
    assert event["id"] == event_id
    assert event["type"] == "ledger.account.created"
    assert event["source"] == "/kente/ledger"
    assert event["subject"] == payment.payment_id
    assert event["kentetenant"] == tenant_id
    assert event["data"]["amount"] == {"amountMinor": "1050", "currency": "GHS"}
    assert "kofi" not in json.dumps(event)
    assert "233241234567" not in json.dumps(event)
    assert payment.payer.email == "kofi@example.com"


async def test_an_event_that_comes_twice_takes_effect_once(
    database: Database, client: Client, recorder: Recorder, tenant_id: str
) -> None:
    event_id = await write(database, tenant_id, "one")
    async with running(OutboxRelay(database, client, "ledger").run(), recorder.runner(client).run()):

        async def out() -> bool:
            return bool(await published(client, tenant_id))

        await eventually(out)
        (event,) = await published(client, tenant_id)
        for _ in range(3):
            subject = f"kente.{tenant_id}.ledger.account.created"
            await publish_again(client.jetstream(), subject, event_id, json.dumps(event).encode())
        last = await write(database, tenant_id, "two")

        async def last_handled() -> bool:
            return last in await recorder.effects()

        await eventually(last_handled)

    assert await recorder.effects() == [event_id, last]


async def test_a_handler_runs_for_the_tenant_of_the_event(
    database: Database, client: Client, recorder: Recorder, tenant_id: str
) -> None:
    seen = []

    async def look(event: CloudEvent) -> None:
        seen.append((current_tenant_id(), event.tenant_id, event.subject_id, event.data["accountName"]))

    recorder.before = look
    await write(database, tenant_id, "one")
    async with running(OutboxRelay(database, client, "ledger").run(), recorder.runner(client).run()):
        await eventually(recorder.effects)

    assert seen == [(tenant_id, tenant_id, "one", "one")]


async def test_a_failing_handler_is_tried_again_and_leaves_nothing_of_its_failed_try(
    database: Database, client: Client, recorder: Recorder, tenant_id: str
) -> None:
    async def fail_once(_event: CloudEvent) -> None:
        if len(recorder.deliveries) == 1:
            raise ValueError("not yet")

    recorder.before = fail_once
    event_id = await write(database, tenant_id, "one")
    async with running(OutboxRelay(database, client, "ledger").run(), recorder.runner(client).run()):
        await eventually(recorder.effects)

    assert recorder.deliveries == [event_id, event_id]
    assert await recorder.effects() == [event_id]
    assert await recorder.dead() == []


async def test_an_event_is_dead_after_the_last_try_and_handled_when_it_is_driven_again(
    database: Database, client: Client, recorder: Recorder, tenant_id: str
) -> None:
    is_broken = True

    async def fail(_event: CloudEvent) -> None:
        if is_broken:
            raise ValueError("kofi@example.com has no \0 account")

    recorder.before = fail
    event_id = await write(database, tenant_id, "one")
    async with running(OutboxRelay(database, client, "ledger").run(), recorder.runner(client, max_deliveries=2).run()):
        (letter,) = await eventually(recorder.dead)
        assert recorder.deliveries == [event_id, event_id]
        assert (letter["event_id"], letter["tenant_id"], letter["deliveries"]) == (event_id, tenant_id, 2)
        assert letter["failure"] == "ValueError: k***@example.com has no  account"
        assert await recorder.effects() == []

        is_broken = False
        await publish_again(client.jetstream(), letter["subject"], event_id, letter["event"])
        assert await eventually(recorder.effects) == [event_id]


@pytest.mark.parametrize(
    "error",
    [Problem(Reason.SERVICE_UNAVAILABLE), ConnectionRefusedError(), TimeoutError()],
    ids=lambda error: type(error).__name__,
)
async def test_an_outage_is_no_fault_of_the_event(
    database: Database, client: Client, recorder: Recorder, tenant_id: str, error: Exception
) -> None:
    async def fail_twice(_event: CloudEvent) -> None:
        if len(recorder.deliveries) <= 1:
            raise error

    recorder.before = fail_twice
    event_id = await write(database, tenant_id, "one")
    async with running(OutboxRelay(database, client, "ledger").run(), recorder.runner(client, max_deliveries=1).run()):
        assert await eventually(recorder.effects) == [event_id]

    assert await recorder.dead() == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"7",
        b"{}",
        b'{"id": 1}',
        json.dumps(dict.fromkeys(("id", "type", "kentetenant", "subject", "time", "data"), 7)).encode(),
        json.dumps(dict.fromkeys(("id", "type", "kentetenant", "subject", "time"), "\0") | {"data": {}}).encode(),
        json.dumps(dict.fromkeys(("id", "type", "kentetenant", "subject", "time"), "*") | {"data": {}}).encode(),
        b"[" * 100_000,
    ],
    ids=range(12),
)
async def test_what_is_no_event_is_dead_at_once_and_holds_up_nothing(
    database: Database, client: Client, recorder: Recorder, tenant_id: str, body: bytes
) -> None:
    await client.jetstream().publish(f"kente.{tenant_id}.ledger.account.created", body)
    async with running(OutboxRelay(database, client, "ledger").run(), recorder.runner(client).run()):
        event_id = await write(database, tenant_id, "one")
        assert await eventually(recorder.effects) == [event_id]
    (letter,) = await recorder.dead()

    assert letter["event"] == body
    assert letter["tenant_id"] == ""
    assert letter["failure"]


async def test_a_stopping_process_hands_its_event_on_at_once(
    database: Database, client: Client, recorder: Recorder, tenant_id: str
) -> None:
    begun = asyncio.Event()

    async def hang_first(_event: CloudEvent) -> None:
        begun.set()
        if len(recorder.deliveries) == 1:
            await asyncio.Event().wait()

    recorder.before = hang_first
    event_id = await write(database, tenant_id, "one")
    async with running(OutboxRelay(database, client, "ledger").run()):
        async with running(recorder.runner(client).run()):
            await begun.wait()
        async with running(recorder.runner(client).run()):
            # Long before the stream itself would give the event to another.
            assert await eventually(recorder.effects, mesh.bus._ACK_WAIT_SECONDS / 2) == [event_id]


async def test_a_handler_may_take_longer_than_the_stream_waits_for_a_sign_of_it(
    database: Database, client: Client, recorder: Recorder, tenant_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh.bus, "_ACK_WAIT_SECONDS", 1)
    monkeypatch.setattr(mesh.bus, "_PROGRESS_SECONDS", 0.3)

    async def work(_event: CloudEvent) -> None:
        await asyncio.sleep(1.8)

    recorder.before = work
    event_id = await write(database, tenant_id, "one")
    async with running(
        OutboxRelay(database, client, "ledger").run(),
        # Another process stands by to take what seems forgotten.
        *(recorder.runner(client).run() for _ in range(2)),
    ):
        assert await eventually(recorder.effects) == [event_id]

    assert recorder.deliveries == [event_id]


async def test_a_handler_that_hangs_is_ended_and_counts_as_failed(
    database: Database, client: Client, recorder: Recorder, tenant_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh.bus, "_HANDLER_SECONDS", 0.2)

    async def hang(_event: CloudEvent) -> None:
        await asyncio.Event().wait()

    recorder.before = hang
    await write(database, tenant_id, "one")
    async with running(OutboxRelay(database, client, "ledger").run(), recorder.runner(client, max_deliveries=1).run()):
        (letter,) = await eventually(recorder.dead)

    assert letter["failure"].startswith("TimeoutError")
