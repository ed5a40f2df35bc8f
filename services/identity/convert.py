"""Between the contracts of identity and its model. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import kente
from google.protobuf.timestamp_pb2 import Timestamp
from kente.identity.v1 import api_key_service_pb2, identity_pb2, token_service_pb2
from kente.options.v1.options_pb2 import Audience

from mesh.policies import contract_services, methods_of
from services.identity.model import ApiKey, ApiKeyDraft, Tenant


def tenant_to_proto(tenant: Tenant) -> identity_pb2.Tenant:
    """A tenant as callers see it."""
    return identity_pb2.Tenant(
        tenant_id=tenant.tenant_id,
        display_name=tenant.display_name,
        create_time=_timestamp(tenant.create_time),
    )


def api_key_to_proto(key: ApiKey) -> identity_pb2.ApiKey:
    """A key as callers see it: never with its secret."""
    state = identity_pb2.ApiKey.STATE_REVOKED if key.revoke_time else identity_pb2.ApiKey.STATE_ACTIVATED
    return identity_pb2.ApiKey(
        api_key_id=key.api_key_id,
        display_name=key.display_name,
        scopes=key.scopes,
        state=state,
        create_time=_timestamp(key.create_time),
        revoke_time=_timestamp(key.revoke_time),
        expire_time=_timestamp(key.expire_time),
    )


def api_key_draft_from_proto(request: api_key_service_pb2.CreateApiKeyRequest) -> ApiKeyDraft:
    """What a request asks a new key to be."""
    expire_time = request.expire_time.ToDatetime(tzinfo=UTC) if request.HasField("expire_time") else None
    return ApiKeyDraft(request.display_name, tuple(sorted(request.scopes)), expire_time)


def key_set_to_proto(keys: Iterable[Mapping[str, str]]) -> token_service_pb2.GetKeySetResponse:
    """Public keys as a JSON Web Key Set (RFC 7517; RFC 8037 for Ed25519)."""
    names = [field.name for field in token_service_pb2.JsonWebKey.DESCRIPTOR.fields]
    return token_service_pb2.GetKeySetResponse(
        keys=[token_service_pb2.JsonWebKey(**{name: key[name] for name in names}) for key in keys]
    )


def client_scopes() -> frozenset[str]:
    """Every scope that a client can use: the permissions of the public RPCs of all domains."""
    domains = {folder.parent.name for root in kente.__path__ for folder in Path(root).glob("*/v1")}
    methods = methods_of(name for domain in sorted(domains) for name in contract_services(domain))
    policies = [method.policy for method in methods.values()]
    return frozenset(policy.permission for policy in policies if policy.audience == Audience.AUDIENCE_PUBLIC)


def _timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp
