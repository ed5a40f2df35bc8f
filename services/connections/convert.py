"""Between the contracts of connections and its model. Pure functions."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
from kente.connections.v1 import connection_pb2, connection_service_pb2

from mesh.provider.connection import Environment
from services.connections.model import Connection, ConnectionDraft

_ENVIRONMENTS = {
    connection_pb2.Connection.ENVIRONMENT_SANDBOX: Environment.SANDBOX,
    connection_pb2.Connection.ENVIRONMENT_PRODUCTION: Environment.PRODUCTION,
}
_ENVIRONMENT_VALUES = {environment: value for value, environment in _ENVIRONMENTS.items()}


def connection_to_proto(connection: Connection) -> connection_pb2.Connection:
    """A connection as callers see it. It holds no credentials."""
    return connection_pb2.Connection(
        connection_id=connection.connection_id,
        provider=connection.provider,
        domain=connection.domain,
        display_name=connection.display_name,
        environment=_ENVIRONMENT_VALUES[connection.environment],
        base_url=connection.base_url,
        settings=connection.settings,
        credential_names=connection.credential_names,
        encryption_key_id=connection.encryption_key_id,
        webhook_path=connection.webhook_path,
        create_time=_timestamp(connection.create_time),
        update_time=_timestamp(connection.update_time),
    )


def draft_from_proto(request: connection_service_pb2.CreateConnectionRequest) -> ConnectionDraft:
    """What a request asks a new connection to be."""
    return ConnectionDraft(
        provider=request.provider,
        display_name=request.display_name,
        environment=_ENVIRONMENTS[request.environment],
        base_url=request.base_url,
        settings=dict(request.settings),
        credentials=dict(request.credentials),
    )


def _timestamp(time: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp
