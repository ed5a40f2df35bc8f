"""A sandbox for each test, and adapters that use it over real HTTP."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import stamina
import structlog

from mesh.ids import new_id
from mesh.provider.adapter import Adapter
from mesh.provider.connection import Connection, Environment
from mesh.provider.registry import Registry
from mesh.sandbox.faults import Fault
from mesh.sandbox.server import Sandbox
from mesh.sandbox.settings import SandboxSettings
from tests.harness import eventually
from tests.providers.contract import Attempt, Case, Provider, Seen, State, Values, driver_of
from tests.providers.vendor_specs import Recorder

# A folder with providers beside those of the source, as <domain>/<slug>/; used to test the template.
if extra := os.environ.get("KENTE_TEST_PROVIDERS"):
    for folder in Path(extra).iterdir():
        importlib.import_module(f"services.{folder.name}.providers").__path__.append(str(folder))

DOUBT_TIMEOUT_SECONDS = "0.7"


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    """Tries follow each other at once."""
    stamina.set_testing(True, attempts=3, cap=True)
    yield
    stamina.set_testing(False)


@pytest.fixture(scope="session")
def recorder() -> Recorder:
    """What goes over the wire."""
    return Recorder()


@pytest.fixture(scope="session")
async def running_sandbox(recorder: Recorder) -> AsyncIterator[Sandbox]:
    """All simulators, started once."""
    settings = SandboxSettings(port=0, smtp_port=0, approval_seconds=0.02, late_callback_seconds=0.3, hang_seconds=20)
    wrap = recorder.wrap if os.environ.get("KENTE_VENDOR_SPECS") else None
    started = Sandbox(settings, "127.0.0.1", ":memory:", wrap)
    await started.start()
    yield started
    await started.stop()


@pytest.fixture
def sandbox(running_sandbox: Sandbox, recorder: Recorder) -> Iterator[Sandbox]:
    """The simulators with nothing remembered; what went over the wire is checked against the vendors' documents."""
    running_sandbox.store.clear()
    running_sandbox.faults.clear()
    yield running_sandbox
    recorder.check()


@dataclass
class Bench:
    """One provider with its simulator, and what the tests do to both."""

    provider: Provider
    sandbox: Sandbox
    registry: Registry
    values: Values
    said: list[str] = field(default_factory=list)

    def adapter(
        self,
        *,
        settings: Mapping[str, str] | None = None,
        credentials: Mapping[str, str] | None = None,
        base_url: str | None = None,
        callback_url: str = "",
    ) -> Adapter:
        """An adapter of a connection of its own."""
        adapter_class = self.registry.adapter_class(self.provider.slug)
        given = {**adapter_class.sandbox_settings, **(self.values.orders[0].get("settings") or {}), **(settings or {})}
        connection = Connection(
            connection_id=new_id("con"),
            tenant_id="ten_contract",
            provider=self.provider.slug,
            environment=Environment.SANDBOX,
            base_url=base_url or self._own_address(adapter_class),
            settings={name: value.replace("{sandbox_url}", self.sandbox.url) for name, value in given.items()},
            credentials=adapter_class.sandbox_credentials if credentials is None else credentials,
            callback_url=callback_url,
        )
        return self.registry.open(connection)

    def _own_address(self, adapter_class: type[Adapter]) -> str | None:
        """Where a simulator that has a server of its own listens; None for one behind the sandbox's HTTP port."""
        port = getattr(self.sandbox.simulators[self.provider.slug], "port", None)
        scheme = adapter_class.base_urls[Environment.SANDBOX].partition(":")[0]
        return f"{scheme}://127.0.0.1:{port}" if port else None

    def attempt(self, index: int = 0) -> Attempt:
        """An operation with the amount of one of the provider's orders."""
        return Attempt(self.values.amount(self.values.orders[index]), self.values)

    def plan(self, operation: str, fault: Fault, count: int | None = 1) -> None:
        """Plans a fault."""
        self.sandbox.faults.add(self.provider.slug, operation, fault, count)

    def moved(self, case: Case) -> int:
        """How often money, or a message, moved."""
        counts = self.sandbox.simulators[self.provider.slug].shelf.movement_counts()
        return counts.get(case.movement or case.operation, 0)

    async def end(self, case: Case, adapter: Adapter, attempt: Attempt, reference: str = "") -> Seen:
        """How an operation stands when it is no longer pending."""

        async def ended() -> Seen | None:
            found = await case.find(adapter, attempt, reference)
            return None if found.state is State.PENDING else found

        result: Seen = await eventually(ended, 5.0)
        return result


@pytest.fixture
async def bench(provider: Provider, sandbox: Sandbox) -> AsyncIterator[Bench]:
    """The bench of the provider that the test is about."""
    registry = Registry(provider.domain, sandbox_url=sandbox.url)
    yield Bench(provider, sandbox, registry, Values.of(provider.folder))
    await registry.close()


class Ears:
    """Hears all that is logged, by structlog and by the standard library, at every level."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def processor(self, _logger: Any, _name: str, event: Any) -> Any:
        self.heard.append(repr(event))
        return event

    @property
    def text(self) -> str:
        return "\n".join(self.heard)


@pytest.fixture
def ears() -> Iterator[Ears]:
    """All logs at DEBUG, unmasked: an adapter must not rely on the masking."""
    listening = Ears()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            listening.heard.append(f"{record.name} {record.getMessage()} {record.exc_text or ''}")

    handler, root = Handler(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    configured = structlog.get_config()
    structlog.configure(
        processors=[listening.processor, *configured["processors"]],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        cache_logger_on_first_use=False,
    )
    yield listening
    structlog.configure(**configured)
    root.removeHandler(handler)
    root.setLevel(level)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test for every provider; one that takes a case, for every operation that a provider can do."""
    from tests.providers.contract import all_providers  # noqa: PLC0415 - after the extra folders were added

    given = [name for mark in metafunc.definition.iter_markers("parametrize") for name in mark.args[0]]
    if "provider" not in metafunc.fixturenames or "provider" in given:
        return
    providers = all_providers()
    for name in ("case", "question"):
        if name in metafunc.fixturenames:
            pairs = [(each, item) for each in providers for item in _items(each, name)]
            ids = [f"{each}-{item.operation}" for each, item in pairs]
            metafunc.parametrize(("provider", name), pairs, ids=ids)
            return
    metafunc.parametrize("provider", providers, ids=str)


def _items(provider: Provider, kind: str) -> list[Any]:
    """The cases or questions for what a provider can do; none while its folder is not complete."""
    with suppress(Exception):
        driver = driver_of(provider.domain)
        can = Registry(provider.domain).capabilities_of(provider.slug)
        items = driver.cases if kind == "case" else driver.questions
        return [item for item in items if item.capability in can]
    return []
