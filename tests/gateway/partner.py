"""What a partner sends, and how it reads a refusal."""

from __future__ import annotations

import httpx

from tests.gateway.far_end import API_KEY

KEY = "5b0d7c1e-7c1e-4b0d-9c1e-5b0d7c1e5b0d"
SIGNED = {"authorization": f"Bearer {API_KEY}"}
WRITE = {**SIGNED, "idempotency-key": KEY}
PAYMENT = {
    "amount": {"amountMinor": "1050", "currency": "GHS"},
    "method": {"mobileMoney": {"msisdn": "+233241234567"}},
    "description": "Ördér 1",
}


def violations(response: httpx.Response) -> dict[str, str]:
    """The violations of a problem by field."""
    return {entry["field"]: entry["description"] for entry in response.json().get("field_violations", [])}
