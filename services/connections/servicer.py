"""The RPCs of the connections service: convert in, call the use case, convert out."""

# ruff: noqa: N802 - the contracts name the methods

from __future__ import annotations

from kente.connections.v1 import (
    connection_service_pb2,
    connection_service_pb2_grpc,
    credential_service_pb2,
    credential_service_pb2_grpc,
)

from mesh.context import current_tenant_id
from mesh.database import Database
from services.connections import convert
from services.connections.model import KeyRing
from services.connections.peers import ProviderCatalogue
from services.connections.use_cases.create_connection import create_connection
from services.connections.use_cases.delete_connection import delete_connection
from services.connections.use_cases.get_connection import get_connection
from services.connections.use_cases.list_connections import list_connections
from services.connections.use_cases.locate_connection import locate_connection
from services.connections.use_cases.resolve_credentials import SealedCache, resolve_credentials


class ConnectionServicer(connection_service_pb2_grpc.ConnectionServiceServicer):
    """Connections of a tenant."""

    def __init__(self, database: Database, keys: KeyRing, catalogue: ProviderCatalogue, cache: SealedCache) -> None:
        self._database = database
        self._keys = keys
        self._catalogue = catalogue
        self._cache = cache

    async def CreateConnection(
        self, request: connection_service_pb2.CreateConnectionRequest, _context: object
    ) -> connection_service_pb2.CreateConnectionResponse:
        connection = await create_connection(
            self._database,
            self._keys,
            self._catalogue,
            tenant_id=current_tenant_id(),
            request_id=request.request_id,
            draft=convert.draft_from_proto(request),
            describe=convert.connection_to_proto,
        )
        return connection_service_pb2.CreateConnectionResponse(connection=convert.connection_to_proto(connection))

    async def GetConnection(
        self, request: connection_service_pb2.GetConnectionRequest, _context: object
    ) -> connection_service_pb2.GetConnectionResponse:
        connection = await get_connection(
            self._database, tenant_id=current_tenant_id(), connection_id=request.connection_id
        )
        return connection_service_pb2.GetConnectionResponse(connection=convert.connection_to_proto(connection))

    async def ListConnections(
        self, request: connection_service_pb2.ListConnectionsRequest, _context: object
    ) -> connection_service_pb2.ListConnectionsResponse:
        connections, next_page_token = await list_connections(
            self._database,
            tenant_id=current_tenant_id(),
            domain=request.domain,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return connection_service_pb2.ListConnectionsResponse(
            connections=[convert.connection_to_proto(connection) for connection in connections],
            next_page_token=next_page_token,
        )

    async def DeleteConnection(
        self, request: connection_service_pb2.DeleteConnectionRequest, _context: object
    ) -> connection_service_pb2.DeleteConnectionResponse:
        await delete_connection(
            self._database,
            self._cache,
            tenant_id=current_tenant_id(),
            request_id=request.request_id,
            connection_id=request.connection_id,
            describe=convert.connection_to_proto,
        )
        return connection_service_pb2.DeleteConnectionResponse()


class CredentialServicer(credential_service_pb2_grpc.CredentialServiceServicer):
    """Credentials in the clear, for the services that talk to providers."""

    def __init__(self, database: Database, keys: KeyRing, cache: SealedCache) -> None:
        self._database = database
        self._keys = keys
        self._cache = cache

    async def ResolveCredentials(
        self, request: credential_service_pb2.ResolveCredentialsRequest, _context: object
    ) -> credential_service_pb2.ResolveCredentialsResponse:
        connection, credentials = await resolve_credentials(
            self._database,
            self._keys,
            self._cache,
            tenant_id=current_tenant_id(),
            connection_id=request.connection_id,
        )
        return credential_service_pb2.ResolveCredentialsResponse(
            connection=convert.connection_to_proto(connection), credentials=credentials
        )

    async def LocateConnection(
        self, request: credential_service_pb2.LocateConnectionRequest, _context: object
    ) -> credential_service_pb2.LocateConnectionResponse:
        connection = await locate_connection(self._database, request.connection_id)
        return credential_service_pb2.LocateConnectionResponse(
            tenant_id=connection.tenant_id, provider=connection.provider, domain=connection.domain
        )
