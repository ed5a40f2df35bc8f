"""A service from its start to its end."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import httpx
import psutil
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from kente.ledger.v1.ledger_service_pb2 import GetAccountRequest, GetAccountResponse
from kente.options.v1 import options_pb2

import mesh.bus
from mesh.ids import new_id
from mesh.jobs import Job
from mesh.policies import methods_of
from mesh.server import Service
from mesh.settings import ServiceSettings
from tests.harness import Infrastructure, TestMesh, eventually, free_ports
from tests.mesh.probe import (
    LEDGER,
    PAYMENTS,
    SCOPES,
    TENANTS,
    TOKENS,
    Counted,
    LedgerClient,
    Probe,
    create_request,
    ledger_stub,
    reason_of,
)
from tests.mesh.process import environment_of
from tests.mesh.stream import write

GET = GetAccountRequest(account_name="assets:bank")


async def get_account(_request: object, _context: object) -> GetAccountResponse:
    """Answers at once."""
    return GetAccountResponse()


async def test_reflection_lists_every_service(served: tuple[Probe, Service]) -> None:
    async def ask() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")

    async with grpc.aio.insecure_channel(f"127.0.0.1:{served[1].port}") as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]  # typed for sync only
        answers = stub.ServerReflectionInfo(ask())
        (answer,) = [answer async for answer in answers]

    assert {service.name for service in answer.list_services_response.service} == {
        LEDGER,
        TOKENS,
        TENANTS,
        PAYMENTS,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


@pytest.mark.parametrize("name", ["", LEDGER, PAYMENTS])
async def test_health_is_told_of_each_service(served: tuple[Probe, Service], name: str) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served[1].port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))

    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_the_admin_port_counts_and_tells_health(
    probe: Probe, stub: LedgerClient, served: tuple[Probe, Service]
) -> None:
    probe.handlers["GetAccount"] = get_account
    await stub.GetAccount(GET)

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{served[1].metrics_port}") as client:
        metrics, health = await client.get("/metrics"), await client.get("/healthz")

    assert 'kente_rpc_seconds_count{method="/kente.ledger.v1.LedgerService/GetAccount",reason="OK"}' in metrics.text
    assert (health.status_code, health.json()) == (200, {"status": "serving"})


async def test_a_stopping_server_lets_a_call_under_way_end(
    infrastructure: Infrastructure, test_mesh: TestMesh, tenant_id: str
) -> None:
    probe, begun, release = Probe(), asyncio.Event(), asyncio.Event()
    service = await probe.start(infrastructure, "notifications", drain_seconds=10)

    async def slow(_request: object, _context: object) -> GetAccountResponse:
        begun.set()
        await release.wait()
        return GetAccountResponse()

    probe.handlers["GetAccount"] = slow
    stub = ledger_stub(test_mesh.client("notifications", tenant_id, SCOPES))
    call = asyncio.ensure_future(reason_of(stub.GetAccount(GET)))
    await begun.wait()
    stopping = asyncio.ensure_future(service.stop())

    async def takes_no_more() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", service.port)) != 0

    await eventually(takes_no_more)
    assert not stopping.done()
    release.set()

    assert await call == "OK"
    await stopping


async def test_a_stopping_server_ends_what_outlasts_the_drain(
    infrastructure: Infrastructure, test_mesh: TestMesh, tenant_id: str
) -> None:
    probe, begun, ended = Probe(), asyncio.Event(), asyncio.Event()
    service = await probe.start(infrastructure, "notifications", drain_seconds=0.2)

    async def hang(_request: object, _context: object) -> GetAccountResponse:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return GetAccountResponse()

    probe.handlers["GetAccount"] = hang
    stub = ledger_stub(test_mesh.client("notifications", tenant_id, SCOPES))
    call = asyncio.ensure_future(reason_of(stub.GetAccount(GET, timeout=30)))
    await begun.wait()
    await service.stop()

    assert await call != "OK"
    await ended.wait()


async def test_what_a_service_opened_is_closed_when_it_stops(infrastructure: Infrastructure) -> None:
    closed: list[str] = []

    async def close_first() -> None:
        closed.append("first")
        raise RuntimeError("closing failed")

    async def close_second() -> None:
        closed.append("second")

    probe = Probe()
    service = await probe.start(infrastructure, "notifications", close=[close_first, close_second])

    with pytest.raises(RuntimeError, match="closing failed"):
        await service.stop()

    assert closed == ["first", "second"]
    assert service._nats.is_closed
    assert service._database.pool.is_closing()


async def test_a_service_whose_background_work_ended_asks_to_be_started_anew(infrastructure: Infrastructure) -> None:
    async def fail() -> None:
        raise ValueError("a fault of ours")

    service = await Probe().start(infrastructure, "notifications", background=[fail])

    async with asyncio.timeout(5):
        await service.failed.wait()
    await service.stop()


async def test_more_calls_than_connections_wait_for_each_other_and_all_end(
    infrastructure: Infrastructure, test_mesh: TestMesh, tenant_id: str
) -> None:
    async def work(_job: Job) -> None:
        pass

    probe = Probe()
    # One connection listens for jobs and one may be relaying events: few are left.
    service = await probe.start(infrastructure, "notifications", pool_size=3, jobs={new_id("job"): work})

    async def write_too(_run: int) -> None:
        await write(service._database, tenant_id, "one")

    handler = probe.handlers["CreateAccount"] = Counted(write_too)
    stub = ledger_stub(test_mesh.client("notifications", tenant_id, SCOPES))
    reasons = await asyncio.gather(*(reason_of(stub.CreateAccount(create_request())) for _ in range(100)))
    await service.stop()

    assert set(reasons) == {"OK"}
    assert handler.runs == 100


async def test_a_taken_port_is_one_line_and_leaves_nothing_open(infrastructure: Infrastructure) -> None:
    probe = Probe()
    with socket.create_server(("127.0.0.1", infrastructure.ports["notifications"])) as taken:
        with pytest.raises(SystemExit) as raised:
            await probe.start(infrastructure, "notifications")
        port = taken.getsockname()[1]

    assert raised.value.code == f"KENTE_NOTIFICATIONS_PORT: port {port} is taken; stop what uses it, or set another"
    assert probe.runtime
    assert probe.runtime.database.pool.is_closing()


async def test_a_taken_metrics_port_is_one_line(infrastructure: Infrastructure) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        own = {"port": infrastructure.ports["notifications"], "metrics_port": port}
        settings = ServiceSettings(**own)
        service = Service("notifications", infrastructure.settings("notifications"), settings, Probe().build)
        with pytest.raises(SystemExit) as raised:
            await service.start()

    assert str(raised.value.code).startswith(f"KENTE_NOTIFICATIONS_METRICS_PORT: port {port} is taken;")


@pytest.mark.parametrize(
    ("setting", "value"),
    [("nats_url", "nats://kente:hidden@127.0.0.1:1"), ("database_url", "postgres://a:hidden@127.0.0.1:1/b")],
)
async def test_what_is_needed_and_away_is_one_line_without_its_password(
    infrastructure: Infrastructure, monkeypatch: pytest.MonkeyPatch, setting: str, value: str
) -> None:
    overrides: dict[str, Any] = {setting: value}
    monkeypatch.setattr(mesh.bus, "_CONNECT_SECONDS", 0.3)
    with pytest.raises(SystemExit) as raised:
        await Probe().start(infrastructure, "notifications", **overrides)

    line = str(raised.value.code)
    assert line.startswith(f"KENTE_{setting.upper()}: ")
    assert "\n" not in line
    assert "hidden" not in line


def _add_service(
    name: str, policy: options_pb2.RpcPolicy | None, *, with_request_id: bool = False, client_stream: bool = False
) -> str:
    """Adds a contract with one RPC to the pool; returns the service's full name."""
    package = f"kente.test_{name}.v1"
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    request = file.message_type.add(name="Request")
    if with_request_id:
        request.field.add(name="request_id", number=1, type="TYPE_STRING", label="LABEL_OPTIONAL")
    method = file.service.add(name="Service").method.add(
        name="Do", input_type=f".{package}.Request", output_type=f".{package}.Request", client_streaming=client_stream
    )
    if policy is not None:
        method.options.Extensions[options_pb2.rpc].CopyFrom(policy)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    return f"{package}.Service"


