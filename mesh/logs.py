"""Structured logs: a static event name and key-values, one JSON object a line, masked, with the trace id."""

from __future__ import annotations

import logging
import sys
from types import TracebackType
from typing import Any

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, WrappedLogger

from mesh.redaction import MASK, mask_text
from mesh.settings import MeshSettings

_SECRET_KEYS = (
    *("password", "secret", "token", "authorization", "credential", "credentials", "api_key", "private_key"),
    *("msisdn", "phone", "phone_number", "email", "card", "card_number", "recipient"),
)


def configure_logs(settings: MeshSettings, process: str) -> None:
    """Sets up structlog and the standard library's logging, so that libraries' lines look and are masked alike."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace_id,
        structlog.processors.format_exc_info,
        mask,
    ]
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=False)
        if settings.log_format == "console"
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.log_level)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for noisy in ("httpx", "httpcore", "nats", "pgqueuer", "asyncio", "hpack", "uvicorn"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    # While the database is away the pool tells of each vain try, with all that led to it. Whoever needs it tells too.
    logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)
    structlog.contextvars.bind_contextvars(process=process)
    sys.excepthook = _log_uncaught


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """The last words of a process, masked as all others."""
    if issubclass(kind, Exception):
        logging.getLogger("kente").critical("process_failed", exc_info=(kind, error, traceback))
    else:
        sys.__excepthook__(kind, error, traceback)


def get_logger() -> Any:  # noqa: ANN401 - structlog's own loggers are typed so
    """A logger."""
    return structlog.get_logger()


def mask(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """Masks what must not be in a log, whoever wrote the line."""
    return {key: _masked(key, value) for key, value in event.items()}


def _masked(key: str, value: Any) -> Any:  # noqa: ANN401 - log values are of any type
    # What begins with "_" is structlog's own, such as the log record.
    if value is None or isinstance(value, bool) or key.startswith("_"):
        return value
    if key.lower().endswith(_SECRET_KEYS):
        return MASK if value else value
    if isinstance(value, dict):
        return {mask_text(str(name)): _masked(str(name), inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [_masked(key, inner) for inner in value]
    return value if isinstance(value, int | float) else mask_text(str(value))


def _add_trace_id(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
    return event
