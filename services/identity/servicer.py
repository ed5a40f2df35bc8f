"""The RPCs of the identity service: convert in, call the use case, convert out."""

# ruff: noqa: N802 - the contracts name the methods

from __future__ import annotations

from kente.identity.v1 import (
    api_key_service_pb2,
    api_key_service_pb2_grpc,
    tenant_service_pb2,
    tenant_service_pb2_grpc,
    token_service_pb2,
    token_service_pb2_grpc,
)

from mesh.context import current_call, current_tenant_id
from mesh.database import Database
from mesh.errors import Problem, Reason
from mesh.tokens import TOKEN_ISSUER, Identity, Principal, TrustBundle
from services.identity import convert
from services.identity.use_cases.create_api_key import create_api_key
from services.identity.use_cases.create_tenant import create_tenant
from services.identity.use_cases.exchange_api_key import exchange_api_key
from services.identity.use_cases.get_tenant import get_tenant
from services.identity.use_cases.issue_token import issue_token
from services.identity.use_cases.list_api_keys import list_api_keys
from services.identity.use_cases.revoke_api_key import revoke_api_key


class TenantServicer(tenant_service_pb2_grpc.TenantServiceServicer):
    """Tenants, managed by operators."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def CreateTenant(
        self, request: tenant_service_pb2.CreateTenantRequest, _context: object
    ) -> tenant_service_pb2.CreateTenantResponse:
        tenant = await create_tenant(
            self._database,
            request_id=request.request_id,
            display_name=request.display_name,
            describe=convert.tenant_to_proto,
        )
        return tenant_service_pb2.CreateTenantResponse(tenant=convert.tenant_to_proto(tenant))

    async def GetTenant(
        self, request: tenant_service_pb2.GetTenantRequest, _context: object
    ) -> tenant_service_pb2.GetTenantResponse:
        tenant = await get_tenant(self._database, request.tenant_id, caller_tenant_id=current_call().tenant_id)
        return tenant_service_pb2.GetTenantResponse(tenant=convert.tenant_to_proto(tenant))


class ApiKeyServicer(api_key_service_pb2_grpc.ApiKeyServiceServicer):
    """API keys of a tenant."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known_scopes = convert.client_scopes()

    async def CreateApiKey(
        self, request: api_key_service_pb2.CreateApiKeyRequest, _context: object
    ) -> api_key_service_pb2.CreateApiKeyResponse:
        key, secret = await create_api_key(
            self._database,
            tenant_id=current_tenant_id(),
            request_id=request.request_id,
            draft=convert.api_key_draft_from_proto(request),
            creator=_creator(),
            known_scopes=self._known_scopes,
            describe=convert.api_key_to_proto,
        )
        return api_key_service_pb2.CreateApiKeyResponse(api_key=convert.api_key_to_proto(key), secret=secret)

    async def ListApiKeys(
        self, request: api_key_service_pb2.ListApiKeysRequest, _context: object
    ) -> api_key_service_pb2.ListApiKeysResponse:
        keys, next_page_token = await list_api_keys(
            self._database,
            tenant_id=current_tenant_id(),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return api_key_service_pb2.ListApiKeysResponse(
            api_keys=[convert.api_key_to_proto(key) for key in keys], next_page_token=next_page_token
        )

    async def RevokeApiKey(
        self, request: api_key_service_pb2.RevokeApiKeyRequest, _context: object
    ) -> api_key_service_pb2.RevokeApiKeyResponse:
        key = await revoke_api_key(
            self._database,
            tenant_id=current_tenant_id(),
            api_key_id=request.api_key_id,
            describe=convert.api_key_to_proto,
        )
        return api_key_service_pb2.RevokeApiKeyResponse(api_key=convert.api_key_to_proto(key))


class TokenServicer(token_service_pb2_grpc.TokenServiceServicer):
    """Access tokens."""

    def __init__(
        self, database: Database, identity: Identity, trust_bundle: TrustBundle, lifetime_seconds: int
    ) -> None:
        self._database = database
        self._identity = identity
        self._trust_bundle = trust_bundle
        self._lifetime_seconds = lifetime_seconds

    async def IssueToken(
        self, request: token_service_pb2.IssueTokenRequest, _context: object
    ) -> token_service_pb2.IssueTokenResponse:
        issued = await issue_token(
            self._database,
            self._identity,
            client_id=request.client_id,
            client_secret=request.client_secret,
            scope=request.scope,
            longest_seconds=self._lifetime_seconds,
        )
        return token_service_pb2.IssueTokenResponse(
            access_token=issued.access_token,
            token_type="Bearer",  # noqa: S106 - RFC 6750's name of the kind of token
            expires_in=issued.lifetime_seconds,
            scope=" ".join(issued.scopes),
        )

    async def GetKeySet(
        self, _request: token_service_pb2.GetKeySetRequest, _context: object
    ) -> token_service_pb2.GetKeySetResponse:
        # A key that is being brought in is published as soon as the bundle's file names it.
        self._trust_bundle.reload()
        return convert.key_set_to_proto(self._trust_bundle.public_keys(TOKEN_ISSUER))

    async def ExchangeApiKey(
        self, request: token_service_pb2.ExchangeApiKeyRequest, _context: object
    ) -> token_service_pb2.ExchangeApiKeyResponse:
        token, lifetime_seconds = await exchange_api_key(
            self._database, self._identity, api_key=request.api_key, longest_seconds=self._lifetime_seconds
        )
        return token_service_pb2.ExchangeApiKeyResponse(access_token=token, expires_in_seconds=lifetime_seconds)


def _creator() -> Principal:
    principal = current_call().principal
    if principal is None:
        # Authentication lets nobody come here without one; should it ever, nothing is given.
        raise Problem(Reason.CREDENTIALS_MISSING)
    return principal
