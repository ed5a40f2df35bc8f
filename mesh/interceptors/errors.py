"""Turns whatever was raised into google.rpc.Status with a registered reason. The only place that does."""

from __future__ import annotations

import grpc
import structlog
from grpc_status import rpc_status

from mesh.errors import Problem, Reason
from mesh.interceptors.chain import Answer, Exchange, Proceed
from mesh.outages import is_outage
from mesh.telemetry import current_trace_id

log = structlog.get_logger()

_RETRY_AFTER_SECONDS = 1.0
# A refusal of our own credentials by a service of ours is no fault of the caller.
_OUR_FAULTS = {Reason.CREDENTIALS_MISSING, Reason.CREDENTIALS_INVALID, Reason.SCOPE_MISSING}


async def errors_to_status(exchange: Exchange, proceed: Proceed) -> Answer:
    """The outermost answer: aborts the RPC with the status of the problem."""
    try:
        return await proceed(exchange)
    except Problem as problem:
        status = rpc_status.to_status(problem.to_status())
        await exchange.context.abort_with_status(status)
        raise


async def errors(exchange: Exchange, proceed: Proceed) -> Answer:
    """Makes every exception a Problem, so that the concerns outside of it see nothing else."""
    try:
        return await proceed(exchange)
    except Problem:
        raise
    except grpc.aio.AioRpcError as error:
        raise _problem_of_peer(error) from error
    except grpc.aio.AbortError:
        raise
    except Exception as error:
        if is_outage(error):
            log.warning("dependency_away", error=type(error).__name__, detail=str(error))
            raise Problem(
                Reason.SERVICE_UNAVAILABLE,
                "a service that this call needs is away; nothing was lost",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            ) from error
        log.exception("call_failed")
        raise Problem(Reason.INTERNAL, trace_id=current_trace_id()) from error


def _problem_of_peer(error: grpc.aio.AioRpcError) -> Problem:
    problem = Problem.from_rpc_error(error)
    if problem.reason not in _OUR_FAULTS:
        log.warning("peer_failed", reason=problem.reason_name, detail=error.details())
        return problem
    log.error("peer_refused_us", reason=problem.reason_name, detail=problem.detail)
    return Problem(Reason.INTERNAL, trace_id=current_trace_id())
