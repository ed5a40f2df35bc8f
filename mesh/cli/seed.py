"""`kente seed`: the demo tenant, its API key and its connections to the sandbox. Repeating it changes nothing."""

import asyncio
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import httpx
from kente.connections.v1 import connection_pb2, connection_service_pb2, connection_service_pb2_grpc
from kente.identity.v1 import (
    api_key_service_pb2,
    api_key_service_pb2_grpc,
    tenant_service_pb2,
    tenant_service_pb2_grpc,
    token_service_pb2,
    token_service_pb2_grpc,
)
from kente.options.v1.options_pb2 import Audience

from mesh.channel import open_channel
from mesh.cli.options import plan_of, running_plan, state_at
from mesh.cli.output import CommandError, console, print_json
from mesh.context import call_tenant
from mesh.embedded import demo_env
from mesh.embedded.keys import load_or_create
from mesh.embedded.layout import GATEWAY, OPERATOR, SANDBOX, SERVICES
from mesh.embedded.plan import MeshPlan
from mesh.errors import Problem
from mesh.ids import derive_uuid
from mesh.policies import contract_services, methods_of
from mesh.provider.adapter import Adapter
from mesh.provider.connection import Environment
from mesh.provider.folders import domains as provider_domains
from mesh.provider.registry import Registry
from mesh.settings import MeshSettings, load
from mesh.tokens import Identity

TENANT_NAME: Final = "Kente demo"
# Providers of the demo tenant, with settings beyond those that each provider's sandbox needs.
PROVIDERS: Final[Mapping[str, Mapping[str, str]]] = {
    # So that the demo's time-out does not take the usual five seconds.
    "mtn_momo": {"timeout_seconds": "2"},
    "stripe": {},
    "smtp": {},
}
_TIMEOUT_SECONDS = 20.0
_PAGE_SIZE = 200


def run(state_dir: Path, *, as_json: bool) -> None:
    """Seed and say what there is. The API key is only in the file.

    Raises:
        CommandError: no mesh runs, or a service refused.
    """
    state = state_at(state_dir)
    if "KENTE_IDENTITY_FILE" in os.environ:
        # Given everything by the supervisor, or by whoever runs the services elsewhere.
        plan = plan_of(state)
    else:
        plan = running_plan(state)[0]
        os.environ.update(plan.environment_of(OPERATOR, load_or_create(state)))
    try:
        values = asyncio.run(seed(plan, load(MeshSettings)))
    except httpx.HTTPError as error:
        raise CommandError(f"the sandbox does not answer ({type(error).__name__}): look at its log") from error
    except grpc.aio.AioRpcError as error:
        problem = Problem.from_rpc_error(error)
        raise CommandError(f"the demo tenant could not be made: {problem.reason_name}: {problem.detail}") from error
    shown = {name: value for name, value in values.items() if name != demo_env.API_KEY}
    if as_json:
        print_json({"file": str(state.demo_file), "values": shown})
    else:
        console().print(f"demo tenant {values[demo_env.TENANT_ID]}: source {state.demo_file}", soft_wrap=True)


async def seed(plan: MeshPlan, settings: MeshSettings) -> dict[str, str]:
    """Make what is missing and write the demo file. Returns what is in it."""
    if settings.identity_file is None:
        raise CommandError("KENTE_IDENTITY_FILE must name the operator's key: `kente identities` makes one")
    identity = Identity.load(settings.identity_file)
    async with AsyncExitStack() as stack:
        channels = {
            name: await stack.enter_async_context(open_channel(name, settings, identity))
            for name in ("identity", "connections")
        }
        with call_tenant("", timeout_seconds=_TIMEOUT_SECONDS):
            tenant_id = await _create_tenant(channels["identity"])
        with call_tenant(tenant_id, timeout_seconds=_TIMEOUT_SECONDS):
            (key_id, key), connections = await asyncio.gather(
                _keep_or_create_key(channels["identity"], demo_env.read(plan.state), tenant_id),
                _Connections(channels["connections"], plan).ensure(),
            )
    await _enter_callbacks(plan, connections)
    values = _describe(plan, tenant_id, {demo_env.CLIENT_ID: key_id, demo_env.API_KEY: key}, connections)
    demo_env.write(plan.state, values)
    return values


async def _enter_callbacks(plan: MeshPlan, connections: Mapping[str, str]) -> None:
    """Tell the simulated providers where they reach us, as one does in a provider's dashboard."""
    async with httpx.AsyncClient(base_url=plan.ports.url(SANDBOX), timeout=_TIMEOUT_SECONDS) as client:
        for slug, connection_id in connections.items():
            url = f"{plan.addresses()['KENTE_PUBLIC_URL']}/webhooks/{slug}/{connection_id}"
            answer = await client.put(f"/_callbacks/{slug}", json={"url": url})
            answer.raise_for_status()


def _describe(plan: MeshPlan, tenant_id: str, key: Mapping[str, str], connections: Mapping[str, str]) -> dict[str, str]:
    return {
        demo_env.BASE_URL: plan.ports.url(GATEWAY),
        **key,
        demo_env.TENANT_ID: tenant_id,
        **{f"KENTE_{slug.upper()}_CONNECTION_ID": connection_id for slug, connection_id in connections.items()},
        **{f"KENTE_GRPC_{name.upper()}": plan.ports.address(name, "grpc") for name in SERVICES},
        "KENTE_SANDBOX_URL": plan.ports.url(SANDBOX),
    }


