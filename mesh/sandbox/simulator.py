"""What a simulator is: routes, a shelf to remember things on, and callbacks.

    class Simulator(ProviderSimulator):
        def routes(self):
            return [Route("/v1/charges", self.create_charge, methods=["POST"], name="charge")]

A route's name is its operation, the word that faults are planned with. It lies at /<slug>/ of the sandbox, so an
adapter whose base URL is http://127.0.0.1:7480/<slug> finds it. An endpoint commits before it returns, checks
`self.fault_of(request)` for the faults that only it can act out (DECLINE, UNKNOWN_STATUS), and plans what happens
later with `self.shelf.later(...)`, which calls `on_timer`.

A simulator is written from the provider's documentation, never from the adapter, and shares no code with it.
A simulator that speaks something other than HTTP starts its server in `start` and names its operations in
`extra_operations`; it takes faults with `self.stage.take_fault(operation)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from mesh.sandbox.faults import Fault
from mesh.sandbox.settings import SandboxSettings
from mesh.sandbox.store import Shelf

CALLBACK_TIMER = "callback"
# Between callbacks that belong in one order: far enough apart that the first is answered before the next is sent.
_CALLBACK_GAP_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Callback:
    """A request that the provider makes to us.

    Attributes:
        retry_delays_seconds: pauses before further tries when the answer is not 2xx; empty for a provider that
            sends once.
    """

    url: str
    body: str
    http_method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    retry_delays_seconds: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """What the sandbox gives to a simulator.

    Attributes:
        host: address that servers of the simulator listen on.
        take_fault: the fault planned for an operation, used up; for servers that do not speak HTTP.
    """

    slug: str
    shelf: Shelf
    settings: SandboxSettings
    host: str
    take_fault: Callable[[str], Fault | None]


class ProviderSimulator(ABC):
    """One provider's side of the wire."""

    # Values that make something happen, for the documentation and GET /: value -> what happens.
    magic_values: ClassVar[Mapping[str, str]] = {}
    # Operations besides those of the routes.
    extra_operations: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.shelf = stage.shelf

    @abstractmethod
    def routes(self) -> Sequence[BaseRoute]:
        """The provider's HTTP interface; each Route's name is its operation."""

    async def start(self) -> None:  # noqa: B027 - optional
        """Starts servers that do not speak HTTP."""

    async def stop(self) -> None:  # noqa: B027 - optional
        """Stops what start started."""

    def on_timer(self, name: str, payload: dict[str, Any]) -> None:  # noqa: ARG002 - for subclasses
        """Does what was planned with shelf.later. Runs in a transaction; must not wait for anything."""
        raise LookupError(f"{self.stage.slug} plans {name!r} but does nothing about it")

    async def magic_fault(self, operation: str, request: Request) -> Fault | None:  # noqa: ARG002 - for subclasses
        """The fault that a request asks for by a documented value in it, such as a payer's number."""
        return None

    def too_many_requests(self, operation: str) -> Response:  # noqa: ARG002 - for subclasses
        """The provider's answer under the fault STORM_429."""
        return JSONResponse({"message": "Too many requests"}, 429, headers={"Retry-After": "1"})

    def register_callback(self, url: str) -> None:  # noqa: B027 - optional
        """Remembers an address for callbacks, for a provider where the customer enters it once in a dashboard."""

    def sign_callback(self, body: str) -> Mapping[str, str]:  # noqa: ARG002 - for subclasses
        """Headers that prove a callback, computed for each delivery; none for a provider that does not sign."""
        return {}

    @staticmethod
    def fault_of(request: Request) -> Fault | None:
        """The fault that this request got."""
        fault: Fault | None = request.state.fault
        return fault

    def call_back(self, callbacks: Sequence[Callback], fault: str | None = None, delay_seconds: float = 0.0) -> None:
        """Plans callbacks in this order, as the fault wants them.

        Args:
            callbacks: what to send; those to a host that is not allowed are dropped.
            fault: the fault that the request got which caused them.
            delay_seconds: when the first is sent.
        """
        allowed = self.stage.settings.callback_hosts.split(",")
        planned = [callback for callback in callbacks if urlsplit(callback.url).hostname in allowed]
        if fault == Fault.NO_CALLBACK:
            return
        if fault == Fault.OUT_OF_ORDER_CALLBACK:
            planned.reverse()
        if fault == Fault.DUPLICATE_CALLBACK:
            planned = [callback for callback in planned for _ in range(2)]
        if fault == Fault.LATE_CALLBACK:
            delay_seconds += self.stage.settings.late_callback_seconds
        for index, callback in enumerate(planned):
            payload = {
                "url": callback.url,
                "body": callback.body,
                "http_method": callback.http_method,
                "headers": dict(callback.headers),
                "retry_delays_seconds": callback.retry_delays_seconds,
            }
            self.shelf.later(delay_seconds + index * _CALLBACK_GAP_SECONDS, CALLBACK_TIMER, payload)
