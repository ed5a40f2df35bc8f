"""MTN Mobile Money through the MoMo Open API: collection and disbursement.

Source: momodeveloper.mtn.com/api-documentation (callback, common-error, testing) and public SDKs, checked 2026-11.

What surprised us:
- A business refusal often comes as HTTP 500 with a code in the body; only a 500 without one is a fault.
- A callback names no X-Reference-Id, so externalId carries our attempt key. It is unsigned: it proves nothing, and the
  core asks instead. PUT is documented; POST is UNVERIFIED but accepted.
- `reason` is a string in some answers and an object in others.
- A refund lives under disbursement and names the collect by its X-Reference-Id.
- Apostrophes and other special characters in a note make the request fail, sometimes silently.

INFERRED: which codes, in answer to a POST, say for certain that nothing was created (REFUSALS); other 5xx are doubts.
UNVERIFIED: hosts of single countries (use base_url of the connection), rate limits, TIMEOUT and REJECTED as states.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar
from uuid import UUID

import httpx

from mesh.money import Money
from mesh.provider.adapter import Adapter, AmountFormat
from mesh.provider.auth import BasicAuth, TokenAuth
from mesh.provider.connection import Connection, Environment
from mesh.provider.errors import BadCredentials, WebhookUnverified
from mesh.provider.http import Operation, ProviderClient, ProviderResponse
from mesh.provider.webhook import IncomingWebhook
from services.payments.provider import (
    Balance,
    CollectOrder,
    FailureCode,
    HolderCheck,
    OperationKey,
    Outcome,
    OutcomeState,
    Payout,
    PayoutOrder,
    ProviderFailure,
    Refund,
    RefundOrder,
    WalletCollect,
    WebhookReport,
    Webhooks,
)

# A resend with the same X-Reference-Id is answered 409, so it moves nothing twice; but asking tells as much, sooner.
COLLECT = Operation("collect", writes=True)
PAYOUT = Operation("payout", writes=True)
REFUND = Operation("refund", writes=True)
FIND_COLLECT = Operation("find_collect", writes=False)
FIND_PAYOUT = Operation("find_payout", writes=False)
FIND_REFUND = Operation("find_refund", writes=False)
BALANCE = Operation("balance", writes=False)
HOLDER_CHECK = Operation("holder_check", writes=False)

STATES = {
    "PENDING": OutcomeState.PENDING,
    "CREATED": OutcomeState.PENDING,
    "ONGOING": OutcomeState.PENDING,
    "DELAYED": OutcomeState.PENDING,
    "PAYER_DELAYED": OutcomeState.PENDING,
    "PAYEE_DELAYED": OutcomeState.PENDING,
    "SUCCESSFUL": OutcomeState.SUCCEEDED,
    "FAILED": OutcomeState.FAILED,
    "REJECTED": OutcomeState.CANCELED,
    "TIMEOUT": OutcomeState.EXPIRED,
}

# Reason of a FAILED resource, or code of a refusal: how it ended, why, and what a payer may read.
FAILURES: dict[str, tuple[OutcomeState, FailureCode, str]] = {
    "NOT_ENOUGH_FUNDS": (OutcomeState.FAILED, FailureCode.INSUFFICIENT_FUNDS, "There is not enough money."),
    "PAYER_LIMIT_REACHED": (OutcomeState.FAILED, FailureCode.LIMIT_EXCEEDED, "A limit of the wallet is reached."),
    "PAYER_NOT_FOUND": (OutcomeState.FAILED, FailureCode.PAYER_UNKNOWN, "The number has no wallet."),
    "PAYEE_NOT_FOUND": (OutcomeState.FAILED, FailureCode.PAYER_UNKNOWN, "The number has no wallet."),
    "PAYEE_NOT_ALLOWED_TO_RECEIVE": (OutcomeState.FAILED, FailureCode.DECLINED, "The wallet can't receive this."),
    "PAYMENT_NOT_APPROVED": (OutcomeState.FAILED, FailureCode.PAYER_REJECTED, "The payment was not approved."),
    "APPROVAL_REJECTED": (OutcomeState.CANCELED, FailureCode.PAYER_REJECTED, "The payment was rejected."),
    "REJECTED": (OutcomeState.CANCELED, FailureCode.PAYER_REJECTED, "The payment was rejected."),
    "TRANSACTION_CANCELED": (OutcomeState.CANCELED, FailureCode.PAYER_REJECTED, "The payment was canceled."),
    "EXPIRED": (OutcomeState.EXPIRED, FailureCode.PAYER_TIMED_OUT, "The payment was not approved in time."),
    "TIMEOUT": (OutcomeState.EXPIRED, FailureCode.PAYER_TIMED_OUT, "The payment was not approved in time."),
    "COULD_NOT_PERFORM_TRANSACTION": (
        OutcomeState.EXPIRED,
        FailureCode.PAYER_TIMED_OUT,
        "The payment was not approved in time.",
    ),
    # Often "the payer has no funds", but it does not say so.
    "INTERNAL_PROCESSING_ERROR": (
        OutcomeState.FAILED,
        FailureCode.PROCESSING_ERROR,
        "The operator could not process it.",
    ),
    "TRANSFER_TYPE_UNKNOWN": (OutcomeState.FAILED, FailureCode.REQUEST_REJECTED, "The operator refused the request."),
    "NOT_ALLOWED": (OutcomeState.FAILED, FailureCode.REQUEST_REJECTED, "The operator refused the request."),
    "INVALID_CURRENCY": (OutcomeState.FAILED, FailureCode.REQUEST_REJECTED, "The operator refused the currency."),
    "RESOURCE_NOT_FOUND": (OutcomeState.FAILED, FailureCode.REQUEST_REJECTED, "The payment was not found."),
}
_UNKNOWN_FAILURE = (OutcomeState.FAILED, FailureCode.UNKNOWN, "The operator refused it.")

# Codes that, in answer to a POST, say that nothing was created. INTERNAL_PROCESSING_ERROR and SERVICE_UNAVAILABLE
# are not among them: after those the status must be asked.
REFUSALS = frozenset(
    {
        "PAYER_NOT_FOUND",
        "PAYEE_NOT_FOUND",
        "PAYER_LIMIT_REACHED",
        "NOT_ENOUGH_FUNDS",
        "PAYEE_NOT_ALLOWED_TO_RECEIVE",
        "TRANSFER_TYPE_UNKNOWN",
        "NOT_ALLOWED",
        "INVALID_CURRENCY",
    }
)
# Faults of the connection rather than of the order.
_MISCONFIGURED = frozenset({"NOT_ALLOWED_TARGET_ENVIRONMENT", "INVALID_CALLBACK_URL_HOST", "FORBIDDEN_IP"})

_COLLECTION, _DISBURSEMENT = "collection", "disbursement"
_NOTE_MAX = 160
_INSTRUCTIONS = "Approve the payment on your phone. If no prompt comes, open the MoMo menu and look under approvals."


@dataclass(frozen=True, slots=True)
class MtnMomoCredentials:
    """What the MoMo portal gives. Disbursement is needed for payouts, refunds and its balance."""

    collection_subscription_key: str = field(
        repr=False, metadata={"description": "Primary key of the Collection product, from the MoMo portal's profile."}
    )
    collection_api_user: str = field(
        repr=False, metadata={"description": "API user (UUID) of Collection, made in the partner portal."}
    )
    collection_api_key: str = field(repr=False, metadata={"description": "API key of the Collection API user."})
    disbursement_subscription_key: str = field(
        default="", repr=False, metadata={"description": "Primary key of the Disbursements product."}
    )
    disbursement_api_user: str = field(
        default="", repr=False, metadata={"description": "API user (UUID) of Disbursements."}
    )
    disbursement_api_key: str = field(
        default="", repr=False, metadata={"description": "API key of the Disbursements API user."}
    )


class ProductAuth(TokenAuth):
    """Subscription key and token of one product. The token endpoint takes HTTP Basic and an empty body."""

    def __init__(self, token_url: str, subscription_key: str, api_user: str, api_key: str) -> None:
        super().__init__()
        self._token_url = token_url
        self._subscription_key = subscription_key
        self._basic = BasicAuth(api_user, api_key)

    def build_token_request(self) -> httpx.Request:
        """POST /{product}/token/, with the slash at the end."""
        headers = {"Ocp-Apim-Subscription-Key": self._subscription_key}
        return next(self._basic.auth_flow(httpx.Request("POST", self._token_url, headers=headers)))


class MtnMomo(Adapter, WalletCollect, Refund, Payout, Balance, HolderCheck, Webhooks):
    """MTN Mobile Money.

    Settings of a connection:
        target_environment: "sandbox" (the default; takes EUR only) or a market's name, such as "mtnghana".
    """

    slug = "mtn_momo"
    display_name = "MTN Mobile Money"
    countries = frozenset({"GH", "UG", "CI", "ZM", "CM", "BJ", "CG", "SZ", "GN", "ZA", "LR", "SS", "NG", "RW"})
    currencies = frozenset(
        {"GHS", "UGX", "XOF", "ZMW", "XAF", "SZL", "GNF", "ZAR", "LRD", "USD", "SSP", "NGN", "RWF", "EUR"}
    )
    base_urls: ClassVar = {
        Environment.SANDBOX: "https://sandbox.momodeveloper.mtn.com",
        Environment.PRODUCTION: "https://proxy.momoapi.mtn.com",
    }
    amount_format = AmountFormat.MAJOR_STRING
    Credentials = MtnMomoCredentials
    sandbox_credentials: ClassVar = {
        "collection_subscription_key": "sandbox-collection-key",
        "collection_api_user": "3f6a1d1c-9f0e-4a55-8c36-6f1f4b0d7a11",
        "collection_api_key": "sandbox-api-key-of-mtn-momo",
        "disbursement_subscription_key": "sandbox-disbursement-key",
        "disbursement_api_user": "3f6a1d1c-9f0e-4a55-8c36-6f1f4b0d7a11",
        "disbursement_api_key": "sandbox-api-key-of-mtn-momo",
    }
    sandbox_settings: ClassVar = {"target_environment": "mtnghana"}

    def __init__(self, connection: Connection, http: ProviderClient) -> None:
        super().__init__(connection, http)
        self._target_environment = connection.settings.get("target_environment", "sandbox")
        self._auths: dict[str, ProductAuth] = {}

    async def collect(self, order: CollectOrder) -> Outcome:
        """POST requesttopay. 202 is only acceptance, so the usual answer is PENDING."""
        body = self._order_body(order.attempt_key, order.amount, order.description, order.payment_id)
        body["payer"] = _party(order.msisdn)
        return await self._create(COLLECT, _COLLECTION, "requesttopay", order.attempt_key, body)

    async def find_collect(self, key: OperationKey) -> Outcome:
        """GET requesttopay by our key."""
        return await self._find(FIND_COLLECT, _COLLECTION, "requesttopay", key.attempt_key)

    async def payout(self, order: PayoutOrder) -> Outcome:
        """POST transfer."""
        body = self._order_body(order.attempt_key, order.amount, order.description, order.payout_id)
        body["payee"] = _party(order.msisdn)
        return await self._create(PAYOUT, _DISBURSEMENT, "transfer", order.attempt_key, body)

    async def find_payout(self, key: OperationKey) -> Outcome:
        """GET transfer by our key."""
        return await self._find(FIND_PAYOUT, _DISBURSEMENT, "transfer", key.attempt_key)

    async def refund(self, order: RefundOrder) -> Outcome:
        """POST refund; names the collect by the key it was sent with."""
        body = self._order_body(order.attempt_key, order.amount, order.description, order.refund_id)
        body["referenceIdToRefund"] = order.charge_attempt_key
        return await self._create(REFUND, _DISBURSEMENT, "refund", order.attempt_key, body)

    async def find_refund(self, key: OperationKey) -> Outcome:
        """GET refund by our key."""
        return await self._find(FIND_REFUND, _DISBURSEMENT, "refund", key.attempt_key)

    async def balances(self) -> Sequence[Money]:
        """What the accounts of both products hold together; of collection alone without the keys of disbursement."""
        products = [_COLLECTION, *([_DISBURSEMENT] if self.credentials.disbursement_subscription_key else [])]
        totals: dict[str, Money] = {}
        for product in products:
            response = await self._send(BALANCE, product, "GET", "account/balance")
            if response.status_code != httpx.codes.OK:
                raise self._fault(response)
            answer = response.json_object()
            amount = _money(response, answer.get("availableBalance"), answer.get("currency"))
            totals[amount.currency] = totals[amount.currency] + amount if amount.currency in totals else amount
        return list(totals.values())

    async def holder_is_active(self, msisdn: str) -> bool:
        """GET accountholder/msisdn/{number}/active; 404 is a number without a wallet."""
        path = f"accountholder/msisdn/{msisdn.removeprefix('+')}/active"
        response = await self._send(HOLDER_CHECK, _COLLECTION, "GET", path)
        answer = response.json_object()
        if response.status_code == httpx.codes.OK and isinstance(answer.get("result"), bool):
            return bool(answer["result"])
        if response.status_code == httpx.codes.NOT_FOUND and _code(answer) == "RESOURCE_NOT_FOUND":
            return False
        raise self._fault(response)

    def read_webhook(self, webhook: IncomingWebhook) -> Sequence[WebhookReport]:
        """Reads which operation a callback is about. It proves nothing, so its outcome is None.

        Raises:
            WebhookUnverified: it is no status resource with a key of ours.
        """
        try:
            body = json.loads(webhook.body)
            attempt_key = str(UUID(body["externalId"]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise WebhookUnverified("mtn_momo: the callback is no status of an operation of ours") from None
        operation = "collect" if "payer" in body else "payout" if "payee" in body else "refund"
        event_id = hashlib.sha256(webhook.body).hexdigest()
        return [WebhookReport(event_id, operation, attempt_key, reference="", outcome=None)]

    def _order_body(self, attempt_key: str, amount: Money, message: str, note: str) -> dict[str, Any]:
        return {
            "amount": amount.to_major_string(),
            "currency": amount.currency,
            "externalId": attempt_key,
            "payerMessage": _plain(message),
            "payeeNote": _plain(note),
        }

    async def _create(
        self, operation: Operation, product: str, resource: str, attempt_key: str, body: dict[str, Any]
    ) -> Outcome:
        """Sends an order. What it answers is only whether the order was taken.

        Raises:
            OutcomeUnknown: a 5xx that does not say that nothing was created, or an answer not understood.
        """
        headers = {"X-Reference-Id": attempt_key}
        if self.connection.callback_url:
            headers["X-Callback-Url"] = self.connection.callback_url
        response = await self._send(operation, product, "POST", resource, headers=headers, json=body)
        if response.status_code == httpx.codes.ACCEPTED:
            return Outcome(OutcomeState.PENDING, instructions=_INSTRUCTIONS if operation is COLLECT else "")
        answer = response.json_object_or_none() or {}
        code = _code(answer)
        if response.status_code == httpx.codes.CONFLICT and code == "RESOURCE_ALREADY_EXIST":
            # Taken before; what became of it is in its status.
            find = Operation(f"find_{operation.name}", writes=False)
            return await self._find(find, product, resource, attempt_key)
        if code in REFUSALS or (response.status_code in {400, 404} and code):
            return _failed(code, FailureCode.REQUEST_REJECTED)
        raise self._fault(response)

    async def _find(self, operation: Operation, product: str, resource: str, attempt_key: str) -> Outcome:
        """Reads a status.

        Raises:
            UnexpectedResponse: the answer is not in the documentation; it proves nothing.
        """
        response = await self._send(operation, product, "GET", f"{resource}/{attempt_key}")
        answer = response.json_object()
        # Only this code says so: a gateway's own 404 must not make anyone send again.
        if response.status_code == httpx.codes.NOT_FOUND and _code(answer) == "RESOURCE_NOT_FOUND":
            return Outcome(OutcomeState.NOT_FOUND)
        if response.status_code != httpx.codes.OK:
            raise self._fault(response)
        status = answer.get("status")
        state = STATES.get(status) if isinstance(status, str) else None
        if state is None:
            raise response.unexpected("holds a status that is not documented")
        amount = _money(response, answer.get("amount"), answer.get("currency"))
        reference = str(answer.get("financialTransactionId") or "")
        if state is OutcomeState.PENDING:
            instructions = _INSTRUCTIONS if operation.name == FIND_COLLECT.name else ""
            return Outcome(state, reference, amount, instructions=instructions)
        if state is OutcomeState.SUCCEEDED:
            return Outcome(state, reference, amount)
        failed = _failed(_reason(answer) or str(status), FailureCode.UNKNOWN)
        return Outcome(failed.state, reference, amount, failed.failure)

    async def _send(
        self,
        operation: Operation,
        product: str,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        json: dict[str, Any] | None = None,
    ) -> ProviderResponse:
        all_headers = {
            "Ocp-Apim-Subscription-Key": getattr(self.credentials, f"{product}_subscription_key"),
            "X-Target-Environment": self._target_environment,
            **(headers or {}),
        }
        url = f"{self.base_url}/{product}/v1_0/{path}"
        return await self.http.send(operation, method, url, auth=self._auth(product), headers=all_headers, json=json)

    def _auth(self, product: str) -> ProductAuth:
        if product not in self._auths:
            names = ("subscription_key", "api_user", "api_key")
            values = [getattr(self.credentials, f"{product}_{name}") for name in names]
            if not all(values):
                raise BadCredentials(f"mtn_momo: this connection has no credentials for {product}")
            self._auths[product] = ProductAuth(f"{self.base_url}/{product}/token/", *values)
        return self._auths[product]

    def _fault(self, response: ProviderResponse) -> Exception:
        """The doubt or fault that an answer is, when it is no business answer."""
        code = _code(response.json_object_or_none() or {})
        if code in _MISCONFIGURED:
            return BadCredentials(f"mtn_momo {response.operation.name}: the connection is not set up right: {code}")
        return response.refusal()


def _party(msisdn: str) -> dict[str, str]:
    return {"partyIdType": "MSISDN", "partyId": msisdn.removeprefix("+")}


def _plain(text: str) -> str:
    """A note as MTN takes it: letters, digits and a few marks, at most 160 characters."""
    return re.sub(r"[^A-Za-z0-9 .,-]+", "-", text)[:_NOTE_MAX]


def _code(answer: dict[str, Any]) -> str:
    """The code of an error body, in one spelling: both RESOURCE_NOT_FOUND and RESOURCE NOT FOUND are seen."""
    code = answer.get("code")
    return code.strip().upper().replace(" ", "_") if isinstance(code, str) else ""


def _reason(answer: dict[str, Any]) -> str:
    reason = answer.get("reason")
    return _code(reason if isinstance(reason, dict) else {"code": reason})


def _failed(code: str, default: FailureCode) -> Outcome:
    """The outcome for a reason or code; one that is not in the table is not guessed."""
    state, failure_code, message = FAILURES.get(code, (_UNKNOWN_FAILURE[0], default, _UNKNOWN_FAILURE[2]))
    return Outcome(state, failure=ProviderFailure(failure_code, message, provider_code=code[:80]))


def _money(response: ProviderResponse, amount: object, currency: object) -> Money:
    """An amount of an answer.

    Raises:
        UnexpectedResponse: it is none.
    """
    try:
        return Money.from_major_string(str(amount), str(currency))
    except (ValueError, OverflowError):
        raise response.unexpected("holds an amount that can't be read") from None
