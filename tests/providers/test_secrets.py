"""Credentials and personal data never reach a log, an error or a span, whatever happens."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mesh.provider.errors import ProviderError
from mesh.sandbox.faults import Fault
from tests.providers.conftest import DOUBT_TIMEOUT_SECONDS, Bench, Ears
from tests.providers.contract import Case, Question

FAULTS = [
    None,
    Fault.DECLINE,
    Fault.TIMEOUT_AFTER_COMMIT,
    Fault.RESET_AFTER_COMMIT,
    Fault.STORM_429,
    Fault.HTML_502,
    Fault.TRUNCATED_JSON,
    Fault.UNKNOWN_STATUS,
]
_SHORTEST_SECRET = 6


@pytest.fixture(scope="module")
def spans() -> InMemorySpanExporter:
    """Every span of this process, from now on."""
    exporter = InMemorySpanExporter()
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault or "no_fault")
async def test_nothing_secret_is_logged_or_traced_by_an_operation(
    bench: Bench, case: Case, fault: Fault | None, ears: Ears, spans: InMemorySpanExporter
) -> None:
    spans.clear()
    adapter, attempt = bench.adapter(settings={"timeout_seconds": DOUBT_TIMEOUT_SECONDS}), bench.attempt()
    try:
        prepared = await case.prepare(adapter, attempt)
        if fault:
            bench.plan(case.operation, fault)
        await case.send(adapter, attempt, prepared)
        await bench.end(case, adapter, attempt)
    except ProviderError as error:
        ears.heard.append(f"{error!s} {error!r}")

    _assert_nothing_secret(bench, ears, spans)


async def test_nothing_secret_is_logged_or_traced_by_a_question(
    bench: Bench, question: Question, ears: Ears, spans: InMemorySpanExporter
) -> None:
    spans.clear()
    await question.ask(bench.adapter(), bench.values)

    _assert_nothing_secret(bench, ears, spans)


async def test_nothing_secret_shows_in_a_repr(bench: Bench) -> None:
    adapter = bench.adapter()
    shown = f"{adapter!r} {adapter.connection!r} {adapter.credentials!r} {vars(adapter)!r}"

    assert [secret for secret in _secrets(bench) if secret in shown] == []


def _secrets(bench: Bench) -> list[str]:
    credentials = bench.registry.adapter_class(bench.provider.slug).sandbox_credentials.values()
    numbers = [value.removeprefix("+") for value in bench.values.personal]
    return [secret for secret in [*credentials, *numbers] if len(secret) >= _SHORTEST_SECRET]


def _assert_nothing_secret(bench: Bench, ears: Ears, spans: InMemorySpanExporter) -> None:
    told = ears.text + "\n".join(span.to_json() for span in spans.get_finished_spans())

    assert "provider_called" in told
    assert f"{bench.provider.slug} " in {span.name.partition(" ")[0] + " " for span in spans.get_finished_spans()}
    assert [secret for secret in _secrets(bench) if secret in told] == []
