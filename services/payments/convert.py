"""Between the contract's messages and the model."""

from __future__ import annotations

import hmac
from datetime import datetime

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from kente.common.v1 import money_pb2, provider_pb2
from kente.payments.v1 import payment_pb2, payment_service_pb2

from mesh.money import Money
from mesh.provider.registry import ProviderFacts
from services.payments.model import (
    Attempt,
    CaptureMethod,
    Card,
    Failure,
    LedgerState,
    MobileMoney,
    NextAction,
    Payer,
    Payment,
    PaymentState,
    Refund,
    Route,
)


def fingerprint(key: bytes, request: Message) -> bytes:
    """Tells a repetition of a request from another one. Keyed: a request holds numbers that could be guessed."""
    return hmac.digest(key, request.SerializeToString(deterministic=True), "sha256")


def money_from_proto(message: money_pb2.Money) -> Money:
    """Reads an amount."""
    return Money(message.amount_minor, message.currency)


def money_to_proto(money: Money) -> money_pb2.Money:
    """Writes an amount."""
    return money_pb2.Money(amount_minor=money.amount_minor, currency=money.currency)


def method_from_proto(message: payment_pb2.PaymentMethod) -> MobileMoney | Card:
    """Reads a payment method; the contract has made sure that there is one."""
    if message.HasField("mobile_money"):
        return MobileMoney(message.mobile_money.msisdn, message.mobile_money.operator)
    return Card(message.card.token, message.card.return_url)


def payer_from_proto(message: payment_pb2.Payer) -> Payer:
    """Reads a payer."""
    return Payer(message.display_name, message.email)


def capture_method_from_proto(value: payment_pb2.CaptureMethod.ValueType, method: MobileMoney | Card) -> CaptureMethod:
    """Reads how to capture. Mobile money has no reservation: it is always captured at once."""
    if value == payment_pb2.CAPTURE_METHOD_MANUAL and isinstance(method, Card):
        return CaptureMethod.MANUAL
    return CaptureMethod.AUTOMATIC


def state_from_proto(value: payment_pb2.Payment.State.ValueType) -> PaymentState | None:
    """Reads a state to search for; None for any."""
    return PaymentState(payment_pb2.Payment.State.Name(value).removeprefix("STATE_")) if value else None


def amount_of(
    request: payment_service_pb2.CapturePaymentRequest | payment_service_pb2.CreateRefundRequest,
) -> Money | None:
    """The amount of a request that may leave it out."""
    return money_from_proto(request.amount) if request.HasField("amount") else None


def payment_to_proto(payment: Payment) -> payment_pb2.Payment:
    """Writes a payment."""
    return payment_pb2.Payment(
        payment_id=payment.payment_id,
        state=payment_pb2.Payment.State.Value(f"STATE_{payment.state}"),
        amount=money_to_proto(payment.amount),
        authorized_amount=money_to_proto(payment.money(payment.authorized_minor)),
        captured_amount=money_to_proto(payment.money(payment.captured_minor)),
        refunded_amount=money_to_proto(payment.money(payment.refunded_minor)),
        method=_method_to_proto(payment.method),
        payer=payment_pb2.Payer(display_name=payment.payer.display_name, email=payment.payer.email),
        description=payment.description,
        merchant_reference=payment.merchant_reference,
        capture_method=payment_pb2.CaptureMethod.Value(f"CAPTURE_METHOD_{payment.capture_method}"),
        route=_route_to_proto(payment.route),
        attempts=[_attempt_to_proto(attempt) for attempt in payment.attempts],
        next_action=_next_action_to_proto(payment.next_action),
        failure=_failure_to_proto(payment.failure),
        ledger_state=_ledger_state_to_proto(payment.ledger_state),
        ledger_transaction_id=payment.ledger_transaction_id,
        ledger_refusal_reason=payment.ledger_refusal_reason,
        create_time=_time_to_proto(payment.create_time),
        update_time=_time_to_proto(payment.update_time),
        version=payment.version,
    )


def refund_to_proto(refund: Refund) -> payment_pb2.Refund:
    """Writes a refund."""
    return payment_pb2.Refund(
        refund_id=refund.refund_id,
        payment_id=refund.payment_id,
        state=payment_pb2.Refund.State.Value(f"STATE_{refund.state}"),
        amount=money_to_proto(refund.amount),
        description=refund.description,
        provider_reference=refund.call.reference,
        failure=_failure_to_proto(refund.call.failure),
        ledger_state=_ledger_state_to_proto(refund.ledger_state),
        ledger_transaction_id=refund.ledger_transaction_id,
        ledger_refusal_reason=refund.ledger_refusal_reason,
        create_time=_time_to_proto(refund.create_time),
        update_time=_time_to_proto(refund.update_time),
    )


def provider_to_proto(facts: ProviderFacts) -> provider_pb2.Provider:
    """Writes what a provider is and can do."""
    fields = [
        provider_pb2.CredentialField(name=field.name, description=field.description, optional=field.optional)
        for field in facts.credential_fields
    ]
    return provider_pb2.Provider(
        provider=facts.slug,
        display_name=facts.display_name,
        domain=facts.domain,
        capabilities=facts.capabilities,
        countries=facts.countries,
        currencies=facts.currencies,
        credential_fields=fields,
    )


def _method_to_proto(method: MobileMoney | Card) -> payment_pb2.PaymentMethod:
    if isinstance(method, MobileMoney):
        wallet = payment_pb2.MobileMoney(msisdn=method.msisdn, operator=method.operator)
        return payment_pb2.PaymentMethod(mobile_money=wallet)
    return payment_pb2.PaymentMethod(card=payment_pb2.Card(token=method.token, return_url=method.return_url))


def _route_to_proto(route: Route) -> payment_pb2.Route:
    candidates = [
        payment_pb2.RouteCandidate(
            provider=candidate.provider,
            connection_id=candidate.connection_id,
            eligible=candidate.eligible,
            explanation=candidate.explanation,
        )
        for candidate in route.candidates
    ]
    return payment_pb2.Route(
        provider=route.provider,
        connection_id=route.connection_id,
        explanation=route.explanation,
        candidates=candidates,
    )


def _attempt_to_proto(attempt: Attempt) -> payment_pb2.Attempt:
    return payment_pb2.Attempt(
        attempt_id=attempt.attempt_id,
        provider=attempt.call.provider,
        connection_id=attempt.call.connection_id,
        state=payment_pb2.Attempt.State.Value(f"STATE_{attempt.call.state}"),
        provider_reference=attempt.call.reference,
        failure=_failure_to_proto(attempt.call.failure),
        create_time=_time_to_proto(attempt.create_time),
        update_time=_time_to_proto(attempt.update_time),
    )


def _next_action_to_proto(action: NextAction | None) -> payment_pb2.NextAction | None:
    if action is None:
        return None
    return payment_pb2.NextAction(redirect_url=action.redirect_url, instructions=action.instructions)


def _failure_to_proto(failure: Failure | None) -> payment_pb2.Failure | None:
    if failure is None:
        return None
    return payment_pb2.Failure(
        code=payment_pb2.Failure.Code.Value(f"CODE_{failure.code}"),
        message=failure.message,
        provider_code=failure.provider_code,
    )


def _ledger_state_to_proto(state: LedgerState) -> payment_pb2.Payment.LedgerState.ValueType:
    return payment_pb2.Payment.LedgerState.Value(f"LEDGER_STATE_{state}")


def _time_to_proto(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message
