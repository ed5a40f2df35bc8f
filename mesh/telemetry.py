"""Traces by OpenTelemetry: REST -> gRPC -> SQL, HTTP and NATS.

RPCs, events and calls of providers make their own spans: the libraries' would put whole addresses into them, and an
address of a provider can hold a phone number.
"""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.instrumentation.asyncpg import AsyncPGInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

from mesh.settings import MeshSettings

_FLUSH_MILLISECONDS = 200


def configure_telemetry(settings: MeshSettings, process: str) -> None:
    """Sets up tracing of this process: to a collector, to a file, or nowhere."""
    exporting = bool(settings.otlp_endpoint or settings.trace_file)
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
    if exporting:
        # Parameters of statements are personal data; the instrumentation leaves them out unless asked.
        AsyncPGInstrumentor().instrument()  # type: ignore[no-untyped-call]  # the library has no types


def current_trace_id() -> str:
    """Trace id of what is being handled, 32 hexadecimal digits; empty when there is none."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""


def _one_line(span: ReadableSpan) -> str:
    return str(span.to_json(indent=None)) + "\n"