COMPLETE = options_pb2.RpcPolicy(
    permission="test:write",
    audience=options_pb2.AUDIENCE_PUBLIC,
    idempotency=options_pb2.IDEMPOTENCY_REQUEST_ID,
    audit=options_pb2.AUDIT_WRITE,
    rate=options_pb2.RATE_WRITE,
)


def test_a_complete_policy_is_read() -> None:
    name = _add_service("complete", COMPLETE, with_request_id=True)

    (method,) = methods_of([name]).values()

    assert (method.full_name, method.policy) == (f"/{name}/Do", COMPLETE)


@pytest.mark.parametrize(
    ("without", "fault"),
    [
        ("everything", "no audience"),
        ("permission", "no permission"),
        ("audience", "no audience"),
        ("idempotency", "no idempotency class"),
        ("audit", "no audit class"),
        ("rate", "no rate class"),
        ("request_id", "idempotent by request_id, and its request has none"),
        ("one_request", "a stream of requests"),
    ],
)
def test_a_server_with_an_rpc_that_lacks_a_part_of_its_policy_does_not_start(without: str, fault: str) -> None:
    parts = {field.name: value for field, value in COMPLETE.ListFields() if field.name != without}
    policy = options_pb2.RpcPolicy(**parts)
    name = _add_service(
        without,
        None if without == "everything" else policy,
        with_request_id=without != "request_id",
        client_stream=without == "one_request",
    )

    with pytest.raises(SystemExit, match=f"/{re.escape(name)}/Do: {fault}"):
        methods_of([name])


