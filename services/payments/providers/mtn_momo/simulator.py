"""MTN's side of the MoMo Open API, as its developer portal describes it (momodeveloper.mtn.com, read 2026-11).

Where it differs from MTN's own sandbox:
- Callbacks go to plain http on hosts of this machine; MTN wants https and a host name registered with the API user.
- MTN's sandbox takes EUR only. Here a market's name in X-Target-Environment takes the market's currency, as in
  production. Which currency belongs to which market is INFERRED from the country.
- Numbers of Ghana get scenarios too (see magic_values), since MTN's own test numbers are Swedish.
- How a refund above the amount paid is refused is INFERRED.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import time
import uuid
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from mesh.sandbox.faults import Fault
from mesh.sandbox.simulator import Callback, ProviderSimulator
from services.payments.providers.mtn_momo import scenarios

# What the one API user that always exists is called and knows; the same for both products.
API_USER = "3f6a1d1c-9f0e-4a55-8c36-6f1f4b0d7a11"
API_KEY = "sandbox-api-key-of-mtn-momo"
SUBSCRIPTION_KEYS = {
    "collection": "sandbox-collection-key",
    "disbursement": "sandbox-disbursement-key",
    "remittance": "sandbox-remittance-key",
}
# Signs the tokens, so that they outlive a restart; a simulator keeps no secrets.
_TOKEN_KEY = b"mtn_momo simulator"
_TOKEN_SECONDS = 3600
_OPENING_BALANCE = Decimal(1_000_000)
_TEXT_MAX = 160
_PARTY_TYPES = {"MSISDN", "EMAIL", "PARTY_CODE"}
_PLAIN_TEXT = re.compile(r"[\w .,:;@/()+&#*-]*")

_PRODUCTS = {"collect": "collection", "payout": "disbursement", "refund": "disbursement"}
# Operation of a resource -> (kind of record, field that names the other party).
_RESOURCES = {"collect": ("requesttopay", "payer"), "payout": ("transfer", "payee"), "refund": ("refund", "")}


class Simulator(ProviderSimulator):
    """Collection and disbursement: accepted with 202, decided by the payer a moment later, reported by callback."""

    magic_values = scenarios.DESCRIPTIONS

    def routes(self) -> Sequence[BaseRoute]:
        """The paths of the API."""
        holder = "/{product}/v1_0/accountholder/{party_type}/{party_id}/active"
        return [
            Route("/v1_0/apiuser", self.create_user, methods=["POST"], name="create_user"),
            Route("/v1_0/apiuser/{user}", self.get_user, methods=["GET"], name="get_user"),
            Route("/v1_0/apiuser/{user}/apikey", self.create_key, methods=["POST"], name="create_key"),
            Route("/{product}/token/", self.create_token, methods=["POST"], name="token"),
            Route("/collection/v1_0/requesttopay", self.collect, methods=["POST"], name="collect"),
            Route("/collection/v1_0/requesttopay/{id}", self.get_collect, methods=["GET"], name="find_collect"),
            Route("/disbursement/v1_0/transfer", self.payout, methods=["POST"], name="payout"),
            Route("/disbursement/v1_0/transfer/{id}", self.get_payout, methods=["GET"], name="find_payout"),
            Route("/disbursement/v1_0/refund", self.refund, methods=["POST"], name="refund"),
            Route("/disbursement/v1_0/refund/{id}", self.get_refund, methods=["GET"], name="find_refund"),
            Route("/{product}/v1_0/account/balance", self.get_balance, methods=["GET"], name="balance"),
            Route("/{product}/v1_0/account/balance/{currency}", self.get_balance, methods=["GET"], name="balance"),
            Route(holder, self.get_holder, methods=["GET"], name="holder_check"),
        ]

    # API users: only MTN's sandbox has these; in production the portal makes them.

    async def create_user(self, request: Request) -> Response:
        """POST /v1_0/apiuser."""
        user = request.headers.get("x-reference-id", "")
        body = await _json_of(request)
        if not _is_uuid4(user) or not body.get("providerCallbackHost"):
            return _error(400, "BAD_REQUEST", "X-Reference-Id must be a UUID v4 and providerCallbackHost given")
        if self.shelf.get("apiuser", user):
            return _error(409, "RESOURCE_ALREADY_EXIST", "Duplicated reference id. Creation of resource failed.")
        self.shelf.put("apiuser", user, {"providerCallbackHost": body["providerCallbackHost"], "apiKey": ""})
        return Response(status_code=201)

    async def get_user(self, request: Request) -> Response:
        """GET /v1_0/apiuser/{user}."""
        user = self.shelf.get("apiuser", request.path_params["user"])
        if user is None:
            return _error(404, "RESOURCE_NOT_FOUND", "Requested resource was not found.")
        return JSONResponse({"providerCallbackHost": user["providerCallbackHost"], "targetEnvironment": "sandbox"})

    async def create_key(self, request: Request) -> Response:
        """POST /v1_0/apiuser/{user}/apikey."""
        user = self.shelf.get("apiuser", request.path_params["user"])
        if user is None:
            return _error(404, "RESOURCE_NOT_FOUND", "Requested resource was not found.")
        user["apiKey"] = uuid.uuid4().hex
        self.shelf.put("apiuser", request.path_params["user"], user)
        return JSONResponse({"apiKey": user["apiKey"]}, 201)

    # Tokens, one kind per product.

    async def create_token(self, request: Request) -> Response:
        """POST /{product}/token/: HTTP Basic, empty body."""
        product = request.path_params["product"]
        refusal = _check_subscription(request, product)
        if refusal is not None:
            return refusal
        user, key = _basic_of(request)
        known = self.shelf.get("apiuser", user)
        right = (user == API_USER and key == API_KEY) or (known is not None and key and known["apiKey"] == key)
        if not right:
            return JSONResponse({"error": "login_failed"}, 401)
        token = _make_token(product, int(time.time()) + _TOKEN_SECONDS)
        return JSONResponse({"access_token": token, "token_type": "access_token", "expires_in": _TOKEN_SECONDS})

    # Money. All three kinds are accepted alike and read alike.

    async def collect(self, request: Request) -> Response:
        """POST /collection/v1_0/requesttopay."""
        return await self._accept(request, "collect")

    async def payout(self, request: Request) -> Response:
        """POST /disbursement/v1_0/transfer."""
        return await self._accept(request, "payout")

    async def refund(self, request: Request) -> Response:
        """POST /disbursement/v1_0/refund."""
        return await self._accept(request, "refund")

    async def get_collect(self, request: Request) -> Response:
        """GET /collection/v1_0/requesttopay/{id}."""
        return self._get(request, "collect")

    async def get_payout(self, request: Request) -> Response:
        """GET /disbursement/v1_0/transfer/{id}."""
        return self._get(request, "payout")

    async def get_refund(self, request: Request) -> Response:
        """GET /disbursement/v1_0/refund/{id}."""
        return self._get(request, "refund")

    async def _accept(self, request: Request, operation: str) -> Response:
        refusal = _check_caller(request, _PRODUCTS[operation])
        if refusal is not None:
            return refusal
        reference = request.headers.get("x-reference-id", "")
        body = await _json_of(request)
        kind, party = _RESOURCES[operation]
        with self.shelf.transaction():
            if self.shelf.get(kind, reference):
                return _error(409, "RESOURCE_ALREADY_EXIST", "Duplicated reference id. Creation of resource failed.")
            refusal = self._check_order(request, operation, reference, body)
            if refusal is not None:
                return refusal
            scenario = scenarios.of(operation, _party_id(body, party) or str(body.get("referenceIdToRefund", "")))
            if scenario.refusal_status:
                return _error(scenario.refusal_status, scenario.reason, "The request was refused.")
            fault = self.fault_of(request)
            reason = scenarios.DECLINE_REASONS[operation] if fault is Fault.DECLINE else scenario.reason
            resource = {name: body[name] for name in scenarios.FIELDS[operation] if name in body}
            resource |= {"status": "PENDING", "callback_url": request.headers.get("x-callback-url", "")}
            resource |= {"fault": fault, "outcome": reason, "environment": request.headers["x-target-environment"]}
            self.shelf.put(kind, reference, resource)
            if not scenario.endless:
                seconds = self.stage.settings.approval_seconds * scenario.slowness
                self.shelf.later(seconds, "decide", {"operation": operation, "reference": reference})
        return Response(status_code=202)

    def _check_order(self, request: Request, operation: str, reference: str, body: dict[str, Any]) -> Response | None:
        """The refusal of an order, or None."""
        fault = _fault_in_form(reference, body, _RESOURCES[operation][1])
        if fault:
            return _error(400, "BAD_REQUEST", fault)
        if body["currency"] not in scenarios.CURRENCIES[request.headers["x-target-environment"]]:
            return _error(500, "INVALID_CURRENCY", "Currency not supported.")
        if operation == "refund" and not scenarios.is_magic_refund(body["referenceIdToRefund"]):
            return self._set_refund_aside(body)
        return None

    def _set_refund_aside(self, body: dict[str, Any]) -> Response | None:
        """Counts a refund against its payment; the refusal when it is too much, or None."""
        payment_id = str(body["referenceIdToRefund"])
        payment = self.shelf.get("requesttopay", payment_id)
        if payment is None or payment["status"] != "SUCCESSFUL" or payment["currency"] != body["currency"]:
            return _error(404, "RESOURCE_NOT_FOUND", "Requested resource was not found.")
        refunded = Decimal((self.shelf.get("refunded", payment_id) or {"amount": "0"})["amount"])
        refunded += Decimal(body["amount"])
        if refunded > Decimal(payment["amount"]):
            return _error(500, "NOT_ALLOWED", "The refunds would be more than the payment.")
        self.shelf.put("refunded", payment_id, {"amount": f"{refunded:f}"})
        return None

    def _free_refund(self, resource: dict[str, Any]) -> None:
        payment_id = str(resource["referenceIdToRefund"])
        refunded = self.shelf.get("refunded", payment_id)
        if refunded is not None:
            left = Decimal(refunded["amount"]) - Decimal(resource["amount"])
            self.shelf.put("refunded", payment_id, {"amount": f"{left:f}"})

    def _get(self, request: Request, operation: str) -> Response:
        refusal = _check_caller(request, _PRODUCTS[operation])
        if refusal is not None:
            return refusal
        resource = self.shelf.get(_RESOURCES[operation][0], request.path_params["id"])
        if resource is None:
            return _error(404, "RESOURCE_NOT_FOUND", "Requested resource was not found.")
        shown = _shown(resource)
        if self.fault_of(request) is Fault.UNKNOWN_STATUS:
            shown["status"] = "QUARANTINED"
        return JSONResponse(shown)

    def on_timer(self, name: str, payload: dict[str, Any]) -> None:
        """The payer, or the platform, decides."""
        if name != "decide":
            super().on_timer(name, payload)
            return
        operation, reference = payload["operation"], payload["reference"]
        kind = _RESOURCES[operation][0]
        resource = self.shelf.get(kind, reference)
        if resource is None or resource["status"] != "PENDING":
            return
        before = _shown(resource)
        reason = resource["outcome"] or self._lack_of_funds(operation, resource)
        if reason:
            # Both forms of a reason are seen from MTN.
            as_object = {"code": reason, "message": reason.replace("_", " ").lower()}
            resource |= {"status": "FAILED", "reason": as_object if operation == "refund" else reason}
            if operation == "refund":
                self._free_refund(resource)
        else:
            number = int.from_bytes(hashlib.sha256(reference.encode()).digest()[:5], "big")
            resource |= {"status": "SUCCESSFUL", "financialTransactionId": str(number)}
            self.shelf.move(operation, reference, resource["amount"], resource["currency"])
        self.shelf.put(kind, reference, resource)
        if resource["callback_url"]:
            self._report(resource, before)

    def _report(self, resource: dict[str, Any], before: dict[str, Any]) -> None:
        # MTN sends one callback, once. Out of order means that a stale one, from before the decision, follows it.
        bodies = [before, _shown(resource)] if resource["fault"] == Fault.OUT_OF_ORDER_CALLBACK else [_shown(resource)]
        callbacks = [Callback(resource["callback_url"], json.dumps(body), "PUT") for body in bodies]
        self.call_back(callbacks, resource["fault"])

    # Accounts and holders.

    async def get_balance(self, request: Request) -> Response:
        """GET /{product}/v1_0/account/balance[/{currency}]."""
        refusal = _check_caller(request, request.path_params["product"])
        if refusal is not None:
            return refusal
        environment = request.headers["x-target-environment"]
        currency = request.path_params.get("currency") or scenarios.CURRENCIES[environment][0]
        balance = self._balance(request.path_params["product"], currency)
        return JSONResponse({"availableBalance": f"{balance:f}", "currency": currency})

    async def get_holder(self, request: Request) -> Response:
        """GET /{product}/v1_0/accountholder/{type}/{id}/active."""
        refusal = _check_caller(request, request.path_params["product"])
        if refusal is not None:
            return refusal
        active = scenarios.holder_is_active(request.path_params["party_id"])
        if active is None:
            return _error(404, "RESOURCE_NOT_FOUND", "Requested resource was not found.")
        return JSONResponse({"result": active})

    def _balance(self, product: str, currency: str) -> Decimal:
        signs = {"collect": 1} if product == "collection" else {"payout": -1, "refund": -1}
        moved = [each for each in self.shelf.movements() if each["currency"] == currency]
        return _OPENING_BALANCE + sum(signs.get(each["operation"], 0) * Decimal(each["amount"]) for each in moved)

    def _lack_of_funds(self, operation: str, resource: dict[str, Any]) -> str:
        # Only an amount that could matter is worth adding up everything for.
        if operation == "collect" or Decimal(resource["amount"]) < _OPENING_BALANCE / 100:
            return ""
        balance = self._balance("disbursement", resource["currency"])
        return "NOT_ENOUGH_FUNDS" if Decimal(resource["amount"]) > balance else ""

    async def magic_fault(self, operation: str, request: Request) -> Fault | None:
        """Faults by the number of the payer or payee, once for each X-Reference-Id."""
        if operation not in _RESOURCES:
            return None
        body = await _json_of(request)
        fault, times = scenarios.fault_of(_party_id(body, _RESOURCES[operation][1]))
        if fault is None:
            return None
        key = f"{operation}:{request.headers.get('x-reference-id', '')}"
        done = (self.shelf.get("magic_fault", key) or {"times": 0})["times"]
        if done >= times:
            return None
        self.shelf.put("magic_fault", key, {"times": done + 1, "fault": fault})
        return fault

    def too_many_requests(self, operation: str) -> Response:  # noqa: ARG002 - the same for all
        """The answer of the API management in front of MTN's platform."""
        body = {"statusCode": 429, "message": "Rate limit is exceeded. Try again in 1 seconds."}
        return JSONResponse(body, 429, headers={"Retry-After": "1"})


