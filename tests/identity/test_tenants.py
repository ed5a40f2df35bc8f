"""Tenants, through the contract."""

from __future__ import annotations

import pytest
from kente.identity.v1 import tenant_service_pb2, tenant_service_pb2_grpc

from mesh.ids import new_id
from tests.identity.office import Office, new_request_id, refusal


async def test_an_operator_creates_and_reads_a_tenant(office: Office) -> None:
    created = await office.new_tenant("Kwame & Daughters")

    read = await office.tenants.GetTenant(tenant_service_pb2.GetTenantRequest(tenant_id=created.tenant_id))

    assert created.tenant_id.startswith("ten_")
    assert created.display_name == "Kwame & Daughters"
    assert created.create_time.seconds > 0
    assert read.tenant == created


async def test_a_repeated_request_gives_the_same_tenant(office: Office) -> None:
    request = tenant_service_pb2.CreateTenantRequest(request_id=new_request_id(), display_name="Acme")

    first, second = await office.tenants.CreateTenant(request), await office.tenants.CreateTenant(request)

    assert first == second


async def test_a_repeated_request_for_another_tenant_is_refused(office: Office) -> None:
    request_id = new_request_id()
    await office.tenants.CreateTenant(
        tenant_service_pb2.CreateTenantRequest(request_id=request_id, display_name="Acme")
    )

    problem = await refusal(
        office.tenants.CreateTenant(tenant_service_pb2.CreateTenantRequest(request_id=request_id, display_name="Other"))
    )

    assert problem.reason_name == "REQUEST_ID_REUSED"


async def test_an_unknown_tenant_is_not_found(office: Office) -> None:
    tenant_id = new_id("ten")

    problem = await refusal(office.tenants.GetTenant(tenant_service_pb2.GetTenantRequest(tenant_id=tenant_id)))

    assert problem.reason_name == "RESOURCE_NOT_FOUND"
    assert problem.metadata == {"tenant_id": tenant_id}


async def test_a_caller_that_acts_for_a_tenant_sees_no_other(office: Office) -> None:
    own, other = await office.new_tenant(), await office.new_tenant()
    stub = tenant_service_pb2_grpc.TenantServiceStub(office.mesh.peer("identity", "payments", own.tenant_id))

    read = await stub.GetTenant(tenant_service_pb2.GetTenantRequest(tenant_id=own.tenant_id))
    problem = await refusal(stub.GetTenant(tenant_service_pb2.GetTenantRequest(tenant_id=other.tenant_id)))

    assert read.tenant == own
    assert problem.reason_name == "RESOURCE_NOT_FOUND"


@pytest.mark.parametrize("scopes", [("tenants:read", "tenants:write"), ()])
async def test_a_client_manages_no_tenants_whatever_its_scopes(office: Office, scopes: tuple[str, ...]) -> None:
    tenant = await office.new_tenant()
    stub = tenant_service_pb2_grpc.TenantServiceStub(office.mesh.client("identity", tenant.tenant_id, scopes))

    problem = await refusal(stub.GetTenant(tenant_service_pb2.GetTenantRequest(tenant_id=tenant.tenant_id)))

    assert problem.reason_name == "SCOPE_MISSING"
    assert problem.metadata == {"scope": "tenants:read"}


async def test_a_tenant_without_a_name_is_refused(office: Office) -> None:
    request = tenant_service_pb2.CreateTenantRequest(request_id=new_request_id())

    problem = await refusal(office.tenants.CreateTenant(request))

    assert [violation.field for violation in problem.violations] == ["display_name"]
