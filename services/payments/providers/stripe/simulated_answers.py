"""How the simulated Stripe answers: errors, and objects without what is only the simulator's."""

from __future__ import annotations

import secrets
from typing import Any

from starlette.responses import JSONResponse, Response

from services.payments.providers.stripe.simulated_forms import FormError


def error_answer(
    status: int, kind: str, message: str, *, code: str = "", param: str = "", charge: dict[str, Any] | None = None
) -> Response:
    """An error in Stripe's envelope."""
    error: dict[str, Any] = {"type": kind, "message": message}
    error |= {name: value for name, value in (("code", code), ("param", param)) if value}
    if charge is not None:
        error["payment_intent"] = shown(charge)
    return JSONResponse({"error": error}, status, headers={"Request-Id": new_id("req")})


def unexpected_state(charge: dict[str, Any], verb: str) -> FormError:
    """The refusal of a change that the payment intent's state does not allow."""
    message = f"This PaymentIntent could not be {verb} because it has a status of {charge['status']}."
    return FormError(message, "", "payment_intent_unexpected_state", charge=charge)


def shown(subject: dict[str, Any]) -> dict[str, Any]:
    """An object as the API shows it, without the simulator's own notes."""
    return {name: value for name, value in subject.items() if not name.startswith("_")}


def new_id(prefix: str) -> str:
    """A new id as Stripe makes them."""
    return f"{prefix}_{secrets.token_hex(12)}"
