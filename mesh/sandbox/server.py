"""One HTTP server for all simulators, at /<slug>/, and the control API that tests use.

PUT    /_faults/<slug>   {"operation": "collect", "fault": "timeout_after_commit", "count": 1}
GET    /_faults/<slug>   what still waits
DELETE /_faults/<slug>
PUT    /_callbacks/<slug> {"url": "http://..."}   enters an address for callbacks, as in a provider's dashboard
GET    /_state/<slug>    money moved, and every record of the provider
POST   /_clear           forgets everything, or one provider with ?provider=<slug>
GET    /                 the simulators with their operations and magic values
GET    /healthz
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mesh.logs import get_logger
from mesh.provider.folders import domains, provider_folders
from mesh.sandbox.clockwork import Clockwork
from mesh.sandbox.faults import ANY_OPERATION, Fault, FaultPlan
from mesh.sandbox.settings import SandboxSettings
from mesh.sandbox.simulator import ProviderSimulator, Stage
from mesh.sandbox.store import Store

Endpoint = Callable[[Request], Awaitable[Response]]

_log = get_logger()

_BAD_GATEWAY = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
_COUNT_MAX = 1_000_000
# Longer than the keep-alive of any client, so that the client and never the sandbox ends an idle connection.
_KEEP_ALIVE_SECONDS = 75


class Sandbox:
    """All simulators behind one port.

    Args:
        settings: ports, faults and latencies.
        host: address to listen on.
        state_path: file that it remembers everything in.
        wrap: put around the application, to listen to what goes over the wire.
    """

    def __init__(
        self,
        settings: SandboxSettings,
        host: str,
        state_path: Path | str,
        wrap: Callable[[ASGIApp], ASGIApp] | None = None,
    ) -> None:
        self.settings = settings
        self.host = host
        self.store = Store(state_path)
        self.faults = FaultPlan(self.store, settings)
        self.simulators = {slug: self._make(slug, kind) for slug, kind in find_simulators().items()}
        app = Starlette(routes=[*self._control_routes(), *self._mounts()], lifespan=self._lifespan)
        self._server = uvicorn.Server(
            uvicorn.Config(
                wrap(app) if wrap else app,
                host=host,
                port=settings.port,
                http=_AbortableProtocol,
                lifespan="on",
                log_config=None,
                access_log=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=1,
            )
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Address of the sandbox, once it is started."""
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://{self.host}:{port}"

    def run(self) -> None:
        """Serves until SIGTERM or SIGINT."""
        self._server.run()

    async def start(self) -> None:
        """Serves in the background of the running loop, for tests. Leaves signals alone."""
        self._task = asyncio.create_task(self._server._serve())  # noqa: SLF001 - serve() would take the signals
        while not self._server.started:
            if self._task.done():
                await self._task
                raise RuntimeError("the sandbox did not start")
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Ends what start began."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task

    def _make(self, slug: str, kind: type[ProviderSimulator]) -> ProviderSimulator:
        take_fault = partial(self.faults.take, slug)
        return kind(Stage(slug, self.store.shelf(slug), self.settings, self.host, take_fault))

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        clockwork = asyncio.create_task(Clockwork(self.store, self.simulators).run())
        try:
            for simulator in self.simulators.values():
                await simulator.start()
            yield
        finally:
            for simulator in self.simulators.values():
                await simulator.stop()
            clockwork.cancel()
            with suppress(asyncio.CancelledError):
                await clockwork
            self.store.close()

    def _mounts(self) -> list[BaseRoute]:
        return [
            Mount(f"/{slug}", routes=[self._with_faults(simulator, route) for route in simulator.routes()])
            for slug, simulator in self.simulators.items()
        ]

    def _with_faults(self, simulator: ProviderSimulator, route: BaseRoute) -> BaseRoute:
        if not isinstance(route, Route) or not inspect.iscoroutinefunction(route.endpoint):
            return route
        endpoint = partial(self._answer, simulator, route.name, cast("Endpoint", route.endpoint))
        return Route(route.path, endpoint, methods=list(route.methods or ()), name=route.name)

    async def _answer(
        self, simulator: ProviderSimulator, operation: str, endpoint: Endpoint, request: Request
    ) -> Response:
        fault = self.faults.take(simulator.stage.slug, operation) or await simulator.magic_fault(operation, request)
        request.state.fault = fault
        if fault:
            _log.info("sandbox_fault", provider=simulator.stage.slug, operation=operation, fault=fault.value)
        if fault is Fault.TIMEOUT_BEFORE:
            return await self._say_nothing(request)
        if fault is Fault.STORM_429:
            return simulator.too_many_requests(operation)
        response = await endpoint(request)
        if fault is Fault.TIMEOUT_AFTER_COMMIT:
            return await self._say_nothing(request)
        if fault is Fault.RESET_AFTER_COMMIT:
            _reset(request)
        if fault is Fault.HTML_502:
            return HTMLResponse(_BAD_GATEWAY, 502)
        if fault is Fault.TRUNCATED_JSON:
            # A provider that answers without a body gets a broken one all the same.
            body = bytes(response.body) or b'{"status": "ok"}'
            return Response(body[: len(body) // 2], response.status_code, media_type="application/json")
        return response

    async def _say_nothing(self, request: Request) -> Response:
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.hang_seconds):
                while (await request.receive())["type"] != "http.disconnect":
                    pass
        _reset(request)
        return Response()

    def _control_routes(self) -> list[BaseRoute]:
        return [
            Route("/", self._get_overview),
            Route("/healthz", _get_health),
            Route("/_faults/{slug}", self._put_fault, methods=["PUT"]),
            Route("/_faults/{slug}", self._get_faults, methods=["GET"]),
            Route("/_faults/{slug}", self._delete_faults, methods=["DELETE"]),
            Route("/_callbacks/{slug}", self._put_callback, methods=["PUT"]),
            Route("/_state/{slug}", self._get_state),
            Route("/_clear", self._clear, methods=["POST"]),
        ]

    async def _get_overview(self, _request: Request) -> Response:
        described = {
            slug: {"operations": sorted(operations_of(simulator)), "magic_values": dict(simulator.magic_values)}
            for slug, simulator in self.simulators.items()
        }
        return JSONResponse({"providers": described, "faults": [fault.value for fault in Fault]})

    async def _put_fault(self, request: Request) -> Response:
        simulator = self._simulator_of(request)
        try:
            body = await request.json()
            operation, fault = str(body["operation"]), Fault(body["fault"])
            count = body.get("count", 1)
        except (ValueError, KeyError, TypeError, AttributeError):
            known = ", ".join(fault.value for fault in Fault)
            raise HTTPException(400, f'send {{"operation": ..., "fault": ..., "count": 1}}; faults: {known}') from None
        operations = operations_of(simulator) | {ANY_OPERATION}
        if operation not in operations:
            raise HTTPException(400, f"operation {operation!r} is none of {', '.join(sorted(operations))}")
        if count is not None and (not isinstance(count, int) or not 0 < count <= _COUNT_MAX):
            raise HTTPException(400, f"count is a number from 1 to {_COUNT_MAX}, or null for until cleared")
        self.faults.add(simulator.stage.slug, operation, fault, count)
        return JSONResponse({"faults": self.faults.listed(simulator.stage.slug)})

    async def _get_faults(self, request: Request) -> Response:
        return JSONResponse({"faults": self.faults.listed(self._simulator_of(request).stage.slug)})

    async def _delete_faults(self, request: Request) -> Response:
        self.faults.clear(self._simulator_of(request).stage.slug)
        return Response(status_code=204)

    async def _put_callback(self, request: Request) -> Response:
        simulator = self._simulator_of(request)
        try:
            url = str((await request.json())["url"])
        except (ValueError, KeyError, TypeError):
            raise HTTPException(400, 'send {"url": ...}') from None
        simulator.register_callback(url)
        return Response(status_code=204)

    async def _get_state(self, request: Request) -> Response:
        simulator = self._simulator_of(request)
        shelf = simulator.shelf
        state: dict[str, Any] = {
            "provider": simulator.stage.slug,
            "counts": shelf.movement_counts(),
            "movements": shelf.movements(),
            "records": {kind: shelf.newest(kind) for kind in shelf.kinds()},
            "planned": shelf.planned(),
        }
        return JSONResponse(state)

    async def _clear(self, request: Request) -> Response:
        slug = request.query_params.get("provider")
        if slug is not None and slug not in self.simulators:
            raise HTTPException(404, f"there is no simulator {slug!r}")
        self.store.clear(slug)
        self.faults.clear(slug)
        return Response(status_code=204)

    def _simulator_of(self, request: Request) -> ProviderSimulator:
        slug = request.path_params["slug"]
        if slug not in self.simulators:
            raise HTTPException(404, f"there is no simulator {slug!r}: there are {', '.join(sorted(self.simulators))}")
        return self.simulators[slug]


def find_simulators() -> dict[str, type[ProviderSimulator]]:
    """The simulator classes by slug, from the folders of all domains.

    Raises:
        LookupError: a simulator.py defines none or several, or two domains have one of the same name.
    """
    found: dict[str, type[ProviderSimulator]] = {}
    for domain in domains():
        for folder in provider_folders(domain):
            if not (folder / "simulator.py").is_file():
                _log.warning("sandbox_simulator_missing", provider=folder.name, domain=domain)
                continue
            if folder.name in found:
                raise LookupError(f"two domains have a simulator named {folder.name}")
            module = importlib.import_module(f"services.{domain}.providers.{folder.name}.simulator")
            classes = [
                candidate
                for _, candidate in inspect.getmembers(module, inspect.isclass)
                if issubclass(candidate, ProviderSimulator) and candidate.__module__ == module.__name__
            ]
            if len(classes) != 1:
                raise LookupError(f"{module.__name__} defines {len(classes)} simulators, not one")
            found[folder.name] = classes[0]
    return found


def operations_of(simulator: ProviderSimulator) -> set[str]:
    """Names of the operations that faults can be planned for."""
    return {route.name for route in simulator.routes() if isinstance(route, Route)} | simulator.extra_operations


async def _get_health(_request: Request) -> Response:
    return JSONResponse({"status": "serving"})


def _reset(request: Request) -> None:
    """Resets the connection: the peer reads ECONNRESET rather than an orderly end."""
    transport: asyncio.Transport = request.state.transport
    connection = transport.get_extra_info("socket")
    if connection is not None and not transport.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class _AbortableProtocol(HttpToolsProtocol):
    """Lets an endpoint reach its connection, as request.state.transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}
