"""The connections service as clients and other services see it, in few words."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Awaitable, Sequence
from typing import Any

import grpc
import pytest
from kente.connections.v1 import (
    connection_pb2,
    connection_service_pb2,
    connection_service_pb2_grpc,
    credential_service_pb2,
    credential_service_pb2_grpc,
)

from mesh.errors import Problem
from tests.harness import TestMesh

SCOPES = ("connections:read", "connections:write")
KEYS_SETTING = "KENTE_CONNECTIONS_ENCRYPTION_KEYS"
CREDENTIALS = {"api_user": "user-7f3a", "api_key": "key-that-nobody-may-see"}


def encryption_key(key_id: str) -> str:
    """A key for the setting, always the same one for the same id."""
    return f"{key_id}:{base64.b64encode(key_id.encode().ljust(32, b'.')).decode()}"


def new_request_id() -> str:
    """A caller's key for one request."""
    return str(uuid.uuid4())


def create_request(provider: str = "mtn_momo", **fields: Any) -> connection_service_pb2.CreateConnectionRequest:
    """A request for a connection; what is not given is as it should be."""
    values: dict[str, Any] = {
        "request_id": new_request_id(),
        "display_name": "Main wallet",
        "environment": connection_pb2.Connection.ENVIRONMENT_SANDBOX,
        "credentials": CREDENTIALS if provider == "mtn_momo" else {},
    }
    return connection_service_pb2.CreateConnectionRequest(provider=provider, **(values | fields))


def delete_request(connection_id: str) -> connection_service_pb2.DeleteConnectionRequest:
    """A new request to delete a connection."""
    return connection_service_pb2.DeleteConnectionRequest(request_id=new_request_id(), connection_id=connection_id)


async def refusal(call: Awaitable[object]) -> Problem:
    """The problem that a call is refused with."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return Problem.from_rpc_error(refused.value)


class Desk:
    """Stubs for one tenant's client, and for services that act for it."""

    def __init__(self, mesh: TestMesh, tenant_id: str) -> None:
        self.mesh = mesh
        self.tenant_id = tenant_id
        self.client = self.client_with(SCOPES)
        self.payments = self.service("payments", tenant_id)

    def client_with(self, scopes: Sequence[str]) -> connection_service_pb2_grpc.ConnectionServiceAsyncStub:
        """The tenant's client with other scopes."""
        channel = self.mesh.client("connections", self.tenant_id, scopes)
        return connection_service_pb2_grpc.ConnectionServiceStub(channel)

    def service(self, name: str, tenant_id: str) -> credential_service_pb2_grpc.CredentialServiceAsyncStub:
        """Credentials as a service reads them for a tenant."""
        return credential_service_pb2_grpc.CredentialServiceStub(self.mesh.peer("connections", name, tenant_id))

    async def create(self, provider: str = "mtn_momo", **fields: Any) -> connection_pb2.Connection:
        """A new connection."""
        answer = await self.client.CreateConnection(create_request(provider, **fields))
        return answer.connection

    async def get(self, connection_id: str) -> connection_pb2.Connection:
        """A connection."""
        request = connection_service_pb2.GetConnectionRequest(connection_id=connection_id)
        return (await self.client.GetConnection(request)).connection

    async def list(self, **fields: Any) -> connection_service_pb2.ListConnectionsResponse:
        """A page of connections."""
        return await self.client.ListConnections(connection_service_pb2.ListConnectionsRequest(**fields))

    async def resolve(self, connection_id: str) -> credential_service_pb2.ResolveCredentialsResponse:
        """A connection with its credentials, as the payments service gets it."""
        request = credential_service_pb2.ResolveCredentialsRequest(connection_id=connection_id)
        return await self.payments.ResolveCredentials(request)