def _shown(resource: dict[str, Any]) -> dict[str, Any]:
    """A resource as the API and callbacks show it."""
    hidden = {"callback_url", "fault", "outcome", "environment"}
    return {name: value for name, value in resource.items() if name not in hidden}


def _check_caller(request: Request, product: str) -> Response | None:
    """Subscription key, token and target environment of a call; the refusal, or None."""
    refusal = _check_subscription(request, product)
    if refusal is not None:
        return refusal
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme != "Bearer" or not _token_is_valid(token, product):
        return JSONResponse({"statusCode": 401, "error": "invalid_token"}, 401)
    if request.headers.get("x-target-environment", "") not in scenarios.CURRENCIES:
        return _error(500, "NOT_ALLOWED_TARGET_ENVIRONMENT", "Access to target environment is forbidden.")
    return None


def _fault_in_form(reference: str, body: dict[str, Any], party: str) -> str:
    """What is wrong with an order whatever it is about, or empty."""
    wanted = ["amount", "currency", "externalId", party or "referenceIdToRefund"]
    missing = [name for name in wanted if not body.get(name)]
    texts = [str(body.get(name, "")) for name in ("payerMessage", "payeeNote")]
    if not _is_uuid4(reference):
        return "X-Reference-Id is not a UUID v4"
    if missing:
        return f"{missing[0]} is missing"
    if any(len(text) > _TEXT_MAX or not _PLAIN_TEXT.fullmatch(text) for text in texts):
        return "payerMessage or payeeNote is too long or has special characters"
    if party and body[party].get("partyIdType") not in _PARTY_TYPES:
        return "partyIdType is unknown"
    if not isinstance(body["amount"], str) or (_decimal(body["amount"]) or 0) <= 0:
        return "amount is not a decimal number in a string"
    return ""


