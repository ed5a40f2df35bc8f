"""The identity service as operators, clients and the gateway see it, in few words."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Sequence
from typing import Any

import grpc
import pytest
from kente.identity.v1 import (
    api_key_service_pb2,
    api_key_service_pb2_grpc,
    identity_pb2,
    tenant_service_pb2,
    tenant_service_pb2_grpc,
    token_service_pb2,
    token_service_pb2_grpc,
)

from mesh.errors import Problem
from tests.harness import TestMesh

KEY_SCOPES = ("api-keys:read", "api-keys:write", "payments:read", "payments:write")


def new_request_id() -> str:
    """A caller's key for one request."""
    return str(uuid.uuid4())


def key_request(*scopes: str, **fields: Any) -> api_key_service_pb2.CreateApiKeyRequest:
    """A request for a key; ids and names are new unless given."""
    values = {"request_id": new_request_id(), "display_name": "till"} | fields
    return api_key_service_pb2.CreateApiKeyRequest(scopes=scopes or KEY_SCOPES, **values)


async def refusal(call: Awaitable[object]) -> Problem:
    """The problem that a call is refused with."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return Problem.from_rpc_error(refused.value)


class Office:
    """Stubs for each kind of caller."""

    def __init__(self, mesh: TestMesh) -> None:
        self.mesh = mesh
        self.tenants = tenant_service_pb2_grpc.TenantServiceStub(mesh.peer("identity", "operator"))
        self.gateway = token_service_pb2_grpc.TokenServiceStub(mesh.peer("identity", "gateway"))
        self.anyone = token_service_pb2_grpc.TokenServiceStub(mesh.with_token("identity", ""))

    async def new_tenant(self, display_name: str = "Acme") -> identity_pb2.Tenant:
        """A new tenant."""
        request = tenant_service_pb2.CreateTenantRequest(request_id=new_request_id(), display_name=display_name)
        response = await self.tenants.CreateTenant(request)
        return response.tenant

    def keys_as_operator(self, tenant_id: str) -> api_key_service_pb2_grpc.ApiKeyServiceAsyncStub:
        """The keys of a tenant, as an operator manages them."""
        return api_key_service_pb2_grpc.ApiKeyServiceStub(self.mesh.peer("identity", "operator", tenant_id))

    def keys_as_client(
        self, tenant_id: str, scopes: Sequence[str] = KEY_SCOPES
    ) -> api_key_service_pb2_grpc.ApiKeyServiceAsyncStub:
        """The keys of a tenant, as a client with these scopes manages them."""
        return api_key_service_pb2_grpc.ApiKeyServiceStub(self.mesh.client("identity", tenant_id, scopes))

    async def new_key(self, tenant_id: str, *scopes: str, **fields: Any) -> api_key_service_pb2.CreateApiKeyResponse:
        """A new key of a tenant, with its secret."""
        return await self.keys_as_operator(tenant_id).CreateApiKey(key_request(*scopes, **fields))

    async def exchange(self, api_key: str) -> token_service_pb2.ExchangeApiKeyResponse:
        """A token for a whole key, as the gateway gets it."""
        return await self.gateway.ExchangeApiKey(token_service_pb2.ExchangeApiKeyRequest(api_key=api_key))

    async def issue(self, client_id: str, client_secret: str, scope: str = "") -> token_service_pb2.IssueTokenResponse:
        """A token for a client, as it gets it by itself."""
        return await self.anyone.IssueToken(
            token_service_pb2.IssueTokenRequest(
                grant_type="client_credentials", client_id=client_id, client_secret=client_secret, scope=scope
            )
        )
