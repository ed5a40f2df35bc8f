"""The RPCs of payments: each reads its request, runs its use case, and writes the answer."""

# ruff: noqa: N802 - the contracts name the methods

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from google.protobuf.message import Message
from kente.payments.v1 import (
    payment_service_pb2,
    payment_service_pb2_grpc,
    provider_service_pb2,
    provider_service_pb2_grpc,
    webhook_service_pb2,
    webhook_service_pb2_grpc,
)

from mesh.context import current_tenant_id
from mesh.pages import decode_page_token, encode_page_token, page_size
from services.payments import convert
from services.payments.model import AdjustmentKind
from services.payments.repository.changes import PaymentChanges
from services.payments.use_cases import read_payments
from services.payments.use_cases.adjust_payment import NewAdjustment, adjust_payment
from services.payments.use_cases.create_payment import NewPayment, create_payment
from services.payments.use_cases.create_refund import NewRefund, create_refund
from services.payments.use_cases.desk import Desk
from services.payments.use_cases.receive_webhook import Callback, incoming, receive_webhook
from services.payments.use_cases.watch_payment import watch_payment


class PaymentServicer(payment_service_pb2_grpc.PaymentServiceServicer):
    """kente.payments.v1.PaymentService."""

    def __init__(self, desk: Desk, changes: PaymentChanges, fingerprint: Callable[[Message], bytes]) -> None:
        self._desk = desk
        self._changes = changes
        self._fingerprint = fingerprint

    async def CreatePayment(
        self, request: payment_service_pb2.CreatePaymentRequest, _context: object
    ) -> payment_service_pb2.CreatePaymentResponse:
        method = convert.method_from_proto(request.method)
        order = NewPayment(
            request_id=request.request_id,
            request_fingerprint=self._fingerprint(request),
            amount=convert.money_from_proto(request.amount),
            method=method,
            payer=convert.payer_from_proto(request.payer),
            connection_id=request.connection_id,
            description=request.description,
            merchant_reference=request.merchant_reference,
            capture_method=convert.capture_method_from_proto(request.capture_method, method),
        )
        payment = await create_payment(self._desk, current_tenant_id(), order)
        return payment_service_pb2.CreatePaymentResponse(payment=convert.payment_to_proto(payment))

    async def CapturePayment(
        self, request: payment_service_pb2.CapturePaymentRequest, _context: object
    ) -> payment_service_pb2.CapturePaymentResponse:
        order = NewAdjustment(
            kind=AdjustmentKind.CAPTURE,
            request_id=request.request_id,
            request_fingerprint=self._fingerprint(request),
            payment_id=request.payment_id,
            amount=convert.amount_of(request),
        )
        payment = await adjust_payment(self._desk, current_tenant_id(), order)
        return payment_service_pb2.CapturePaymentResponse(payment=convert.payment_to_proto(payment))

    async def CancelPayment(
        self, request: payment_service_pb2.CancelPaymentRequest, _context: object
    ) -> payment_service_pb2.CancelPaymentResponse:
        order = NewAdjustment(
            kind=AdjustmentKind.CANCEL,
            request_id=request.request_id,
            request_fingerprint=self._fingerprint(request),
            payment_id=request.payment_id,
        )
        payment = await adjust_payment(self._desk, current_tenant_id(), order)
        return payment_service_pb2.CancelPaymentResponse(payment=convert.payment_to_proto(payment))

    async def GetPayment(
        self, request: payment_service_pb2.GetPaymentRequest, _context: object
    ) -> payment_service_pb2.GetPaymentResponse:
        payment = await read_payments.get_payment(self._desk.database, current_tenant_id(), request.payment_id)
        return payment_service_pb2.GetPaymentResponse(payment=convert.payment_to_proto(payment))

    async def ListPayments(
        self, request: payment_service_pb2.ListPaymentsRequest, _context: object
    ) -> payment_service_pb2.ListPaymentsResponse:
        payments, token = await read_payments.list_payments(
            self._desk.database,
            current_tenant_id(),
            size=request.page_size,
            token=request.page_token,
            state=convert.state_from_proto(request.state),
            merchant_reference=request.merchant_reference,
        )
        found = [convert.payment_to_proto(payment) for payment in payments]
        return payment_service_pb2.ListPaymentsResponse(payments=found, next_page_token=token)

    async def WatchPayment(
        self, request: payment_service_pb2.WatchPaymentRequest, _context: object
    ) -> AsyncIterator[payment_service_pb2.WatchPaymentResponse]:
        versions = watch_payment(self._desk.database, self._changes, current_tenant_id(), request.payment_id)
        async for payment in versions:
            yield payment_service_pb2.WatchPaymentResponse(payment=convert.payment_to_proto(payment))

    async def CreateRefund(
        self, request: payment_service_pb2.CreateRefundRequest, _context: object
    ) -> payment_service_pb2.CreateRefundResponse:
        order = NewRefund(
            request_id=request.request_id,
            request_fingerprint=self._fingerprint(request),
            payment_id=request.payment_id,
            amount=convert.amount_of(request),
            description=request.description,
        )
        refund = await create_refund(self._desk, current_tenant_id(), order)
        return payment_service_pb2.CreateRefundResponse(refund=convert.refund_to_proto(refund))

    async def GetRefund(
        self, request: payment_service_pb2.GetRefundRequest, _context: object
    ) -> payment_service_pb2.GetRefundResponse:
        refund = await read_payments.get_refund(
            self._desk.database, current_tenant_id(), request.payment_id, request.refund_id
        )
        return payment_service_pb2.GetRefundResponse(refund=convert.refund_to_proto(refund))

    async def ListRefunds(
        self, request: payment_service_pb2.ListRefundsRequest, _context: object
    ) -> payment_service_pb2.ListRefundsResponse:
        refunds, token = await read_payments.list_refunds(
            self._desk.database,
            current_tenant_id(),
            request.payment_id,
            size=request.page_size,
            token=request.page_token,
        )
        found = [convert.refund_to_proto(refund) for refund in refunds]
        return payment_service_pb2.ListRefundsResponse(refunds=found, next_page_token=token)


class ProviderServicer(provider_service_pb2_grpc.ProviderServiceServicer):
    """kente.payments.v1.ProviderService."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def ListProviders(
        self, request: provider_service_pb2.ListProvidersRequest, _context: object
    ) -> provider_service_pb2.ListProvidersResponse:
        position = decode_page_token(request.page_token, {"list": "providers"})
        after = str(position["provider"]) if position else ""
        rest = [facts for facts in self._desk.providers.facts() if facts.slug > after]
        page = rest[: page_size(request.page_size)]
        more = len(rest) > len(page)
        token = encode_page_token({"provider": page[-1].slug}, {"list": "providers"}) if more else ""
        providers = [convert.provider_to_proto(facts) for facts in page]
        return provider_service_pb2.ListProvidersResponse(providers=providers, next_page_token=token)


class WebhookServicer(webhook_service_pb2_grpc.WebhookServiceServicer):
    """kente.payments.v1.WebhookService."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def ReceiveWebhook(
        self, request: webhook_service_pb2.ReceiveWebhookRequest, _context: object
    ) -> webhook_service_pb2.ReceiveWebhookResponse:
        webhook = incoming(dict(request.headers), request.body, request.query, request.http_method)
        await receive_webhook(self._desk, Callback(request.provider, request.connection_id, webhook))
        return webhook_service_pb2.ReceiveWebhookResponse(http_status=200)
