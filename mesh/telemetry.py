"""Traces by OpenTelemetry: REST -> gRPC -> SQL, HTTP and NATS.

RPCs, events and calls of providers make their own spans: the libraries' would put whole addresses into them, and an
address of a provider can hold a phone number.

Where nothing is exported, no span is made: calls only carry on the ids of the trace, or begin one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

from opentelemetry import context as trace_context
from opentelemetry import propagate, trace
from opentelemetry.instrumentation.asyncpg import AsyncPGInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

from mesh.settings import MeshSettings

tracer = trace.get_tracer("kente")

_FLUSH_MILLISECONDS = 200
# What carries a trace from process to process (W3C).
_CARRIERS = ("traceparent", "baggage")
_SAMPLED = trace.TraceFlags(trace.TraceFlags.SAMPLED)

# Whether spans of this process reach anyone. Until it is set up, whoever has set a provider decides.
_exports = True


def configure_telemetry(settings: MeshSettings, process: str) -> None:
    """Sets up tracing of this process: to a collector, to a file, or nowhere."""
    global _exports  # noqa: PLW0603 - there is one provider of traces a process
    _exports = bool(settings.otlp_endpoint or settings.trace_file)
    provider = TracerProvider(resource=Resource.create({"service.name": process, "service.namespace": "kente"}))
    if settings.otlp_endpoint:
        # Imported when used: most processes of a laptop send nothing, and every one would pay for it.
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

        exporter = OTLPSpanExporter(endpoint=settings.otlp_endpoint, insecure=True)
        provider.add_span_processor(BatchSpanProcessor(exporter))
    if settings.trace_file:
        settings.trace_file.parent.mkdir(parents=True, exist_ok=True)
        file = settings.trace_file.open("a", buffering=1)
        lines = ConsoleSpanExporter(out=file, formatter=_one_line)
        provider.add_span_processor(BatchSpanProcessor(lines, schedule_delay_millis=_FLUSH_MILLISECONDS))
    trace.set_tracer_provider(provider)
    if _exports:
        # Parameters of statements are personal data; the instrumentation leaves them out unless asked.
        AsyncPGInstrumentor().instrument()  # type: ignore[no-untyped-call]  # the library has no types


def server_span(service: str, name: str, metadata: Mapping[str, str]) -> AbstractContextManager[trace.Span]:
    """The span of an RPC that this process answers, under the caller's. To be entered in the call's own task."""
    parent = propagate.extract(metadata) if any(carrier in metadata for carrier in _CARRIERS) else None
    if _exports:
        return tracer.start_as_current_span(
            f"{service}/{name}",
            context=parent,
            kind=trace.SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": name},
            # What a Problem says is recorded by its reason; its text stays out of traces.
            record_exception=False,
        )
    span = trace.get_current_span(parent)
    if not span.get_span_context().is_valid:
        # Ids only, so that logs, answers and the next services name the same trace. They are no secrets.
        trace_id, span_id = random.getrandbits(128), random.getrandbits(64)
        span = trace.NonRecordingSpan(trace.SpanContext(trace_id, span_id, is_remote=False, trace_flags=_SAMPLED))
    # Never detached: the call's own task ends with the call.
    trace_context.attach(trace.set_span_in_context(span, parent))
    return nullcontext(span)


@contextmanager
def client_span(method: str) -> Iterator[None]:
    """The span of an RPC that this process makes."""
    if not _exports:
        yield
        return
    with tracer.start_as_current_span(method, kind=trace.SpanKind.CLIENT, record_exception=False):
        yield


def is_exporting() -> bool:
    """Whether a span that is made here reaches anyone."""
    return _exports


def current_trace_context() -> dict[str, str]:
    """What tells another process of the current trace (W3C): empty, or with a `traceparent`."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"}


def current_trace_id() -> str:
    """Trace id of what is being handled, 32 hexadecimal digits; empty when there is none."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""


def _one_line(span: ReadableSpan) -> str:
    return str(span.to_json(indent=None)) + "\n"
