"""Reads Stripe's objects. Everything here raises ValueError for what is not in Stripe's documentation."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from mesh.money import INT64_MAX, Money, exponent_of
from services.payments.provider import FailureCode, Outcome, OutcomeState, ProviderFailure
from services.payments.providers.stripe.tables import (
    CANCELLATIONS,
    CHARGE_STATES,
    EXPONENTS,
    FAILURES,
    MESSAGES,
    REFUND_FAILURES,
    REFUND_STATES,
)


def to_wire(amount: Money) -> int:
    """An amount in the units that Stripe counts the currency in.

    Raises:
        ValueError: Stripe can't express it, such as a fraction of an ariary.
    """
    exponent = EXPONENTS.get(amount.currency, exponent_of(amount.currency))
    scaled = amount.to_decimal().scaleb(exponent)
    if scaled != scaled.to_integral_value():
        raise ValueError(f"{amount} has more decimals than Stripe takes")
    return int(scaled)


def from_wire(count: object, currency: object) -> Money:
    """An amount as Stripe writes it: a whole number and a code in lower case."""
    if not isinstance(count, int) or isinstance(count, bool) or not isinstance(currency, str):
        raise ValueError("an amount is no whole number")  # noqa: TRY004 - callers expect one kind of error
    if abs(count) > INT64_MAX:
        raise ValueError("an amount is beyond all money")
    code = currency.upper()
    exponent = EXPONENTS.get(code, exponent_of(code))
    return Money.from_major_string(f"{Decimal(count).scaleb(-exponent):f}", code)


def outcome_of_charge(charge: dict[str, Any]) -> Outcome:
    """How a payment intent stands."""
    reference, status = _text(charge, "id"), _text(charge, "status")
    state = CHARGE_STATES.get(status)
    if state is None:
        raise ValueError("the status of a payment intent is not documented")
    currency = charge.get("currency")
    if state is OutcomeState.SUCCEEDED:
        return Outcome(state, reference, from_wire(charge.get("amount_received"), currency))
    if state is OutcomeState.AUTHORIZED:
        return Outcome(state, reference, from_wire(charge.get("amount_capturable"), currency))
    amount = from_wire(charge.get("amount"), currency)
    if state is OutcomeState.CANCELED:
        reason = str(charge.get("cancellation_reason") or "")
        code = CANCELLATIONS.get(reason, FailureCode.UNKNOWN)
        if code is FailureCode.PAYER_TIMED_OUT:
            state = OutcomeState.EXPIRED
        return Outcome(state, reference, amount, failure_of(code, reason or "canceled"))
    last_error = charge.get("last_payment_error")
    if status == "requires_payment_method" and isinstance(last_error, dict):
        return Outcome(OutcomeState.FAILED, reference, amount, failure_of_error(last_error))
    return Outcome(state, reference, amount, redirect_url=_redirect_url(charge) if status == "requires_action" else "")


def outcome_of_refund(refund: dict[str, Any]) -> Outcome:
    """How a refund stands."""
    reference, status = _text(refund, "id"), _text(refund, "status")
    state = REFUND_STATES.get(status)
    if state is None:
        raise ValueError("the status of a refund is not documented")
    amount = from_wire(refund.get("amount"), refund.get("currency"))
    if state not in {OutcomeState.FAILED, OutcomeState.CANCELED}:
        return Outcome(state, reference, amount)
    reason = str(refund.get("failure_reason") or status)
    return Outcome(state, reference, amount, failure_of(REFUND_FAILURES.get(reason, FailureCode.UNKNOWN), reason))


def failure_of_error(error: dict[str, Any]) -> ProviderFailure:
    """Why a card was refused. Codes that are not in the table are UNKNOWN, never a guess."""
    code, decline_code = str(error.get("code") or ""), str(error.get("decline_code") or "")
    mapped = FAILURES.get(decline_code or code, FailureCode.UNKNOWN)
    return failure_of(mapped, "/".join(part for part in (code, decline_code) if part))


def failure_of(code: FailureCode, provider_code: str) -> ProviderFailure:
    """A failure with the text for the payer."""
    return ProviderFailure(code, MESSAGES[code], provider_code[:80])


def metadata_of(subject: dict[str, Any]) -> dict[str, Any]:
    """Our own words on an object of theirs."""
    found = subject.get("metadata")
    return found if isinstance(found, dict) else {}


def _redirect_url(charge: dict[str, Any]) -> str:
    action = charge.get("next_action")
    target = action.get("redirect_to_url") if isinstance(action, dict) else None
    url = target.get("url") if isinstance(target, dict) else None
    if not isinstance(url, str) or not url.startswith(("https://", "http://")):
        raise ValueError("the payer must act, but there is no address to go to")
    return url


def _text(subject: dict[str, Any], name: str) -> str:
    value = subject.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is missing")
    return value
