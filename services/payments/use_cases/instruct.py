"""Talks to a provider: sends an instruction or asks how it stands. Never inside of a transaction.

Whatever goes wrong becomes a NoAnswer that says the one thing that matters: whether the provider may have the
instruction. When in doubt, it may.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import structlog

from mesh.context import current_call_or_none, handling, remaining_seconds
from mesh.errors import Problem, Reason
from mesh.provider.adapter import Adapter
from mesh.provider.errors import BadCredentials, NotSent, ProviderError, RateLimited
from services.payments.model import (
    Adjustment,
    AdjustmentKind,
    Attempt,
    CaptureMethod,
    Fault,
    MobileMoney,
    Payment,
    Refund,
)
from services.payments.provider import (
    CardCharge,
    ChargeOrder,
    CollectOrder,
    OperationKey,
    Outcome,
    OutcomeState,
    RefundOrder,
    WalletCollect,
)
from services.payments.provider import Refund as RefundCapability
from services.payments.use_cases.apply_outcome import Answer, NoAnswer
from services.payments.use_cases.desk import Desk

log = structlog.get_logger()

# Kept back of the caller's deadline, to write down what the provider said and to answer.
_AFTERWARDS_SECONDS = 0.5
_SHORTEST_SECONDS = 0.2
# A client that has not ended its call by itself this long after its deadline is stopped, in doubt.
_OVERRUN_SECONDS = 0.2

Instruction = Callable[[Adapter], Awaitable[Outcome]]


class _LacksCapabilityError(TypeError):
    """The adapter can't do it any more: routing chose it when it could."""


async def send_attempt(desk: Desk, payment: Payment, attempt: Attempt, *, alternatives: int = 0) -> Answer:
    """Asks a provider to take the money, and leaves time for a number of alternatives should it not be reached."""

    async def instruct(adapter: Adapter) -> Outcome:
        method = payment.method
        if isinstance(method, MobileMoney) and isinstance(adapter, WalletCollect):
            return await adapter.collect(
                CollectOrder(
                    attempt_key=attempt.attempt_key,
                    payment_id=payment.payment_id,
                    amount=payment.amount,
                    msisdn=method.msisdn,
                    description=payment.description,
                )
            )
        if not isinstance(method, MobileMoney) and isinstance(adapter, CardCharge):
            return await adapter.charge(
                ChargeOrder(
                    attempt_key=attempt.attempt_key,
                    payment_id=payment.payment_id,
                    amount=payment.amount,
                    card_token=method.token,
                    description=payment.description,
                    capture=payment.capture_method is CaptureMethod.AUTOMATIC,
                    return_url=method.return_url,
                    receipt_email=payment.payer.email,
                )
            )
        raise _LacksCapabilityError

    return await _send(desk, payment.tenant_id, attempt.call.connection_id, instruct, shares=alternatives + 1)


async def find_attempt(desk: Desk, payment: Payment, attempt: Attempt) -> Answer:
    """Asks a provider how an attempt stands."""
    key = OperationKey(attempt.attempt_key, attempt.call.reference, attempt.create_time)

    async def ask(adapter: Adapter) -> Outcome:
        if isinstance(payment.method, MobileMoney) and isinstance(adapter, WalletCollect):
            return await adapter.find_collect(key)
        if isinstance(adapter, CardCharge):
            return await adapter.find_charge(key)
        raise _LacksCapabilityError

    return await _ask(desk, payment.tenant_id, attempt.call.connection_id, ask)


async def send_refund(desk: Desk, payment: Payment, charge: Attempt, refund: Refund) -> Answer:
    """Asks a provider to give money back."""

    async def instruct(adapter: Adapter) -> Outcome:
        if not isinstance(adapter, RefundCapability):
            raise _LacksCapabilityError
        return await adapter.refund(
            RefundOrder(
                attempt_key=refund.attempt_key,
                refund_id=refund.refund_id,
                payment_id=payment.payment_id,
                amount=refund.amount,
                charge_reference=charge.call.reference,
                charge_attempt_key=charge.attempt_key,
                payment_amount=payment.money(payment.captured_minor),
                description=refund.description,
            )
        )

    return await _send(desk, refund.tenant_id, refund.call.connection_id, instruct)


async def find_refund(desk: Desk, refund: Refund) -> Answer:
    """Asks a provider how a refund stands."""
    key = OperationKey(refund.attempt_key, refund.call.reference, refund.create_time)

    async def ask(adapter: Adapter) -> Outcome:
        if not isinstance(adapter, RefundCapability):
            raise _LacksCapabilityError
        return await adapter.find_refund(key)

    return await _ask(desk, refund.tenant_id, refund.call.connection_id, ask)


