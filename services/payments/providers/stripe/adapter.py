"""Stripe: card charges with PaymentIntents, refunds, balance, signed webhooks.

Source: Stripe's OpenAPI for version 2023-08-16, docs.stripe.com (declines, webhooks, currencies), checked 2026-11.

What surprised us:
- Requests are forms, answers are JSON.
- The result of a key is kept for 24 hours and replayed, a decline or a 500 included: sending the same key again tells
  what became of the first, but does not try anew. Another try needs another key.
- A PaymentIntent in requires_payment_method is new, or failed: last_payment_error tells.
- There is no question "what became of key K": a charge whose id we never learned is found by its metadata in the list.
  Search would do too, but it lags behind by up to a minute, and "not found" must be true.
- Events come in any order.

UNVERIFIED: the spelling of Idempotent-Replayed (not needed), that three-decimal amounts must end in 0 (left to Stripe
to refuse), 100 requests a second.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar

import httpx

from mesh.money import Money
from mesh.provider.adapter import Adapter, AmountFormat
from mesh.provider.auth import BearerAuth
from mesh.provider.connection import ClientPolicy, Connection, Environment, RateQuota
from mesh.provider.errors import WebhookUnverified
from mesh.provider.http import Operation, ProviderClient, ProviderResponse
from mesh.provider.signatures import check_hmac, check_timestamp, parse_pairs
from mesh.provider.webhook import IncomingWebhook
from services.payments.provider import (
    Balance,
    CardCharge,
    ChargeOrder,
    FailureCode,
    OperationKey,
    Outcome,
    OutcomeState,
    Refund,
    RefundOrder,
    WebhookReport,
    Webhooks,
)
from services.payments.providers.stripe.reading import (
    failure_of,
    failure_of_error,
    from_wire,
    metadata_of,
    outcome_of_charge,
    outcome_of_refund,
    to_wire,
)
from services.payments.providers.stripe.tables import CURRENCIES

Reader = Callable[[dict[str, Any]], Outcome]

CHARGE = Operation("charge", writes=True, resend_safe=True)
CAPTURE = Operation("capture", writes=True, resend_safe=True)
CANCEL = Operation("cancel", writes=True, resend_safe=True)
REFUND = Operation("refund", writes=True, resend_safe=True)
FIND_CHARGE = Operation("find_charge", writes=False)
LIST_CHARGES = Operation("list_charges", writes=False)
FIND_REFUND = Operation("find_refund", writes=False)
LIST_REFUNDS = Operation("list_refunds", writes=False)
BALANCE = Operation("balance", writes=False)

API_VERSION = "2023-08-16"

_PAGE_SIZE = 100
# A list this long without the charge in it is a doubt, not a "no".
_PAGES_MAX = 20
_CLOCK_SKEW = timedelta(minutes=5)
_DESCRIPTION_MAX = 1000
# Our own word in provider_code for an amount that Stripe has no way to write.
_NOT_EXPRESSIBLE = "amount_not_expressible"


@dataclass(frozen=True, slots=True)
class StripeCredentials:
    """What the Stripe dashboard gives."""

    secret_key: str = field(
        repr=False, metadata={"description": "Secret or restricted key (sk_... or rk_...), dashboard: API keys."}
    )
    webhook_secret: str = field(
        repr=False, metadata={"description": "Signing secret (whsec_...) of the webhook endpoint, dashboard: Webhooks."}
    )


class Stripe(Adapter, CardCharge, Refund, Balance, Webhooks):
    """Stripe.

    Settings of a connection:
        account: id (acct_...) of the connected account to act for; empty for the key's own.
    """

    slug = "stripe"
    display_name = "Stripe"
    countries: ClassVar[frozenset[str]] = frozenset()
    currencies = CURRENCIES
    base_urls: ClassVar = {
        Environment.SANDBOX: "https://api.stripe.com",
        Environment.PRODUCTION: "https://api.stripe.com",
    }
    amount_format = AmountFormat.MINOR_INTEGER
    rate_quota = RateQuota(requests=100, per_seconds=1)
    client_policy = ClientPolicy(resend_header="stripe-should-retry")
    Credentials = StripeCredentials
    sandbox_credentials: ClassVar = {
        "secret_key": "sk_test_kente_sandbox",
        "webhook_secret": "whsec_kente_sandbox",
    }

    def __init__(self, connection: Connection, http: ProviderClient) -> None:
        super().__init__(connection, http)
        self._auth = BearerAuth(self.credentials.secret_key)

    async def charge(self, order: ChargeOrder) -> Outcome:
        """POST payment_intents with confirm=true. Where the payer can't be redirected, authentication is a decline."""
        wire_amount = _wire_amount(order.amount)
        if wire_amount is None:
            return _rejected(_NOT_EXPRESSIBLE)
        form = {
            "amount": wire_amount,
            "currency": order.amount.currency.lower(),
            "payment_method": order.card_token,
            "payment_method_types[0]": "card",
            "confirm": "true",
            "capture_method": "automatic" if order.capture else "manual",
            "description": order.description[:_DESCRIPTION_MAX],
            "metadata[payment_id]": order.payment_id,
            "metadata[attempt_key]": order.attempt_key,
            **({"return_url": order.return_url} if order.return_url else {"error_on_requires_action": "true"}),
            **({"receipt_email": order.receipt_email} if order.receipt_email else {}),
        }
        response = await self._post(CHARGE, "/v1/payment_intents", form, order.attempt_key)
        return _read(response, outcome_of_charge) if response.is_success else _refused(response)

    async def find_charge(self, key: OperationKey) -> Outcome:
        """GET the payment intent, or look for our key in the list.

        Raises:
            UnexpectedResponse: the list is too long to prove that the charge is not in it.
        """
        if key.reference:
            return _read(await self._get(FIND_CHARGE, f"/v1/payment_intents/{key.reference}"), outcome_of_charge)
        return await self._find_in_list(LIST_CHARGES, "/v1/payment_intents", key, outcome_of_charge)

    async def capture(self, key: OperationKey, capture_key: str, amount: Money) -> Outcome:
        """POST capture."""
        wire_amount = _wire_amount(amount)
        if wire_amount is None:
            return _rejected(_NOT_EXPRESSIBLE)
        return await self._change(CAPTURE, key, capture_key, {"amount_to_capture": wire_amount})

    async def cancel(self, key: OperationKey, cancel_key: str) -> Outcome:
        """POST cancel."""
        return await self._change(CANCEL, key, cancel_key, {"cancellation_reason": "requested_by_customer"})

    async def refund(self, order: RefundOrder) -> Outcome:
        """POST refunds for the payment intent."""
        wire_amount = _wire_amount(order.amount)
        if wire_amount is None:
            return _rejected(_NOT_EXPRESSIBLE)
        charge_reference = order.charge_reference
        if not charge_reference:
            charge_reference = (await self.find_charge(OperationKey(order.charge_attempt_key))).reference
        form = {
            "payment_intent": charge_reference,
            "amount": wire_amount,
            "metadata[refund_id]": order.refund_id,
            "metadata[payment_id]": order.payment_id,
            "metadata[attempt_key]": order.attempt_key,
        }
        response = await self._post(REFUND, "/v1/refunds", form, order.attempt_key)
        return _read(response, outcome_of_refund) if response.is_success else _refused(response)

    async def find_refund(self, key: OperationKey) -> Outcome:
        """GET the refund, or look for our key in the list.

        Raises:
            UnexpectedResponse: the list is too long to prove that the refund is not in it.
        """
        if key.reference:
            return _read(await self._get(FIND_REFUND, f"/v1/refunds/{key.reference}"), outcome_of_refund)
        return await self._find_in_list(LIST_REFUNDS, "/v1/refunds", key, outcome_of_refund)

    async def balances(self) -> Sequence[Money]:
        """GET balance: what is available, by currency."""
        response = await self._get(BALANCE, "/v1/balance")
        if not response.is_success:
            raise response.refusal()
        available = response.json_object().get("available")
        try:
            return [from_wire(entry["amount"], entry["currency"]) for entry in available or ()]
        except (ValueError, KeyError, TypeError):
            raise response.unexpected("holds balances that can't be read") from None

    def read_webhook(self, webhook: IncomingWebhook) -> Sequence[WebhookReport]:
        """Checks Stripe-Signature over the raw body, and reads events about charges and refunds of ours.

        Raises:
            WebhookUnverified: the signature is missing, wrong or older than 300 s, or the body is no event.
        """
        pairs = parse_pairs(webhook.headers.get("stripe-signature", ""))
        signed_time = pairs.get("t", [""])[0]
        check_timestamp(signed_time, webhook.receive_time)
        message = signed_time.encode() + b"." + webhook.body
        check_hmac([self.credentials.webhook_secret.encode()], message, pairs.get("v1", []))
        try:
            event = json.loads(webhook.body)
            event_id, data = str(event["id"]), event.get("data")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise WebhookUnverified("stripe: the callback is no event") from None
        subject = data.get("object") if isinstance(data, dict) else None
        if not isinstance(subject, dict):
            return []
        operation, reader = _WEBHOOK_READERS.get(str(subject.get("object")), ("", outcome_of_charge))
        attempt_key = str(metadata_of(subject).get("attempt_key") or "")
        if not operation or not attempt_key:
            return []
        try:
            outcome = reader(subject)
        except ValueError:
            # Signed but not understood: it proves nothing, so the core asks.
            outcome = None
        return [WebhookReport(event_id, operation, attempt_key, str(subject.get("id") or ""), outcome)]

    async def _change(self, operation: Operation, key: OperationKey, change_key: str, form: dict[str, str]) -> Outcome:
        """Captures or cancels. A charge that is already beyond that answers with how it stands."""
        reference = key.reference
        if not reference:
            found = await self.find_charge(key)
            if found.state is OutcomeState.NOT_FOUND:
                return found
            reference = found.reference
        response = await self._post(operation, f"/v1/payment_intents/{reference}/{operation.name}", form, change_key)
        return _read(response, outcome_of_charge) if response.is_success else _refused(response)

    async def _find_in_list(self, operation: Operation, path: str, key: OperationKey, reader: Reader) -> Outcome:
        params = {"limit": str(_PAGE_SIZE)}
        if key.not_before is not None:
            params["created[gte]"] = str(int((key.not_before - _CLOCK_SKEW).timestamp()))
        for _ in range(_PAGES_MAX):
            response = await self._get(operation, path, params)
            page = response.json_object() if response.is_success else {}
            items = page.get("data")
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise response.refusal("is no list")
            for item in items:
                if metadata_of(item).get("attempt_key") == key.attempt_key:
                    return _read_item(response, item, reader)
            if page.get("has_more") is False:
                return Outcome(OutcomeState.NOT_FOUND)
            if not items or page.get("has_more") is not True:
                break
            params["starting_after"] = str(items[-1].get("id"))
        raise response.unexpected("goes on for too long to prove anything")

    async def _get(self, operation: Operation, path: str, params: dict[str, str] | None = None) -> ProviderResponse:
        url = f"{self.base_url}{path}"
        return await self.http.send(operation, "GET", url, auth=self._auth, headers=self._headers(), params=params)

    async def _post(self, operation: Operation, path: str, form: dict[str, str], key: str) -> ProviderResponse:
        headers = {**self._headers(), "Idempotency-Key": key}
        return await self.http.send(
            operation, "POST", f"{self.base_url}{path}", auth=self._auth, headers=headers, form=form
        )

    def _headers(self) -> dict[str, str]:
        account = self.connection.settings.get("account", "")
        return {"Stripe-Version": API_VERSION, **({"Stripe-Account": account} if account else {})}


