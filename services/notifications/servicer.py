"""The RPCs of the notifications service: convert in, call the use case, convert out."""

# ruff: noqa: N802 - the contracts name the methods

from __future__ import annotations

from kente.notifications.v1 import (
    message_service_pb2,
    message_service_pb2_grpc,
    provider_service_pb2,
    provider_service_pb2_grpc,
)

from mesh.context import current_tenant_id
from mesh.database import Database
from services.notifications import convert
from services.notifications.peers import Providers
from services.notifications.settings import NotificationsSettings
from services.notifications.use_cases.get_message import get_message
from services.notifications.use_cases.list_messages import list_messages
from services.notifications.use_cases.list_providers import list_providers
from services.notifications.use_cases.send_message import send_message


class MessageServicer(message_service_pb2_grpc.MessageServiceServicer):
    """Messages to recipients."""

    def __init__(self, database: Database, providers: Providers, settings: NotificationsSettings) -> None:
        self._database = database
        self._providers = providers
        self._settings = settings

    async def SendMessage(
        self, request: message_service_pb2.SendMessageRequest, _context: object
    ) -> message_service_pb2.SendMessageResponse:
        message = await send_message(
            self._database,
            self._providers,
            tenant_id=current_tenant_id(),
            request_id=request.request_id,
            template=request.template,
            locale=request.locale,
            recipient=convert.text_from_proto(request.recipient, "recipient"),
            variables=dict(request.variables),
            source_id=convert.text_from_proto(request.source_id, "source_id"),
            message_domain=self._settings.message_domain,
        )
        return message_service_pb2.SendMessageResponse(message=convert.message_to_proto(message))

    async def GetMessage(
        self, request: message_service_pb2.GetMessageRequest, _context: object
    ) -> message_service_pb2.GetMessageResponse:
        message = await get_message(self._database, tenant_id=current_tenant_id(), message_id=request.message_id)
        return message_service_pb2.GetMessageResponse(message=convert.message_to_proto(message))

    async def ListMessages(
        self, request: message_service_pb2.ListMessagesRequest, _context: object
    ) -> message_service_pb2.ListMessagesResponse:
        messages, next_page_token = await list_messages(
            self._database,
            tenant_id=current_tenant_id(),
            source_id=convert.text_from_proto(request.source_id, "source_id"),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return message_service_pb2.ListMessagesResponse(
            messages=[convert.message_to_proto(message) for message in messages], next_page_token=next_page_token
        )


class ProviderServicer(provider_service_pb2_grpc.ProviderServiceServicer):
    """The message providers that exist."""

    def __init__(self, providers: Providers) -> None:
        self._providers = providers

    async def ListProviders(
        self, request: provider_service_pb2.ListProvidersRequest, _context: object
    ) -> provider_service_pb2.ListProvidersResponse:
        found, next_page_token = list_providers(
            self._providers, page_size=request.page_size, page_token=request.page_token
        )
        return provider_service_pb2.ListProvidersResponse(
            providers=[convert.provider_to_proto(facts) for facts in found], next_page_token=next_page_token
        )
