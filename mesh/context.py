"""What is known about the call being handled: who asks, for which tenant, and how long it may take."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from mesh.errors import Problem, Reason
from mesh.tokens import Principal


@dataclass(slots=True)
class Call:
    """One call.

    Attributes:
        method: full gRPC method, "/kente.payments.v1.PaymentService/CreatePayment"; a job's or consumer's name
            outside of a call.
        tenant_id: whose data it may touch; empty for calls without a tenant.
        request_id: the caller's key of a write, or empty.
        deadline_monotonic: time.monotonic() at which the caller gives up; infinite for a watcher who stays.
    """

    method: str
    tenant_id: str = ""
    principal: Principal | None = None
    request_id: str = ""
    deadline_monotonic: float = field(default_factory=lambda: time.monotonic() + 15.0)


_current: ContextVar[Call | None] = ContextVar("kente_call", default=None)


def current_call() -> Call:
    """The call being handled.

    Raises:
        LookupError: nothing is being handled: a fault of ours.
    """
    call = _current.get()
    if call is None:
        raise LookupError("no call is being handled here")
    return call


def current_call_or_none() -> Call | None:
    """The call being handled, if any."""
    return _current.get()


def current_tenant_id() -> str:
    """The tenant of the call.

    Raises:
        Problem: SCOPE_MISSING, the caller acts for no tenant.
    """
    tenant_id = current_call().tenant_id
    if not tenant_id:
        raise Problem(Reason.SCOPE_MISSING, "this call needs a tenant; the credentials name none")
    return tenant_id


def remaining_seconds(default: float = 15.0) -> float:
    """How long the caller still waits; `default` outside of a call, and for a watcher who stays. Never below zero."""
    call = _current.get()
    if call is None or math.isinf(call.deadline_monotonic):
        return default
    return max(0.0, call.deadline_monotonic - time.monotonic())


def make_current(call: Call) -> None:
    """Makes a call the current one, until the current task ends."""
    _current.set(call)


@contextmanager
def handling(call: Call) -> Iterator[Call]:
    """Makes a call the current one within a block."""
    token = _current.set(call)
    try:
        yield call
    finally:
        _current.reset(token)


@contextmanager
def call_tenant(tenant_id: str, *, method: str = "internal", timeout_seconds: float = 15.0) -> Iterator[Call]:
    """Acts for a tenant outside of a call: in a job, a consumer, a stream."""
    call = Call(method=method, tenant_id=tenant_id, deadline_monotonic=time.monotonic() + timeout_seconds)
    with handling(call):
        yield call