_WEBHOOK_READERS: dict[str, tuple[str, Reader]] = {
    "payment_intent": ("charge", outcome_of_charge),
    "refund": ("refund", outcome_of_refund),
}


def _read(response: ProviderResponse, reader: Reader) -> Outcome:
    """The outcome that a successful answer holds.

    Raises:
        UnexpectedResponse: it is not in Stripe's documentation. A reference of ours that Stripe does not know is
            one of those: it once gave us that reference, so "never arrived" would be wrong.
    """
    if not response.is_success:
        raise response.refusal()
    return _read_item(response, response.json_object(), reader)


def _read_item(response: ProviderResponse, item: dict[str, Any], reader: Reader) -> Outcome:
    try:
        return reader(item)
    except ValueError as error:
        raise response.unexpected(f"can't be read: {error}") from None


def _refused(response: ProviderResponse) -> Outcome:
    """The outcome of a request that Stripe refused.

    Raises:
        BadCredentials: 401 or 403.
        UnexpectedResponse: the refusal leaves open what became of the request: a key used for something else, a
            request in flight, a fault of theirs.
    """
    error = (response.json_object_or_none() or {}).get("error")
    if not isinstance(error, dict):
        raise response.refusal()
    kind, charge = error.get("type"), error.get("payment_intent")
    if response.status_code == httpx.codes.PAYMENT_REQUIRED and kind == "card_error":
        reference = str(charge.get("id") or "") if isinstance(charge, dict) else ""
        return Outcome(OutcomeState.FAILED, reference, failure=failure_of_error(error))
    if response.status_code not in {400, 404} or kind != "invalid_request_error":
        raise response.refusal()
    if error.get("code") == "payment_intent_unexpected_state" and isinstance(charge, dict):
        return _read_item(response, charge, outcome_of_charge)
    return _rejected(str(error.get("code") or kind))


def _wire_amount(amount: Money) -> str | None:
    try:
        return str(to_wire(amount))
    except ValueError:
        return None


def _rejected(provider_code: str) -> Outcome:
    return Outcome(OutcomeState.FAILED, failure=failure_of(FailureCode.REQUEST_REJECTED, provider_code))
