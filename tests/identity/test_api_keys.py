"""API keys, through the contract."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from kente.identity.v1 import api_key_service_pb2, identity_pb2

from mesh.clock import utc_now
from mesh.ids import new_id
from tests.identity.office import KEY_SCOPES, Office, key_request, new_request_id, refusal


def revoke_request(api_key_id: str) -> api_key_service_pb2.RevokeApiKeyRequest:
    return api_key_service_pb2.RevokeApiKeyRequest(request_id=new_request_id(), api_key_id=api_key_id)


def timestamp(seconds_from_now: float) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(utc_now() + timedelta(seconds=seconds_from_now))
    return made


async def test_a_new_key_is_shown_with_its_secret_once(office: Office) -> None:
    tenant = await office.new_tenant()

    created = await office.new_key(tenant.tenant_id, "payments:write", "payments:read", display_name="till 3")
    listed = await office.keys_as_operator(tenant.tenant_id).ListApiKeys(api_key_service_pb2.ListApiKeysRequest())

    key = created.api_key
    assert re.fullmatch(rf"kente_{key.api_key_id.removeprefix('key_')}_[A-Za-z0-9_-]{{43}}", created.secret)
    assert (key.display_name, list(key.scopes)) == ("till 3", ["payments:read", "payments:write"])
    assert key.state == identity_pb2.ApiKey.STATE_ACTIVATED
    assert not key.HasField("expire_time")
    assert list(listed.api_keys) == [key]


async def test_a_repeated_request_names_the_first_key_without_its_secret(office: Office) -> None:
    tenant = await office.new_tenant()
    stub = office.keys_as_operator(tenant.tenant_id)
    request = key_request("payments:write", "payments:read", expire_time=timestamp(3600))

    first = await stub.CreateApiKey(request)
    request.scopes.reverse()
    second = await stub.CreateApiKey(request)

    assert first.secret
    assert not second.secret
    assert second.api_key == first.api_key


@pytest.mark.parametrize(
    "change", [{"display_name": "other"}, {"scopes": ["payments:write"]}, {"expire_time": timestamp(7200)}]
)
async def test_a_repeated_request_for_another_key_is_refused(office: Office, change: dict[str, Any]) -> None:
    tenant = await office.new_tenant()
    stub = office.keys_as_operator(tenant.tenant_id)
    fields: dict[str, Any] = {
        "request_id": new_request_id(),
        "display_name": "till",
        "scopes": ["payments:read"],
        "expire_time": timestamp(3600),
    }
    first = await stub.CreateApiKey(api_key_service_pb2.CreateApiKeyRequest(**fields))

    problem = await refusal(stub.CreateApiKey(api_key_service_pb2.CreateApiKeyRequest(**(fields | change))))

    assert problem.reason_name == "REQUEST_ID_REUSED"
    assert problem.metadata == {"api_key_id": first.api_key.api_key_id}


async def test_the_same_request_sent_at_once_makes_one_key(office: Office) -> None:
    tenant = await office.new_tenant()
    stub = office.keys_as_operator(tenant.tenant_id)
    request = key_request()

    answers = await asyncio.gather(*(stub.CreateApiKey(request) for _ in range(8)))

    assert len({answer.api_key.api_key_id for answer in answers}) == 1
    assert len([answer for answer in answers if answer.secret]) == 1


async def test_request_ids_of_tenants_do_not_meet(office: Office) -> None:
    first, second = await office.new_tenant(), await office.new_tenant()
    request = key_request()

    one = await office.keys_as_operator(first.tenant_id).CreateApiKey(request)
    other = await office.keys_as_operator(second.tenant_id).CreateApiKey(request)

    assert one.secret
    assert other.secret
    assert one.api_key.api_key_id != other.api_key.api_key_id


async def test_a_client_can_give_only_what_it_holds(office: Office) -> None:
    tenant = await office.new_tenant()
    stub = office.keys_as_client(tenant.tenant_id, ("api-keys:write", "payments:read"))

    narrower = await stub.CreateApiKey(key_request("payments:read"))
    problem = await refusal(stub.CreateApiKey(key_request("payments:read", "payments:write", "ledger:read")))

    assert list(narrower.api_key.scopes) == ["payments:read"]
    assert problem.reason_name == "SCOPE_MISSING"
    assert problem.metadata == {"scope": "ledger:read payments:write"}


@pytest.mark.parametrize("scope", ["paymnets:write", "tokens:exchange", "credentials:resolve"])
async def test_a_scope_that_no_client_can_use_is_refused(office: Office, scope: str) -> None:
    tenant = await office.new_tenant()

    problem = await refusal(office.keys_as_operator(tenant.tenant_id).CreateApiKey(key_request(scope)))

    assert [violation.field for violation in problem.violations] == ["scopes[0]"]
    assert "payments:write" in problem.detail


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("scopes", api_key_service_pb2.CreateApiKeyRequest(display_name="till")),
        ("display_name", api_key_service_pb2.CreateApiKeyRequest(scopes=["payments:read"])),
        ("scopes[0]", api_key_service_pb2.CreateApiKeyRequest(display_name="till", scopes=["*"])),
        (
            "expire_time",
            api_key_service_pb2.CreateApiKeyRequest(
                display_name="till", scopes=["payments:read"], expire_time=Timestamp(seconds=1)
            ),
        ),
    ],
)
async def test_a_bad_field_is_named(office: Office, field: str, bad: api_key_service_pb2.CreateApiKeyRequest) -> None:
    tenant = await office.new_tenant()
    request = api_key_service_pb2.CreateApiKeyRequest()
    request.CopyFrom(bad)
    request.request_id = new_request_id()

    problem = await refusal(office.keys_as_operator(tenant.tenant_id).CreateApiKey(request))

    assert problem.reason_name == "FIELD_INVALID"
    assert [violation.field for violation in problem.violations] == [field]


async def test_a_key_of_a_tenant_that_does_not_exist_is_refused(office: Office) -> None:
    problem = await refusal(office.new_key(new_id("ten"), "payments:read"))

    assert problem.reason_name == "RESOURCE_NOT_FOUND"


@pytest.mark.parametrize("scopes", [(), ("api-keys:read",), ("payments:write",)])
async def test_a_key_is_made_only_with_the_scope_for_it(office: Office, scopes: tuple[str, ...]) -> None:
    tenant = await office.new_tenant()

    problem = await refusal(office.keys_as_client(tenant.tenant_id, scopes).CreateApiKey(key_request("payments:read")))

    assert problem.reason_name == "SCOPE_MISSING"
    assert problem.metadata == {"scope": "api-keys:write"}


async def test_keys_are_listed_newest_first_by_pages(office: Office) -> None:
    tenant = await office.new_tenant()
    stub = office.keys_as_client(tenant.tenant_id)
    made = [(await office.new_key(tenant.tenant_id)).api_key.api_key_id for _ in range(5)]
    listed, page_token = [], ""
    for _ in range(3):
        page = await stub.ListApiKeys(api_key_service_pb2.ListApiKeysRequest(page_size=2, page_token=page_token))
        listed.append([key.api_key_id for key in page.api_keys])
        page_token = page.next_page_token

    newest_first = made[::-1]
    assert listed == [newest_first[:2], newest_first[2:4], newest_first[4:]]
    assert page_token == ""


async def test_a_page_token_of_another_tenant_or_of_nothing_is_refused(office: Office) -> None:
    tenant, other = await office.new_tenant(), await office.new_tenant()
    for _ in range(2):
        await office.new_key(other.tenant_id)
    page = await office.keys_as_client(other.tenant_id).ListApiKeys(api_key_service_pb2.ListApiKeysRequest(page_size=1))
    stub = office.keys_as_client(tenant.tenant_id)

    for page_token in (page.next_page_token, "nonsense", "e30"):
        problem = await refusal(stub.ListApiKeys(api_key_service_pb2.ListApiKeysRequest(page_token=page_token)))
        assert problem.reason_name == "PAGE_TOKEN_INVALID"


async def test_a_revoked_key_stays_revoked(office: Office) -> None:
    tenant = await office.new_tenant()
    key = (await office.new_key(tenant.tenant_id)).api_key
    stub = office.keys_as_client(tenant.tenant_id)

    revoked = (await stub.RevokeApiKey(revoke_request(key.api_key_id))).api_key
    again = (await stub.RevokeApiKey(revoke_request(key.api_key_id))).api_key

    assert revoked.state == identity_pb2.ApiKey.STATE_REVOKED
    assert revoked.revoke_time.seconds > 0
    assert again == revoked


async def test_another_tenants_key_looks_like_one_that_does_not_exist(office: Office) -> None:
    tenant, other = await office.new_tenant(), await office.new_tenant()
    key = (await office.new_key(other.tenant_id)).api_key
    stub = office.keys_as_client(tenant.tenant_id)
    nobodys_id = new_id("key")

    of_other = await refusal(stub.RevokeApiKey(revoke_request(key.api_key_id)))
    of_nobody = await refusal(stub.RevokeApiKey(revoke_request(nobodys_id)))
    listed = await stub.ListApiKeys(api_key_service_pb2.ListApiKeysRequest())
    still = await office.keys_as_client(other.tenant_id).ListApiKeys(api_key_service_pb2.ListApiKeysRequest())

    assert of_other.reason_name == of_nobody.reason_name == "RESOURCE_NOT_FOUND"
    assert of_other.detail.replace(key.api_key_id, nobodys_id) == of_nobody.detail
    assert not listed.api_keys
    assert [key.state for key in still.api_keys] == [identity_pb2.ApiKey.STATE_ACTIVATED]


async def test_a_caller_without_credentials_is_refused(office: Office) -> None:
    tenant = await office.new_tenant()
    for token, reason in (("", "CREDENTIALS_MISSING"), ("not.a.token", "CREDENTIALS_INVALID")):
        channel = office.mesh.with_token("identity", token)
        stub = type(office.keys_as_client(tenant.tenant_id, KEY_SCOPES))(channel)
        problem = await refusal(stub.ListApiKeys(api_key_service_pb2.ListApiKeysRequest()))
        assert problem.reason_name == reason
