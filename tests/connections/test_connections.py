"""Connections, through the contract."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from google.protobuf.json_format import MessageToJson
from kente.connections.v1 import connection_pb2, connection_service_pb2, connection_service_pb2_grpc

from mesh.ids import new_id
from tests.connections.desk import CREDENTIALS, SCOPES, Desk, create_request, delete_request, new_request_id, refusal
from tests.harness import TestMesh


async def test_a_new_connection_is_shown_without_its_credentials(desk: Desk) -> None:
    created = await desk.create(settings={"target_environment": "mtnghana"}, base_url="http://127.0.0.1:7480/mtn_momo")

    assert created.connection_id.startswith("con_")
    assert (created.provider, created.domain) == ("mtn_momo", "payments")
    assert created.display_name == "Main wallet"
    assert created.environment == connection_pb2.Connection.ENVIRONMENT_SANDBOX
    assert created.base_url == "http://127.0.0.1:7480/mtn_momo"
    assert created.settings == {"target_environment": "mtnghana"}
    assert list(created.credential_names) == ["api_key", "api_user"]
    assert created.encryption_key_id == "k1"
    assert created.webhook_path == f"/webhooks/mtn_momo/{created.connection_id}"
    assert created.create_time == created.update_time
    assert not any(secret in MessageToJson(created) for secret in CREDENTIALS.values())
    assert await desk.get(created.connection_id) == created


async def test_the_domain_is_the_one_that_lists_the_provider(desk: Desk) -> None:
    assert (await desk.create("smtp")).domain == "notifications"
    assert (await desk.create("stripe", credentials={"secret_key": "sk"})).domain == "payments"


async def test_an_unknown_provider_is_refused_with_those_that_are_known(desk: Desk) -> None:
    problem = await refusal(desk.create("mtn_mono"))

    assert problem.reason_name == "FIELD_INVALID"
    assert [violation.field for violation in problem.violations] == ["provider"]
    assert "mtn_momo, smtp, stripe" in problem.violations[0].description


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"credentials": {"api_user": "u"}}, ["credentials.api_key"]),
        ({"credentials": {}}, ["credentials.api_user", "credentials.api_key"]),
        ({"credentials": CREDENTIALS | {"apikey": "k"}}, ["credentials.apikey"]),
        ({"credentials": CREDENTIALS | {"callback_key": ""}}, ["credentials.callback_key"]),
        ({"settings": {"api_key": "k"}}, ["settings.api_key"]),
        ({"base_url": "http://api.example.com"}, ["base_url"]),
        ({"environment": 0}, ["environment"]),
        ({"environment": 9}, ["environment"]),
        ({"request_id": "1"}, ["request_id"]),
        ({"display_name": "x" * 121}, ["display_name"]),
    ],
)
async def test_every_bad_field_is_named(desk: Desk, fields: dict[str, Any], named: list[str]) -> None:
    problem = await refusal(desk.create(**fields))

    assert problem.reason_name == "FIELD_INVALID"
    assert [violation.field for violation in problem.violations] == named
    assert not (await desk.list()).connections


async def test_a_repeated_request_gives_the_same_connection(desk: Desk) -> None:
    request = create_request()

    first, second = await desk.client.CreateConnection(request), await desk.client.CreateConnection(request)

    assert first == second
    assert len((await desk.list()).connections) == 1


@pytest.mark.parametrize(
    "change", [{"credentials": CREDENTIALS | {"api_key": "other"}}, {"display_name": "other"}, {"provider": "smtp"}]
)
async def test_a_repeated_request_with_another_body_is_refused(desk: Desk, change: dict[str, Any]) -> None:
    request_id = new_request_id()
    await desk.create(request_id=request_id)

    problem = await refusal(desk.create(**({"request_id": request_id} | change)))

    assert problem.reason_name == "REQUEST_ID_REUSED"


async def forget_answers(admin: asyncpg.Connection, tenant_id: str) -> None:
    """What a crash between the work and the storing of its answer leaves."""
    await admin.execute("DELETE FROM idempotency WHERE tenant_id = $1", tenant_id)


async def test_a_creation_that_a_crash_cut_short_is_found_again(desk: Desk, admin: asyncpg.Connection) -> None:
    request = create_request()
    first = await desk.client.CreateConnection(request)
    await forget_answers(admin, desk.tenant_id)

    again = await desk.client.CreateConnection(request)
    await forget_answers(admin, desk.tenant_id)
    request.credentials["api_key"] = "another"
    problem = await refusal(desk.client.CreateConnection(request))

    assert again == first
    assert problem.reason_name == "REQUEST_ID_REUSED"
    assert len((await desk.list()).connections) == 1


async def test_the_same_request_sent_at_once_makes_one_connection(desk: Desk) -> None:
    request = create_request()

    answers = await asyncio.gather(*(desk.client.CreateConnection(request) for _ in range(6)), return_exceptions=True)

    made = {answer.connection.connection_id for answer in answers if not isinstance(answer, BaseException)}
    assert len(made) == 1
    assert len((await desk.list()).connections) == 1


async def test_connections_are_listed_oldest_first_by_pages(desk: Desk) -> None:
    made = [(await desk.create()).connection_id for _ in range(5)]
    listed, page_token = [], ""
    for _ in range(3):
        page = await desk.list(page_size=2, page_token=page_token)
        listed.append([connection.connection_id for connection in page.connections])
        page_token = page.next_page_token

    assert listed == [made[:2], made[2:4], made[4:]]
    assert page_token == ""


async def test_a_list_can_be_narrowed_to_a_domain(desk: Desk) -> None:
    wallet, mail = await desk.create(), await desk.create("smtp")

    assert list((await desk.list(domain="payments")).connections) == [wallet]
    assert list((await desk.list(domain="notifications")).connections) == [mail]
    assert not (await desk.list(domain="ledger")).connections


async def test_a_page_token_of_another_list_is_refused(desk: Desk) -> None:
    for _ in range(2):
        await desk.create()
    page_token = (await desk.list(page_size=1)).next_page_token

    problem = await refusal(desk.list(page_token=page_token, domain="payments"))

    assert problem.reason_name == "PAGE_TOKEN_INVALID"


async def test_a_deleted_connection_is_gone(desk: Desk) -> None:
    created = await desk.create()

    await desk.client.DeleteConnection(delete_request(created.connection_id))

    assert (await refusal(desk.get(created.connection_id))).reason_name == "RESOURCE_NOT_FOUND"
    assert (await refusal(desk.client.DeleteConnection(delete_request(created.connection_id)))).reason_name == (
        "RESOURCE_NOT_FOUND"
    )
    assert not (await desk.list()).connections


async def test_a_deletion_leaves_no_credentials_behind(desk: Desk, admin: asyncpg.Connection) -> None:
    created = await desk.create()

    await desk.client.DeleteConnection(delete_request(created.connection_id))

    row = await admin.fetchrow("SELECT * FROM connections WHERE connection_id = $1", created.connection_id)
    assert row is not None
    assert row["sealed_credentials"] is None


async def test_a_deletion_that_a_crash_cut_short_can_be_repeated(desk: Desk, admin: asyncpg.Connection) -> None:
    created = await desk.create()
    request = delete_request(created.connection_id)
    await desk.client.DeleteConnection(request)
    await forget_answers(admin, desk.tenant_id)

    await desk.client.DeleteConnection(request)

    assert (await refusal(desk.get(created.connection_id))).reason_name == "RESOURCE_NOT_FOUND"


async def test_a_creation_repeated_after_the_deletion_does_not_bring_it_back(
    desk: Desk, admin: asyncpg.Connection
) -> None:
    request = create_request()
    created = (await desk.client.CreateConnection(request)).connection
    await desk.client.DeleteConnection(delete_request(created.connection_id))
    await forget_answers(admin, desk.tenant_id)

    again = (await desk.client.CreateConnection(request)).connection

    assert again.connection_id == created.connection_id
    assert not (await desk.list()).connections


async def test_another_tenants_connection_looks_like_one_that_does_not_exist(desk: Desk, connections: TestMesh) -> None:
    other = Desk(connections, new_id("ten"))
    theirs, nobodys_id = await other.create(), new_id("con")

    async def delete(connection_id: str) -> None:
        await desk.client.DeleteConnection(delete_request(connection_id))

    calls: list[Callable[[str], Awaitable[object]]] = [desk.get, desk.resolve, delete]
    for call in calls:
        of_other, of_nobody = await refusal(call(theirs.connection_id)), await refusal(call(nobodys_id))
        assert of_other.reason_name == of_nobody.reason_name == "RESOURCE_NOT_FOUND"
        assert of_other.detail.replace(theirs.connection_id, nobodys_id) == of_nobody.detail
        assert of_other.metadata == {"connection_id": theirs.connection_id}
    assert not (await desk.list()).connections
    assert await other.get(theirs.connection_id) == theirs


async def test_each_call_needs_its_scope(desk: Desk) -> None:
    created = await desk.create()
    reader, writer = desk.client_with(SCOPES[:1]), desk.client_with(SCOPES[1:])
    get = connection_service_pb2.GetConnectionRequest(connection_id=created.connection_id)
    refused: list[tuple[Awaitable[object], str]] = [
        (reader.CreateConnection(create_request()), "connections:write"),
        (reader.DeleteConnection(delete_request(created.connection_id)), "connections:write"),
        (writer.GetConnection(get), "connections:read"),
        (writer.ListConnections(connection_service_pb2.ListConnectionsRequest()), "connections:read"),
    ]

    for call, scope in refused:
        problem = await refusal(call)
        assert problem.reason_name == "SCOPE_MISSING"
        assert problem.metadata == {"scope": scope}


async def test_a_caller_without_credentials_is_refused(connections: TestMesh) -> None:
    for token, reason in (("", "CREDENTIALS_MISSING"), ("not.a.token", "CREDENTIALS_INVALID")):
        channel = connections.with_token("connections", token)
        stub = connection_service_pb2_grpc.ConnectionServiceStub(channel)
        problem = await refusal(stub.ListConnections(connection_service_pb2.ListConnectionsRequest()))
        assert problem.reason_name == reason