def _environment(infrastructure: Infrastructure, port: int, metrics_port: int, workers: int = 1) -> Mapping[str, str]:
    """What `kente up` gives the ledger's process."""
    own = {"PORT": port, "METRICS_PORT": metrics_port, "WORKERS": workers}
    return environment_of(infrastructure, "ledger") | {f"KENTE_LEDGER_{name}": str(own[name]) for name in own}


async def _ledger(environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "services.ledger"),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def _all_serve(port: int, metrics_port: int, workers: int) -> bool:
    listening = [
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN
    ]
    if len(set(listening)) < workers:
        return False
    async with httpx.AsyncClient() as client:
        try:
            return (await client.get(f"http://127.0.0.1:{metrics_port}/healthz")).status_code == 200
        except httpx.HTTPError:
            return False


async def test_a_process_whose_port_is_taken_ends_with_one_line(infrastructure: Infrastructure) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await _ledger(_environment(infrastructure, port, 0))
        _, errors = await process.communicate()

    assert process.returncode == 1
    assert errors.decode().splitlines() == [
        f"KENTE_LEDGER_PORT: port {port} is taken; stop what uses it, or set another"
    ]


async def test_workers_share_the_port_are_counted_together_and_end_with_their_parent(
    infrastructure: Infrastructure, tenant_id: str
) -> None:
    port, metrics_port = free_ports(2)
    parent = await _ledger(_environment(infrastructure, port, metrics_port, workers=2))
    try:
        await eventually(lambda: _all_serve(port, metrics_port, 2))
        workers = psutil.Process(parent.pid).children()
        assert len(workers) == 2
        token = infrastructure.identity("ledger").service_token(tenant_id)
        for _ in range(10):
            # A connection each, so that both workers get some.
            async with grpc.aio.insecure_channel(
                f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]
            ) as channel:
                call = ledger_stub(channel).GetAccount(GET, metadata=(("authorization", f"Bearer {token}"),))
                assert await reason_of(call) == "RESOURCE_NOT_FOUND"
        async with httpx.AsyncClient() as client:
            metrics = (await client.get(f"http://127.0.0.1:{metrics_port}/metrics")).text
        assert re.search(r'rpc_seconds_count\{.*GetAccount",reason="RESOURCE_NOT_FOUND"\} 10.0', metrics)

        # However it ends: its workers must not keep the port.
        parent.kill()
        await parent.wait()

        async def workers_are_gone() -> bool:
            return not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)

        await eventually(workers_are_gone)
    finally:
        if parent.returncode is None:
            parent.kill()
            await parent.wait()


async def test_workers_end_in_good_order_on_sigterm(infrastructure: Infrastructure) -> None:
    port, metrics_port = free_ports(2)
    parent = await _ledger(_environment(infrastructure, port, metrics_port, workers=2))
    await eventually(lambda: _all_serve(port, metrics_port, 2))
    parent.send_signal(signal.SIGTERM)
    output, _ = await parent.communicate()

    assert parent.returncode == 0
    assert output.decode().count('"service_stopped"') == 2