async def _create_tenant(channel: grpc.aio.Channel) -> str:
    request = tenant_service_pb2.CreateTenantRequest(
        # Always the same: the same tenant, however often it is asked for.
        request_id=derive_uuid("demo", "tenant"),
        display_name=TENANT_NAME,
    )
    answer = await tenant_service_pb2_grpc.TenantServiceStub(channel).CreateTenant(request)
    return answer.tenant.tenant_id


async def _keep_or_create_key(channel: grpc.aio.Channel, values: Mapping[str, str], tenant_id: str) -> tuple[str, str]:
    """Id and key in the demo file while they are good, else new ones: a key's secret is told only once."""
    key = values.get(demo_env.API_KEY, "")
    key_id = values.get(demo_env.CLIENT_ID, "")
    if key and key_id and values.get(demo_env.TENANT_ID) == tenant_id and await _is_good(channel, key):
        return key_id, key
    request = api_key_service_pb2.CreateApiKeyRequest(
        request_id=str(uuid.uuid4()), display_name=TENANT_NAME, scopes=public_scopes()
    )
    answer = await api_key_service_pb2_grpc.ApiKeyServiceStub(channel).CreateApiKey(request)
    return answer.api_key.api_key_id, answer.secret


async def _is_good(channel: grpc.aio.Channel, key: str) -> bool:
    request = token_service_pb2.ExchangeApiKeyRequest(api_key=key)
    try:
        await token_service_pb2_grpc.TokenServiceStub(channel).ExchangeApiKey(request)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            return False
        raise
    return True


def public_scopes() -> list[str]:
    """Every permission that a partner's key can hold, sorted."""
    methods = (method for name in SERVICES for method in methods_of(contract_services(name)).values())
    policies = (method.policy for method in methods)
    return sorted({policy.permission for policy in policies if policy.audience == Audience.AUDIENCE_PUBLIC})


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A connection as it should be."""

    adapter: type[Adapter]
    base_url: str
    settings: Mapping[str, str]


class _Connections:
    """The demo tenant's connections to the sandbox."""

    def __init__(self, channel: grpc.aio.Channel, plan: MeshPlan) -> None:
        self._stub = connection_service_pb2_grpc.ConnectionServiceStub(channel)
        self._smtp_address = plan.ports.address(SANDBOX, "smtp")
        self._sandbox_url = plan.ports.url(SANDBOX)

    async def ensure(self) -> dict[str, str]:
        """Id of the connection to each provider, by slug. One that no longer fits is replaced."""
        present = await self._stub.ListConnections(connection_service_pb2.ListConnectionsRequest(page_size=_PAGE_SIZE))
        ids: dict[str, str] = {}
        for wanted in self._wanted():
            slug = wanted.adapter.slug
            own = [entry for entry in present.connections if _is_demo(entry, slug)]
            fitting = [entry for entry in own if _fits(entry, wanted)]
            for entry in own:
                # Routing must not find a connection that leads to a port where nobody is any more.
                if entry not in fitting[:1]:
                    await self._delete(entry.connection_id)
            ids[slug] = fitting[0].connection_id if fitting else await self._create(wanted)
        return ids

    def _wanted(self) -> Iterator[_Wanted]:
        registries = [Registry(domain) for domain in provider_domains()]
        for slug, more_settings in PROVIDERS.items():
            owner = next((registry for registry in registries if slug in registry.slugs()), None)
            if owner is None:
                raise CommandError(f"the provider {slug} is not installed: the installation is not complete")
            adapter = owner.adapter_class(slug)
            # Providers over HTTP are found in the sandbox by their slug; others are told where it listens.
            scheme, _, rest = adapter.base_urls[Environment.SANDBOX].partition("://")
            is_http = scheme in {"http", "https"}
            path = rest.partition("/")[2]
            address = f"{scheme}://{self._smtp_address}" + (f"/{path}" if path else "")
            usual_url = str(MeshSettings.model_fields["sandbox_url"].default)
            settings = {
                name: value.replace(usual_url, self._sandbox_url) for name, value in adapter.sandbox_settings.items()
            }
            yield _Wanted(adapter, "" if is_http else address, settings | dict(more_settings))

    async def _create(self, wanted: _Wanted) -> str:
        request = connection_service_pb2.CreateConnectionRequest(
            # A connection that was deleted must not be answered from memory.
            request_id=str(uuid.uuid4()),
            provider=wanted.adapter.slug,
            display_name=_display_name(wanted.adapter.slug),
            environment=connection_pb2.Connection.ENVIRONMENT_SANDBOX,
            base_url=wanted.base_url,
            settings=dict(wanted.settings),
            credentials=dict(wanted.adapter.sandbox_credentials),
        )
        answer = await self._stub.CreateConnection(request)
        return answer.connection.connection_id

    async def _delete(self, connection_id: str) -> None:
        request = connection_service_pb2.DeleteConnectionRequest(
            request_id=derive_uuid("demo", "delete", connection_id), connection_id=connection_id
        )
        await self._stub.DeleteConnection(request)


def _display_name(slug: str) -> str:
    return f"{slug} in the sandbox"


def _is_demo(connection: connection_pb2.Connection, slug: str) -> bool:
    return connection.provider == slug and connection.display_name == _display_name(slug)


def _fits(connection: connection_pb2.Connection, wanted: _Wanted) -> bool:
    return connection.base_url == wanted.base_url and dict(connection.settings) == dict(wanted.settings)