async def send_adjustment(desk: Desk, charge: Attempt, adjustment: Adjustment) -> Answer:
    """Asks a provider to capture or to cancel a charge."""
    key = OperationKey(charge.attempt_key, charge.call.reference, charge.create_time)

    async def instruct(adapter: Adapter) -> Outcome:
        if not isinstance(adapter, CardCharge):
            raise _LacksCapabilityError
        if adjustment.kind is AdjustmentKind.CAPTURE:
            return await adapter.capture(key, adjustment.adjustment_key, adjustment.amount)
        return await adapter.cancel(key, adjustment.adjustment_key)

    return await _send(desk, adjustment.tenant_id, adjustment.call.connection_id, instruct)


async def _send(desk: Desk, tenant_id: str, connection_id: str, instruct: Instruction, *, shares: int = 1) -> Answer:
    adapter = await _open(desk, tenant_id, connection_id)
    if isinstance(adapter, NoAnswer):
        return adapter
    answer = await _call(desk, adapter, instruct, shares)
    if isinstance(answer, Outcome) and answer.state is OutcomeState.NOT_FOUND:
        # No answer to an instruction that we understand.
        return NoAnswer(Fault.NO_ANSWER, sent=True)
    return answer


async def _ask(desk: Desk, tenant_id: str, connection_id: str, ask: Instruction) -> Answer:
    adapter = await _open(desk, tenant_id, connection_id)
    answer = adapter if isinstance(adapter, NoAnswer) else await _call(desk, adapter, ask, 1)
    if isinstance(answer, NoAnswer):
        # A question that was not answered leaves the instruction where it was: in doubt.
        return NoAnswer(answer.fault, sent=True, retry_after_seconds=answer.retry_after_seconds)
    return answer


async def _open(desk: Desk, tenant_id: str, connection_id: str) -> Adapter | NoAnswer:
    try:
        return await desk.providers.adapter(tenant_id, connection_id)
    except Problem as problem:
        gone = problem.reason is Reason.RESOURCE_NOT_FOUND
        log.warning("connection_not_opened", connection_id=connection_id, reason=problem.reason_name)
        return NoAnswer(Fault.CONNECTION_GONE if gone else Fault.UNREACHABLE, sent=False)
    except BadCredentials:
        desk.providers.forget(tenant_id, connection_id)
        return NoAnswer(Fault.CREDENTIALS_REFUSED, sent=False)
    except LookupError:
        return NoAnswer(Fault.CONNECTION_GONE, sent=False)


async def _call(desk: Desk, adapter: Adapter, instruct: Instruction, shares: int) -> Answer:
    connection = adapter.connection
    try:
        with _deadline_of(desk.settings.send_timeout_seconds, shares) as budget_seconds:
            async with asyncio.timeout(budget_seconds + _OVERRUN_SECONDS):
                return await instruct(adapter)
    except RateLimited as limited:
        return NoAnswer(Fault.RATE_LIMITED, sent=False, retry_after_seconds=limited.retry_after_seconds)
    except BadCredentials:
        # They may have been replaced since we read them.
        desk.providers.forget(connection.tenant_id, connection.connection_id)
        return NoAnswer(Fault.CREDENTIALS_REFUSED, sent=False)
    except NotSent:
        return NoAnswer(Fault.UNREACHABLE, sent=False)
    except _LacksCapabilityError:
        return NoAnswer(Fault.CONNECTION_GONE, sent=False)
    except Exception as error:
        if not isinstance(error, ProviderError | TimeoutError):
            # A fault in an adapter is no proof that nothing was sent. The others are in the log of the client.
            log.exception("adapter_failed", connection_id=connection.connection_id)
        return NoAnswer(Fault.NO_ANSWER, sent=True)


@contextmanager
def _deadline_of(longest_seconds: float, shares: int) -> Iterator[float]:
    """Gives a call to a provider its part of the time that is left, as a deadline that its client keeps to.

    So it is the client that ends a call that takes too long, and it knows whether anything was written by then.
    """
    left_seconds = (remaining_seconds(longest_seconds) - _AFTERWARDS_SECONDS) / shares
    budget_seconds = max(min(longest_seconds, left_seconds), _SHORTEST_SECONDS)
    call = current_call_or_none()
    if call is None:
        yield budget_seconds
        return
    with handling(replace(call, deadline_monotonic=time.monotonic() + budget_seconds)):
        yield budget_seconds
