"""Stripe's side of the wire in test mode, from its OpenAPI (2023-08-16) and docs.stripe.com (testing, webhooks).

Where it differs from Stripe:
- A webhook endpoint is made with POST /v1/webhook_endpoints as at Stripe, but its secret is always WEBHOOK_SECRET, so
  that a connection made beforehand fits. Without an endpoint no events are sent.
- The page that a payer is sent to is /authenticate/<id>: opening it authenticates, with ?outcome=failed it does not.
- Tokens pm_card_fault_<fault> break the line; see magic_values.
- Retry times of webhooks are INFERRED: Stripe says "up to three days with exponential back-off".
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from mesh.sandbox.faults import Fault
from mesh.sandbox.simulator import Callback, ProviderSimulator
from services.payments.providers.stripe import simulated_cards as cards
from services.payments.providers.stripe.simulated_answers import error_answer, new_id, shown, unexpected_state
from services.payments.providers.stripe.simulated_forms import FormError, check_charge, check_fields, read_form

SECRET_KEY = "sk_test_kente_sandbox"  # noqa: S105 - opens nothing but this simulator
WEBHOOK_SECRET = "whsec_kente_sandbox"  # noqa: S105 - opens nothing but this simulator

_RETRY_DELAYS_SECONDS = (5.0, 30.0, 300.0, 3600.0, 7200.0, 21600.0, 43200.0)
_KEY_LENGTH_MAX = 255
_PAGE_SIZE, _PAGE_SIZE_MAX = 10, 100
_REFUND_REASONS = {"duplicate", "fraudulent", "requested_by_customer"}

Answer = tuple[int, dict[str, Any]]


class Simulator(ProviderSimulator):
    """PaymentIntents, refunds, balance and events."""

    magic_values = cards.DESCRIPTIONS

    def routes(self) -> Sequence[BaseRoute]:
        """The paths of the API, and the page of the payer's bank."""
        charges, refunds = "/v1/payment_intents", "/v1/refunds"
        return [
            Route(charges, self.create_charge, methods=["POST"], name="charge"),
            Route(charges, self.list_charges, methods=["GET"], name="list_charges"),
            Route(charges + "/{id}", self.get_charge, methods=["GET"], name="find_charge"),
            Route(charges + "/{id}/capture", self.capture, methods=["POST"], name="capture"),
            Route(charges + "/{id}/cancel", self.cancel, methods=["POST"], name="cancel"),
            Route(refunds, self.create_refund, methods=["POST"], name="refund"),
            Route(refunds, self.list_refunds, methods=["GET"], name="list_refunds"),
            Route(refunds + "/{id}", self.get_refund, methods=["GET"], name="find_refund"),
            Route("/v1/balance", self.get_balance, methods=["GET"], name="balance"),
            Route("/v1/webhook_endpoints", self.create_endpoint, methods=["POST"], name="create_endpoint"),
            Route("/authenticate/{id}", self.authenticate, methods=["GET"], name="authenticate"),
        ]

    # Charges.

    async def create_charge(self, request: Request) -> Response:
        """POST /v1/payment_intents."""
        base_url = str(request.url).partition("/v1/")[0]
        return await self._write(request, lambda form: self._charge(form, base_url, self.fault_of(request)))

    async def list_charges(self, request: Request) -> Response:
        """GET /v1/payment_intents."""
        return self._list(request, "payment_intent", "/v1/payment_intents")

    async def get_charge(self, request: Request) -> Response:
        """GET /v1/payment_intents/{id}."""
        return self._get(request, "payment_intent")

    async def capture(self, request: Request) -> Response:
        """POST /v1/payment_intents/{id}/capture."""
        return await self._write(request, lambda form: self._capture(request.path_params["id"], form))

    async def cancel(self, request: Request) -> Response:
        """POST /v1/payment_intents/{id}/cancel."""
        return await self._write(request, lambda form: self._cancel(request.path_params["id"], form))

    def _charge(self, form: dict[str, Any], base_url: str, fault: Fault | None) -> Answer:
        check_charge(form)
        card = cards.find(form.get("payment_method", ""))
        if form.get("confirm") == "true" and card is None:
            token = form.get("payment_method", "")
            raise FormError(f"No such PaymentMethod: '{token}'", "payment_method", "resource_missing")
        charge = cards.new_charge(form, new_id("pi"), int(time.time()))
        charge["_fault"] = fault
        self._save(charge)
        events = ["payment_intent.created"]
        if card is None or form.get("confirm") != "true":
            return self._answer_with(charge, events)
        charge["payment_method"] = card.payment_method
        if card.authenticates and form.get("error_on_requires_action") == "true":
            return self._decline(charge, "authentication_required", "authentication_required", events)
        if card.authenticates:
            charge["status"] = "requires_action"
            url = f"{base_url}/authenticate/{charge['id']}"
            charge["next_action"] = {
                "type": "redirect_to_url",
                "redirect_to_url": {"url": url, "return_url": form.get("return_url")},
            }
            return self._answer_with(charge, [*events, "payment_intent.requires_action"])
        if fault is Fault.DECLINE:
            return self._decline(charge, "card_declined", "do_not_honor", events)
        if card.decline_code:
            return self._decline(charge, "card_declined", card.decline_code, events)
        return self._answer_with(charge, [*events, self._approve(charge)])

    def _approve(self, charge: dict[str, Any]) -> str:
        """Takes or reserves the money; the type of the event about it."""
        charge |= {"next_action": None, "last_payment_error": None, "latest_charge": new_id("ch")}
        if charge["capture_method"] == "manual":
            charge |= {"status": "requires_capture", "amount_capturable": charge["amount"]}
            return "payment_intent.amount_capturable_updated"
        charge |= {"status": "succeeded", "amount_received": charge["amount"]}
        self.shelf.move("charge", charge["id"], str(charge["amount"]), charge["currency"])
        return "payment_intent.succeeded"

    def _decline(self, charge: dict[str, Any], code: str, decline_code: str, events: list[str]) -> Answer:
        error = cards.decline_error(code, decline_code)
        charge |= {"status": "requires_payment_method", "payment_method": None, "last_payment_error": dict(error)}
        charge |= {"next_action": None, "latest_charge": new_id("ch")}
        self._answer_with(charge, [*events, "payment_intent.payment_failed"])
        return 402, {"error": error | {"charge": charge["latest_charge"], "payment_intent": shown(charge)}}

    def _capture(self, charge_id: str, form: dict[str, Any]) -> Answer:
        check_fields(form, {"amount_to_capture"})
        charge = self._load("payment_intent", charge_id)
        if charge["status"] != "requires_capture":
            raise unexpected_state(charge, "captured")
        amount = int(form.get("amount_to_capture", charge["amount_capturable"]))
        if not 0 < amount <= charge["amount_capturable"]:
            raise FormError(
                "The amount to capture is too large or not positive.", "amount_to_capture", "amount_too_large"
            )
        charge |= {"status": "succeeded", "amount_received": amount, "amount_capturable": 0}
        self.shelf.move("charge", charge_id, str(amount), charge["currency"])
        return self._answer_with(charge, ["payment_intent.succeeded"])

    def _cancel(self, charge_id: str, form: dict[str, Any]) -> Answer:
        check_fields(form, {"cancellation_reason"})
        charge = self._load("payment_intent", charge_id)
        if charge["status"] in {"succeeded", "canceled", "processing"}:
            raise unexpected_state(charge, "canceled")
        reason = form.get("cancellation_reason")
        charge |= {"status": "canceled", "amount_capturable": 0, "next_action": None}
        charge |= {"canceled_at": int(time.time()), "cancellation_reason": reason}
        return self._answer_with(charge, ["payment_intent.canceled"])

    async def authenticate(self, request: Request) -> Response:
        """The bank's page: opening it authenticates the payer."""
        failed = request.query_params.get("outcome") == "failed"
        with self.shelf.transaction():
            charge = self.shelf.get("payment_intent", request.path_params["id"])
            if charge is None or charge["status"] != "requires_action":
                return HTMLResponse("<h1>There is nothing to authenticate.</h1>", 404)
            return_url = charge["next_action"]["redirect_to_url"]["return_url"]
            card = cards.find(charge["payment_method"])
            if failed:
                error = {"type": "card_error", "code": "payment_intent_authentication_failure"}
                error["message"] = "The provided PaymentMethod has failed authentication."
                charge |= {"status": "requires_payment_method", "next_action": None, "last_payment_error": error}
                self._answer_with(charge, ["payment_intent.payment_failed"])
            elif card is not None and card.decline_code:
                self._decline(charge, "card_declined", card.decline_code, [])
            else:
                self._answer_with(charge, [self._approve(charge)])
        query = {"payment_intent": charge["id"], "redirect_status": "failed" if failed else "succeeded"}
        target = f"{return_url}{'&' if '?' in return_url else '?'}{urlencode(query)}"
        page = "<h1>Authentication {}</h1><p><a href='{}'>Back to the shop</a></p>"
        return HTMLResponse(page.format("failed" if failed else "done", target.replace("'", "%27")))

    # Refunds.

    async def create_refund(self, request: Request) -> Response:
        """POST /v1/refunds."""
        return await self._write(request, lambda form: self._refund(form, self.fault_of(request)))

    async def list_refunds(self, request: Request) -> Response:
        """GET /v1/refunds."""
        return self._list(request, "refund", "/v1/refunds")

    async def get_refund(self, request: Request) -> Response:
        """GET /v1/refunds/{id}."""
        return self._get(request, "refund")

    def _refund(self, form: dict[str, Any], fault: Fault | None) -> Answer:
        check_fields(form, {"payment_intent", "charge", "amount", "reason", "metadata", "reverse_transfer"})
        if form.get("reason", "duplicate") not in _REFUND_REASONS:
            raise FormError("Invalid reason", "reason")
        charge = self._load("payment_intent", form.get("payment_intent", ""))
        if charge["status"] != "succeeded":
            raise FormError(f"This PaymentIntent ({charge['id']}) does not have a successful charge to refund.", "")
        left = charge["amount_received"] - charge["_refunded"]
        if left == 0:
            raise FormError("The charge has already been refunded.", "", "charge_already_refunded")
        amount = int(form.get("amount", left))
        if not 0 < amount <= left:
            raise FormError("Refund amount is greater than the unrefunded amount on the charge.", "amount")
        refund = cards.new_refund(form, charge, amount, new_id("re"), int(time.time()))
        refund["_fault"] = fault
        if fault is Fault.DECLINE:
            refund |= {"status": "failed", "failure_reason": "expired_or_canceled_card"}
        else:
            charge["_refunded"] += amount
            self._save(charge)
            self.shelf.move("refund", refund["id"], str(amount), refund["currency"])
        return self._answer_with(refund, ["refund.created", "refund.updated"])

    # What all share.

    async def get_balance(self, request: Request) -> Response:
        """GET /v1/balance."""
        refusal = _check_key(request)
        if refusal is not None:
            return refusal
        totals = {"usd": 0}
        for moved in self.shelf.movements():
            sign = 1 if moved["operation"] == "charge" else -1
            totals[moved["currency"]] = totals.get(moved["currency"], 0) + sign * int(moved["amount"])
        available = [
            {"amount": total, "currency": code, "source_types": {"card": total}} for code, total in totals.items()
        ]
        pending = [{"amount": 0, "currency": code, "source_types": {"card": 0}} for code in totals]
        return JSONResponse({"object": "balance", "available": available, "pending": pending, "livemode": False})

    async def create_endpoint(self, request: Request) -> Response:
        """POST /v1/webhook_endpoints."""
        return await self._write(request, self._endpoint)

    def _endpoint(self, form: dict[str, Any]) -> Answer:
        check_fields(form, {"url", "enabled_events", "api_version", "description", "connect", "metadata"})
        if not form.get("url") or not form.get("enabled_events"):
            raise FormError("Missing required param: url or enabled_events.", "url", "parameter_missing")
        endpoint = {
            "id": "we_" + hashlib.sha256(form["url"].encode()).hexdigest()[:24],
            "object": "webhook_endpoint",
            "url": form["url"],
            "enabled_events": form["enabled_events"],
            "status": "enabled",
            "livemode": False,
            "created": int(time.time()),
            "metadata": form.get("metadata", {}),
            "api_version": None,
            "application": None,
            "description": form.get("description"),
        }
        self.shelf.put("webhook_endpoint", endpoint["id"], endpoint)
        return 200, endpoint | {"secret": WEBHOOK_SECRET}

    def register_callback(self, url: str) -> None:
        """As an endpoint made in the dashboard."""
        self._endpoint({"url": url, "enabled_events": ["*"]})

    async def _write(self, request: Request, act: Callable[[dict[str, Any]], Answer]) -> Response:
        """Checks the key, replays a known Idempotency-Key, else acts and keeps the result with it."""
        refusal = _check_key(request)
        if refusal is not None:
            return refusal
        key = request.headers.get("idempotency-key", "")
        if len(key) > _KEY_LENGTH_MAX:
            return error_answer(400, "invalid_request_error", "Idempotency keys are at most 255 characters.")
        body = await request.body()
        fingerprint = hashlib.sha256(f"{request.method} {request.url.path}\n".encode() + body).hexdigest()
        try:
            with self.shelf.transaction():
                known = self.shelf.get("idempotency", key) if key else None
                if known is not None and known["fingerprint"] != fingerprint:
                    message = "Keys for idempotent requests can only be used with the same parameters."
                    return error_answer(400, "idempotency_error", message)
                if known is not None:
                    return self._finished(request, known["status"], known["body"], {"Idempotent-Replayed": "true"})
                status, answer = act(read_form(request.headers.get("content-type", ""), body))
                if key:
                    kept = {"fingerprint": fingerprint, "status": status, "body": answer}
                    self.shelf.put("idempotency", key, kept)
        except FormError as error:
            return error_answer(
                error.status,
                "invalid_request_error",
                str(error),
                code=error.code,
                param=error.param,
                charge=error.charge,
            )
        return self._finished(request, status, answer, {})

    def _finished(self, request: Request, status: int, body: dict[str, Any], headers: Mapping[str, str]) -> Response:
        if self.fault_of(request) is Fault.UNKNOWN_STATUS and "status" in body:
            body = body | {"status": "quarantined"}
        return JSONResponse(body, status, headers={"Request-Id": new_id("req"), **headers})

    def _get(self, request: Request, kind: str) -> Response:
        refusal = _check_key(request)
        if refusal is not None:
            return refusal
        try:
            found = self._load(kind, request.path_params["id"])
        except FormError as error:
            return error_answer(error.status, "invalid_request_error", str(error), code=error.code, param=error.param)
        return self._finished(request, 200, shown(found), {})

    def _list(self, request: Request, kind: str, path: str) -> Response:
        refusal = _check_key(request)
        if refusal is not None:
            return refusal
        query = request.query_params
        limit = min(int(query.get("limit", _PAGE_SIZE)), _PAGE_SIZE_MAX)
        earliest = int(query.get("created[gte]", 0))
        items = [item for item in self.shelf.newest(kind, 100_000) if item["created"] >= earliest]
        ids = [item["id"] for item in items]
        if query.get("starting_after") in ids:
            items = items[ids.index(query["starting_after"]) + 1 :]
        page = [shown(item) for item in items[:limit]]
        if self.fault_of(request) is Fault.UNKNOWN_STATUS:
            page = [item | {"status": "quarantined"} for item in page]
        return JSONResponse({"object": "list", "url": path, "has_more": len(items) > limit, "data": page})

    def _load(self, kind: str, key: str) -> dict[str, Any]:
        found = self.shelf.get(kind, key)
        if found is None:
            raise FormError(f"No such {kind}: '{key}'", "id", "resource_missing", status=404)
        return found

    def _save(self, subject: dict[str, Any]) -> None:
        self.shelf.put(subject["object"], subject["id"], subject)

    def _answer_with(self, subject: dict[str, Any], events: list[str]) -> Answer:
        """Keeps an object, plans its events, and shows it."""
        self._save(subject)
        callbacks = []
        for event_type in events:
            event = cards.event_of(event_type, shown(subject), new_id("evt"), int(time.time()))
            for endpoint in self.shelf.newest("webhook_endpoint"):
                if {"*", event_type} & set(endpoint["enabled_events"]):
                    body = json.dumps(event)
                    callbacks.append(Callback(endpoint["url"], body, retry_delays_seconds=_RETRY_DELAYS_SECONDS))
        self.call_back(callbacks, subject["_fault"], delay_seconds=self.stage.settings.approval_seconds)
        return 200, shown(subject)

    def sign_callback(self, body: str) -> Mapping[str, str]:
        """Stripe-Signature, new for every delivery."""
        now = int(time.time())
        code = hmac.new(WEBHOOK_SECRET.encode(), f"{now}.{body}".encode(), hashlib.sha256).hexdigest()
        return {"Stripe-Signature": f"t={now},v1={code}"}

    async def magic_fault(self, operation: str, request: Request) -> Fault | None:
        """Faults by card, once for each Idempotency-Key."""
        if operation != "charge":
            return None
        try:
            form = read_form(request.headers.get("content-type", ""), await request.body())
        except FormError:
            return None
        fault, times = cards.fault_of(str(form.get("payment_method", "")))
        key = request.headers.get("idempotency-key", "")
        done = (self.shelf.get("magic_fault", key) or {"times": 0})["times"]
        if fault is None or done >= times:
            return None
        self.shelf.put("magic_fault", key, {"times": done + 1})
        return fault

    def too_many_requests(self, operation: str) -> Response:
        """429 rate_limit."""
        message = f"Too many requests hit the API too quickly: {operation}."
        response = error_answer(429, "invalid_request_error", message, code="rate_limit")
        response.headers["Retry-After"] = "1"
        return response


def _check_key(request: Request) -> Response | None:
    if request.headers.get("authorization") == f"Bearer {SECRET_KEY}":
        return None
    return error_answer(401, "invalid_request_error", "Invalid API Key provided.")
