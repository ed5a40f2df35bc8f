"""The contract of messages: what is taken, what is refused, and what a tenant can see."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import asyncpg
import grpc
import pytest
from kente.notifications.v1 import (
    message_pb2,
    message_service_pb2_grpc,
    provider_service_pb2,
    provider_service_pb2_grpc,
)
from nats.aio.client import Client

from mesh.errors import Reason
from mesh.ids import new_id
from mesh.sandbox.server import Sandbox
from tests.harness import PASSWORD, Infrastructure, TestMesh, eventually
from tests.notifications.post_office import SCOPES, VARIABLES, PaymentsFarEnd, PostOffice, new_address, refusal


async def test_a_message_is_queued_and_says_what_it_is(office: PostOffice) -> None:
    """The answer holds the message as it is, with the recipient for its owner to see."""
    await office.connect()
    recipient = new_address()

    message = await office.send(recipient, locale="fr-CI", source_id="order-17")

    assert message.message_id.startswith("msg_")
    assert message.state == message_pb2.Message.STATE_QUEUED
    assert (message.template, message.locale, message.recipient) == ("payment_receipt", "en", recipient)
    assert (message.subject, message.source_id) == ("Receipt: GHS 10.50 paid", "order-17")
    assert message.HasField("create_time")


@pytest.mark.parametrize(
    ("variables", "field"),
    [
        ({"amount": "GHS 1", "payment_id": "pay_1"}, "variables.paid_time"),
        (VARIABLES | {"paid_time": " \r\n "}, "variables.paid_time"),
        (VARIABLES | {"colour": "red"}, "variables.colour"),
        (VARIABLES | {"Ama Mensah": "x"}, "variables"),
        (VARIABLES | {"description": "x" * 2001}, "variables.description"),
    ],
)
async def test_variables_that_do_not_fit_are_named(office: PostOffice, variables: dict[str, str], field: str) -> None:
    """Missing, empty, unknown or too long: FIELD_INVALID with the field, and never with a value."""
    await office.connect()

    problem = await refusal(office.send(new_address(), variables=variables))

    assert problem.reason is Reason.FIELD_INVALID
    assert [violation.field for violation in problem.violations] == [field]
    assert "Mensah" not in str(problem.to_status())


async def test_every_fault_of_the_variables_is_told_at_once(office: PostOffice) -> None:
    """One round trip is enough to know all that is wrong."""
    problem = await refusal(office.send(new_address(), variables={"colour": "red"}))

    assert {violation.field for violation in problem.violations} == {
        "variables.amount",
        "variables.paid_time",
        "variables.payment_id",
        "variables.colour",
    }


async def test_an_unknown_template_is_not_found(office: PostOffice) -> None:
    """The answer names the templates there are."""
    await office.connect()

    problem = await refusal(office.send(new_address(), template="birthday"))

    assert problem.reason is Reason.RESOURCE_NOT_FOUND
    assert "payment_receipt" in problem.detail


async def test_without_a_connection_there_is_no_route(office: PostOffice) -> None:
    """A caller learns at once that nothing could carry it; a connection made later is used by the next request."""
    problem = await refusal(office.send(new_address()))
    await office.connect()

    assert problem.reason is Reason.NO_ROUTE
    assert (await office.send(new_address())).state == message_pb2.Message.STATE_QUEUED


@pytest.mark.parametrize(
    "fields",
    [
        {"recipient": "ama"},
        {"recipient": "ama@example.com\r\nRCPT TO:<eve@example.com>"},
        {"recipient": "Ama <ama@example.com>"},
        {"template": "../../etc/passwd"},
        {"request_id": "1"},
        {"source_id": "x" * 65},
        {"source_id": "a\x00b"},
        {"variables": {f"v{number}": "x" for number in range(51)}},
    ],
)
async def test_bad_fields_are_refused(office: PostOffice, fields: dict[str, Any]) -> None:
    """Nothing of these reaches a template or a mail server."""
    problem = await refusal(office.messages.SendMessage(office.request(**({"recipient": new_address()} | fields))))

    assert problem.reason is Reason.FIELD_INVALID


async def test_the_same_request_again_is_the_same_message(office: PostOffice) -> None:
    """However often and however concurrently it comes, the recipient has one message."""
    await office.connect()
    recipient = new_address()
    request = office.request(recipient)

    answers = await asyncio.gather(*(office.messages.SendMessage(request) for _ in range(5)), return_exceptions=True)
    ids = {answer.message.message_id for answer in answers if not isinstance(answer, BaseException)}
    in_flight = [answer for answer in answers if isinstance(answer, BaseException)]
    assert all(isinstance(answer, grpc.aio.AioRpcError) for answer in in_flight)
    again = (await office.messages.SendMessage(request)).message
    await office.until_final(again.message_id)

    assert ids == {again.message_id}
    assert len(await office.mailbox(recipient)) == 1


async def test_the_same_request_id_for_another_message_is_refused(office: PostOffice) -> None:
    """The key belongs to the first request."""
    await office.connect()
    request_id = str(uuid.uuid4())
    await office.send(new_address(), request_id=request_id)

    problem = await refusal(office.send(new_address(), request_id=request_id))

    assert problem.reason is Reason.REQUEST_ID_REUSED


async def test_a_request_whose_answer_was_lost_finds_its_message(office: PostOffice, admin: asyncpg.Connection) -> None:
    """After a crash between the message and its stored answer the handler runs again and makes nothing new."""
    await office.connect()
    request = office.request(new_address())
    first = (await office.messages.SendMessage(request)).message

    await admin.execute("DELETE FROM idempotency WHERE request_id = $1", request.request_id)
    again = (await office.messages.SendMessage(request)).message

    assert again.message_id == first.message_id
    assert len((await office.page()).messages) == 1


async def test_pages_hold_every_message_once_newest_first(office: PostOffice) -> None:
    """Also while new ones come in between the pages."""
    await office.connect()
    made = [(await office.send(new_address(), source_id="order-1")).message_id for _ in range(5)]
    await office.send(new_address(), source_id="order-2")

    found: list[str] = []
    page_token = ""
    while True:
        page = await office.page(page_size=2, source_id="order-1", page_token=page_token)
        found.extend(message.message_id for message in page.messages)
        page_token = page.next_page_token
        if not page_token:
            break
        await office.send(new_address(), source_id="order-1")

    assert found == list(reversed(made))
    assert len((await office.page()).messages) == 8


@pytest.mark.parametrize("token", ["x", "e30", "eyJhZnRlciI6eyJtZXNzYWdlX2lkIjoxfSwib2YiOiIifQ"])
async def test_a_foreign_page_token_is_refused(office: PostOffice, token: str) -> None:
    """A token is input like any other."""
    problem = await refusal(office.page(page_token=token))

    assert problem.reason is Reason.PAGE_TOKEN_INVALID


async def test_a_page_token_belongs_to_its_arguments(office: PostOffice) -> None:
    """It can't be carried to another filter."""
    await office.connect()
    for _ in range(2):
        await office.send(new_address(), source_id="order-1")
    page = await office.page(page_size=1, source_id="order-1")

    problem = await refusal(office.page(page_size=1, page_token=page.next_page_token))

    assert problem.reason is Reason.PAGE_TOKEN_INVALID


