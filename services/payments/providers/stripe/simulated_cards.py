"""What the simulated Stripe's cards do, and how its objects look (fixtures and OpenAPI of stripe/openapi).

The pm_card_* tokens are Stripe's own (docs.stripe.com/testing), but for those that break the line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mesh.sandbox.faults import Fault


@dataclass(frozen=True, slots=True)
class Card:
    """A test payment method."""

    payment_method: str
    decline_code: str = ""
    authenticates: bool = False


_CARDS = {
    card.payment_method: card
    for card in (
        Card("pm_card_visa"),
        Card("pm_card_mastercard"),
        Card("pm_card_amex"),
        Card("pm_card_discover"),
        Card("pm_card_threeDSecureOptional"),
        Card("pm_card_threeDSecure2Required", authenticates=True),
        Card("pm_card_threeDSecureRequiredChargeDeclined", "generic_decline", authenticates=True),
        Card("pm_card_visa_chargeDeclined", "generic_decline"),
        Card("pm_card_visa_chargeDeclinedInsufficientFunds", "insufficient_funds"),
        Card("pm_card_visa_chargeDeclinedLostCard", "lost_card"),
        Card("pm_card_visa_chargeDeclinedStolenCard", "stolen_card"),
    )
}
_FAULT_PREFIX = "pm_card_fault_"
_FAULTS = {_FAULT_PREFIX + fault.value: fault for fault in Fault if fault not in {Fault.DECLINE, Fault.UNKNOWN_STATUS}}
_STORM_LENGTH = 2

_MESSAGES = {
    "insufficient_funds": "Your card has insufficient funds.",
    "authentication_required": "Your card was declined. This transaction requires authentication.",
}


def find(token: str) -> Card | None:
    """The card of a token."""
    return Card(token) if token in _FAULTS else _CARDS.get(token)


def fault_of(token: str) -> tuple[Fault | None, int]:
    """What breaks the line for a card, and how often for one Idempotency-Key."""
    fault = _FAULTS.get(token)
    return fault, _STORM_LENGTH if fault is Fault.STORM_429 else 1


def decline_error(code: str, decline_code: str) -> dict[str, Any]:
    """The error object of a declined card."""
    return {
        "type": "card_error",
        "code": code,
        "decline_code": decline_code,
        "message": _MESSAGES.get(decline_code, "Your card was declined."),
        "doc_url": f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}",
    }


def new_charge(form: dict[str, Any], charge_id: str, created: int) -> dict[str, Any]:
    """A payment intent before anything happened. Names with an underscore first are the simulator's own."""
    return {
        "id": charge_id,
        "object": "payment_intent",
        "amount": int(form["amount"]),
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": 0,
        "application": None,
        "application_fee_amount": None,
        "automatic_payment_methods": None,
        "canceled_at": None,
        "cancellation_reason": None,
        "capture_method": form.get("capture_method", "automatic"),
        "client_secret": f"{charge_id}_secret_simulated",
        "confirmation_method": "automatic",
        "created": created,
        "currency": form["currency"],
        "customer": None,
        "description": form.get("description"),
        "invoice": None,
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "metadata": form.get("metadata", {}),
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_options": {},
        "payment_method_types": form.get("payment_method_types", ["card"]),
        "processing": None,
        "receipt_email": form.get("receipt_email"),
        "review": None,
        "setup_future_usage": None,
        "shipping": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": form.get("statement_descriptor_suffix"),
        "status": "requires_payment_method",
        "transfer_data": None,
        "transfer_group": None,
        "_refunded": 0,
    }


def new_refund(
    form: dict[str, Any], charge: dict[str, Any], amount: int, refund_id: str, created: int
) -> dict[str, Any]:
    """A refund that went through."""
    return {
        "id": refund_id,
        "object": "refund",
        "amount": amount,
        "balance_transaction": None,
        "charge": charge["latest_charge"],
        "created": created,
        "currency": charge["currency"],
        "metadata": form.get("metadata", {}),
        "payment_intent": charge["id"],
        "reason": form.get("reason"),
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": "succeeded",
        "transfer_reversal": None,
    }


def event_of(event_type: str, subject: dict[str, Any], event_id: str, created: int) -> dict[str, Any]:
    """An event about an object as it is now."""
    return {
        "id": event_id,
        "object": "event",
        "api_version": "2023-08-16",
        "created": created,
        "data": {"object": subject},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": event_type,
    }


def _describe() -> dict[str, str]:
    described = {
        token: ("authentication, then " if card.authenticates else "") + (card.decline_code or "succeeds")
        for token, card in _CARDS.items()
    }
    return described | {token: f"{fault.value}, then succeeds" for token, fault in _FAULTS.items()}


DESCRIPTIONS = _describe()
