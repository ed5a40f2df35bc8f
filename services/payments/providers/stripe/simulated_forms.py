"""How the simulated Stripe reads and checks forms: `a[b]=c` and `list[0]=x`."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl

_PART = re.compile(r"([^\[\]]+)|\[([^\[\]]*)\]")
_CURRENCY = re.compile(r"[a-z]{3}")
_AMOUNT_MAX = 99_999_999
_MINIMUMS = {"usd": 50, "eur": 50}
_THREE_DECIMALS = {"bhd", "jod", "kwd", "omr", "tnd"}
_METADATA_KEYS_MAX, _METADATA_KEY_MAX, _METADATA_VALUE_MAX = 50, 40, 500

_CHARGE_FIELDS = {
    "amount",
    "currency",
    "payment_method",
    "payment_method_types",
    "automatic_payment_methods",
    "confirm",
    "capture_method",
    "customer",
    "description",
    "metadata",
    "off_session",
    "return_url",
    "error_on_requires_action",
    "receipt_email",
    "statement_descriptor_suffix",
}


class FormError(Exception):
    """A request that Stripe refuses: its message, and the parameter and code of the error."""

    def __init__(
        self, message: str, param: str, code: str = "", *, status: int = 400, charge: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.param = param
        self.code = code
        self.status = status
        self.charge = charge


def read_form(content_type: str, body: bytes) -> dict[str, Any]:
    """Reads a form into nested dicts and lists.

    Raises:
        FormError: it is no form.
    """
    if body and not content_type.startswith("application/x-www-form-urlencoded"):
        raise FormError(f"Invalid request: the content type {content_type!r} is not supported.", "")
    form: dict[str, Any] = {}
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=bool(body))
    except ValueError:
        raise FormError("Invalid request: the form can't be read.", "") from None
    for name, value in pairs:
        parts = [found[0] or found[1] for found in _PART.findall(name)]
        place = form
        for part in parts[:-1]:
            place = place.setdefault(part, {})
        place[parts[-1]] = value
    return {name: _as_list(value) for name, value in form.items()}


def check_fields(form: dict[str, Any], known: set[str]) -> None:
    """Refuses what Stripe does not know, and metadata beyond its limits."""
    for name in form:
        if name not in known:
            raise FormError(f"Received unknown parameter: {name}", name, "parameter_unknown")
    metadata = form.get("metadata", {})
    if len(metadata) > _METADATA_KEYS_MAX:
        raise FormError("Metadata can have at most 50 keys.", "metadata")
    for name, value in metadata.items():
        if len(name) > _METADATA_KEY_MAX or len(value) > _METADATA_VALUE_MAX:
            raise FormError("Metadata keys have at most 40, values at most 500 characters.", "metadata")


def check_charge(form: dict[str, Any]) -> None:
    """Refuses a payment intent that Stripe would not create."""
    check_fields(form, _CHARGE_FIELDS)
    for name in ("amount", "currency"):
        if not form.get(name):
            raise FormError(f"Missing required param: {name}.", name, "parameter_missing")
    amount, currency = form["amount"], form["currency"]
    if not amount.isdigit():
        raise FormError(f"Invalid integer: {amount}", "amount", "parameter_invalid_integer")
    if not _CURRENCY.fullmatch(currency):
        raise FormError(f"Invalid currency: {currency}", "currency")
    if int(amount) < _MINIMUMS.get(currency, 1):
        raise FormError("Amount must convert to at least 50 cents.", "amount", "amount_too_small")
    if int(amount) > _AMOUNT_MAX:
        raise FormError("Amount must be no more than $999,999.99", "amount", "amount_too_large")
    if currency in _THREE_DECIMALS and int(amount) % 10:
        raise FormError("Amounts of three-decimal currencies must end in 0.", "amount")
    if form.get("capture_method", "automatic") not in {"automatic", "automatic_async", "manual"}:
        raise FormError("Invalid capture_method", "capture_method")
    if form.get("return_url") and form.get("confirm") != "true":
        raise FormError("return_url can only be sent with confirm=true.", "return_url")


def _as_list(value: object) -> object:
    """{"0": "x", "1": "y"} is how a list arrives."""
    if isinstance(value, dict) and value and all(str(key).isdigit() for key in value):
        return [value[key] for key in sorted(value, key=int)]
    return value