def _check_subscription(request: Request, product: str) -> Response | None:
    if request.headers.get("ocp-apim-subscription-key") == SUBSCRIPTION_KEYS.get(product):
        return None
    message = "Access denied due to invalid subscription key. Make sure to provide a valid key."
    return JSONResponse({"statusCode": 401, "message": message}, 401)


def _error(status: int, code: str, message: str) -> Response:
    return JSONResponse({"code": code, "message": message}, status)


async def _json_of(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _party_id(body: dict[str, Any], party: str) -> str:
    found = body.get(party)
    return str(found.get("partyId", "")) if isinstance(found, dict) else ""


def _basic_of(request: Request) -> tuple[str, str]:
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    try:
        user, _, key = base64.b64decode(encoded).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return (user, key) if scheme == "Basic" else ("", "")


def _make_token(product: str, end_unix_seconds: int) -> str:
    text = f"{product}.{end_unix_seconds}"
    return f"{text}.{hmac.new(_TOKEN_KEY, text.encode(), hashlib.sha256).hexdigest()}"


def _token_is_valid(token: str, product: str) -> bool:
    parts = token.split(".")
    if len(parts) != 3 or not parts[1].isdigit():  # noqa: PLR2004 - product, end, signature
        return False
    return parts[0] == product and int(parts[1]) > time.time() and token == _make_token(product, int(parts[1]))


def _is_uuid4(text: str) -> bool:
    try:
        return uuid.UUID(text).version == 4  # noqa: PLR2004 - form 4
    except ValueError:
        return False


def _decimal(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