async def test_another_tenants_message_looks_like_none(
    office: PostOffice, notifications: TestMesh, sandbox: Sandbox, payments: PaymentsFarEnd, nats_client: Client
) -> None:
    """Neither reading, nor listing, nor its connections give anything away."""
    await office.connect()
    message = await office.send(new_address(), source_id="order-1")
    stranger = PostOffice(notifications, sandbox, payments, nats_client, new_id("ten"))

    theirs = await refusal(stranger.get(message.message_id))
    nobodys = await refusal(stranger.get(new_id("msg")))

    assert theirs.reason is nobodys.reason is Reason.RESOURCE_NOT_FOUND
    assert theirs.detail.replace(message.message_id, "") == nobodys.detail.replace(nobodys.metadata["message_id"], "")
    assert (await stranger.page(source_id="order-1")).messages == []
    assert (await refusal(stranger.send(new_address()))).reason is Reason.NO_ROUTE


async def test_the_service_role_sees_nothing_without_a_tenant(
    office: PostOffice, infrastructure: Infrastructure
) -> None:
    """Row-level security holds where a WHERE clause was forgotten."""
    await office.connect()
    message = await office.send(new_address())
    connection = await asyncpg.connect(infrastructure.postgres.url("kente_notifications", PASSWORD))

    async def visible_to(tenant_id: str) -> int:
        async with connection.transaction():
            await connection.execute("SELECT set_config('kente.tenant', $1, true)", tenant_id)
            count: int = await connection.fetchval(
                "SELECT count(*) FROM messages WHERE message_id = $1", message.message_id
            )
            changed = await connection.execute(
                "UPDATE messages SET failure = 'x' WHERE message_id = $1", message.message_id
            )
            assert changed == f"UPDATE {count}"
            return count

    try:
        assert await visible_to("") == 0
        assert await visible_to(new_id("ten")) == 0
        assert await visible_to(office.tenant_id) == 1
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("scopes", "allowed"), [((), False), (("notifications:read",), False), (("notifications:write",), True)]
)
async def test_sending_needs_its_scope(
    office: PostOffice, notifications: TestMesh, scopes: tuple[str, ...], *, allowed: bool
) -> None:
    """A key that may only read can't send."""
    await office.connect()
    stub = message_service_pb2_grpc.MessageServiceStub(notifications.client("notifications", office.tenant_id, scopes))
    call = stub.SendMessage(office.request(new_address()))

    if allowed:
        assert (await call).message.message_id
    else:
        assert (await refusal(call)).reason is Reason.SCOPE_MISSING


async def test_providers_are_listed_with_what_they_can_do(notifications: TestMesh, tenant_id: str) -> None:
    """Derived from the folders, in pages."""
    stub = provider_service_pb2_grpc.ProviderServiceStub(notifications.client("notifications", tenant_id, SCOPES))

    answer = await stub.ListProviders(provider_service_pb2.ListProvidersRequest(page_size=1))

    [smtp] = [provider for provider in answer.providers if provider.provider == "smtp"]
    assert (smtp.domain, list(smtp.capabilities)) == ("notifications", ["Email", "FindMessage"])
    assert [field.name for field in smtp.credential_fields] == ["username", "password", "access_token", "trace_token"]
    assert all(field.optional and field.description for field in smtp.credential_fields)


async def test_while_connections_is_away_the_caller_is_told_to_come_back(
    office: PostOffice, notifications: TestMesh
) -> None:
    """UNAVAILABLE with advice; the same request then goes through."""
    await office.connect()
    request = office.request(new_address())
    await notifications.stop("connections")
    try:
        problem = await refusal(office.messages.SendMessage(request))
    finally:
        await notifications.start("connections")

    async def taken() -> message_pb2.Message | None:
        try:
            return (await office.messages.SendMessage(request)).message
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                return None
            raise

    sent = await eventually(taken)

    assert problem.reason is Reason.SERVICE_UNAVAILABLE
    assert problem.retry_after_seconds is not None
    assert (await office.until_final(sent.message_id)).state == message_pb2.Message.STATE_SENT
