"""Credentials in the clear: for whom, and for whom not."""

from __future__ import annotations

import asyncpg
import pytest
from kente.connections.v1 import credential_service_pb2, credential_service_pb2_grpc

from mesh.ids import new_id
from tests.connections.conftest import LIMITS
from tests.connections.desk import CREDENTIALS, KEYS_SETTING, Desk, delete_request, encryption_key, refusal
from tests.harness import TestMesh


def locate_request(connection_id: str) -> credential_service_pb2.LocateConnectionRequest:
    return credential_service_pb2.LocateConnectionRequest(connection_id=connection_id)


def resolve_request(connection_id: str) -> credential_service_pb2.ResolveCredentialsRequest:
    return credential_service_pb2.ResolveCredentialsRequest(connection_id=connection_id)


async def restart(mesh: TestMesh, tenant_id: str, encryption_keys: pytest.MonkeyPatch, *key_ids: str) -> Desk:
    """Restarts the service with these encryption keys, the first one current."""
    await mesh.stop("connections")
    encryption_keys.setenv(KEYS_SETTING, ",".join(encryption_key(key_id) for key_id in key_ids))
    await mesh.start("connections", LIMITS)
    # New channels: the old ones may still be waiting to connect again.
    return Desk(mesh, tenant_id)


async def test_a_service_gets_the_credentials_of_its_callers_tenant(desk: Desk) -> None:
    created = await desk.create()

    answers = [await desk.resolve(created.connection_id) for _ in range(2)]

    for answer in answers:
        assert answer.connection == created
        assert answer.credentials == CREDENTIALS


async def test_no_client_gets_credentials_whatever_its_scopes(desk: Desk, connections: TestMesh) -> None:
    created = await desk.create()
    channel = connections.client("connections", desk.tenant_id, ["credentials:resolve", "connections:locate"])
    stub = credential_service_pb2_grpc.CredentialServiceStub(channel)

    for call in (
        stub.ResolveCredentials(resolve_request(created.connection_id)),
        stub.LocateConnection(locate_request(created.connection_id)),
    ):
        assert (await refusal(call)).reason_name == "SCOPE_MISSING"


async def test_a_service_that_acts_for_another_tenant_finds_nothing(desk: Desk) -> None:
    created = await desk.create()
    await desk.resolve(created.connection_id)
    stub = desk.service("payments", new_id("ten"))

    problem = await refusal(stub.ResolveCredentials(resolve_request(created.connection_id)))

    assert problem.reason_name == "RESOURCE_NOT_FOUND"


async def test_a_service_that_acts_for_nobody_is_refused(desk: Desk) -> None:
    created = await desk.create()

    problem = await refusal(desk.service("payments", "").ResolveCredentials(resolve_request(created.connection_id)))

    assert problem.reason_name == "SCOPE_MISSING"


async def test_a_callback_finds_out_whose_connection_it_names(desk: Desk) -> None:
    created = await desk.create("smtp")
    gateway = desk.service("gateway", "")

    located = await gateway.LocateConnection(locate_request(created.connection_id))
    problem = await refusal(gateway.LocateConnection(locate_request(new_id("con"))))

    assert (located.tenant_id, located.provider, located.domain) == (desk.tenant_id, "smtp", "notifications")
    assert problem.reason_name == "RESOURCE_NOT_FOUND"


async def test_a_deleted_connection_is_neither_resolved_nor_located(desk: Desk) -> None:
    created = await desk.create()
    await desk.resolve(created.connection_id)

    await desk.client.DeleteConnection(delete_request(created.connection_id))

    assert (await refusal(desk.resolve(created.connection_id))).reason_name == "RESOURCE_NOT_FOUND"
    located = desk.payments.LocateConnection(locate_request(created.connection_id))
    assert (await refusal(located)).reason_name == "RESOURCE_NOT_FOUND"


async def test_credentials_are_resolved_again_from_memory(desk: Desk, admin: asyncpg.Connection) -> None:
    created = await desk.create()
    await desk.resolve(created.connection_id)

    await admin.execute("REVOKE SELECT ON connections FROM kente_connections")
    try:
        again = await desk.resolve(created.connection_id)
    finally:
        await admin.execute("GRANT SELECT ON connections TO kente_connections")

    assert again.credentials == CREDENTIALS


async def test_a_read_of_credentials_is_audited(desk: Desk, admin: asyncpg.Connection) -> None:
    created = await desk.create()

    await desk.resolve(created.connection_id)

    row = await admin.fetchrow(
        "SELECT subject, outcome, resources FROM audit_log WHERE tenant_id = $1 AND method LIKE '%ResolveCredentials'",
        desk.tenant_id,
    )
    assert row is not None
    assert (row["subject"], row["outcome"]) == ("spiffe://kente/payments", "OK")
    assert created.connection_id in row["resources"]


async def test_a_row_moved_to_another_tenant_does_not_open(
    desk: Desk, connections: TestMesh, admin: asyncpg.Connection
) -> None:
    created, thief = await desk.create(), Desk(connections, new_id("ten"))

    await admin.execute(
        "UPDATE connections SET tenant_id = $1 WHERE connection_id = $2", thief.tenant_id, created.connection_id
    )

    assert (await thief.get(created.connection_id)).connection_id == created.connection_id
    assert (await refusal(thief.resolve(created.connection_id))).reason_name == "INTERNAL"


async def test_credentials_moved_to_another_connection_do_not_open(desk: Desk, admin: asyncpg.Connection) -> None:
    one, other = await desk.create(), await desk.create()

    await admin.execute(
        "UPDATE connections SET sealed_credentials = (SELECT sealed_credentials FROM connections"
        " WHERE connection_id = $1) WHERE connection_id = $2",
        one.connection_id,
        other.connection_id,
    )

    assert (await refusal(desk.resolve(other.connection_id))).reason_name == "INTERNAL"


async def test_a_new_key_seals_what_is_new_and_the_old_one_still_opens(
    desk: Desk, connections: TestMesh, encryption_keys: pytest.MonkeyPatch
) -> None:
    before = await desk.create()
    try:
        desk = await restart(connections, desk.tenant_id, encryption_keys, "k2", "k1")
        after = await desk.create()

        assert (before.encryption_key_id, after.encryption_key_id) == ("k1", "k2")
        assert (await desk.resolve(before.connection_id)).credentials == CREDENTIALS
        assert (await desk.resolve(after.connection_id)).credentials == CREDENTIALS

        desk = await restart(connections, desk.tenant_id, encryption_keys, "k2")

        assert (await refusal(desk.resolve(before.connection_id))).reason_name == "INTERNAL"
        assert (await desk.resolve(after.connection_id)).credentials == CREDENTIALS
    finally:
        await restart(connections, desk.tenant_id, encryption_keys, "k1")
